"""Import a model into the user's own models, or export one to a folder or a zip file."""

import json
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vertebral.core.config import changed
from vertebral.core.errors import ConfigError, InputError, ModelError, OutputExistsError, ReadError
from vertebral.io.ct.archive import extracted
from vertebral.io.result_folder import refuse_files
from vertebral.io.write import atomic_write
from vertebral.models.backends.onnx import ONNX_FILE, export_onnx
from vertebral.models.cards import (
    CARD_FILE,
    WEIGHTS_FILE,
    find_model,
    is_model_name,
    models_folder,
    read_card,
    shipped_models,
)
from vertebral.models.weights import load_model, save_model, write_card

FORMATS = {"safetensors": WEIGHTS_FILE, "onnx": ONNX_FILE}


def import_model(source: Path, name: str, overwrite: bool = False) -> Path:
    """Copy a model into the user's models under `name`; return its new folder.

    `source` is a model folder, a run folder, a checkpoint or a zip of a model folder. The weights are loaded once to
    check that they fit. Raises ConfigError for a name that is not allowed, OutputExistsError if it is taken and
    `overwrite` is False, ModelError if `source` holds no valid model.
    """
    if not is_model_name(name):
        raise ConfigError(f"--name {name!r}: use up to 64 letters, digits, dots, dashes and underscores")
    if name in shipped_models():
        raise ConfigError(f"--name {name}: that is a shipped model's name; choose another name")
    target = models_folder() / name
    if target.exists() and not overwrite:
        raise OutputExistsError(
            f"{target}: a model of this name already exists; add --overwrite, or choose another --name"
        )
    with _opened(source) as path, _staging(target) as staging:
        _copy_model(path, staging, name)
        retired = target.with_name(f".replaced-{uuid.uuid4().hex[:12]}")
        if target.exists():
            target.replace(retired)
        staging.replace(target)
        shutil.rmtree(retired, ignore_errors=True)
    return target


def export_model(
    name_or_path: str, out: Path, file_format: str = "safetensors", overwrite: bool = False
) -> dict[str, Any]:
    """Write a model into the folder `out`, or into one file where `out` ends in `.zip`; return its card.

    `safetensors` can be imported again; `onnx` is for other programs (see `backends.onnx`). Raises ConfigError for
    another format, OutputExistsError if a file would be replaced and `overwrite` is False, and ModelError if there is
    no valid model.
    """
    if file_format not in FORMATS:
        raise ConfigError(f"--format {file_format}: use {' or '.join(FORMATS)}")
    source, _ = find_model(name_or_path)
    targets = exported_files(out, file_format)
    if out.exists() and out.is_dir() == _is_zip(out):
        raise OutputExistsError(f"{out}: give a folder, or the name of a file that ends in .zip, as --out")
    refuse_files(targets, overwrite)
    with _staging(out) as staging:
        _write_onnx(source, staging) if file_format == "onnx" else _copy_model(source, staging)
        card: dict[str, Any] = json.loads((staging / CARD_FILE).read_text(encoding="utf-8"))
        if _is_zip(out):
            _zip(staging, (CARD_FILE, FORMATS[file_format]), out)
        else:
            out.mkdir(exist_ok=True)
            for path in targets:
                (staging / path.name).replace(path)
    return card


def exported_files(out: Path, file_format: str) -> list[Path]:
    """The files that `export_model` writes."""
    return [out] if _is_zip(out) else [out / CARD_FILE, out / FORMATS[file_format]]


def _copy_model(source: Path, target: Path, name: str | None = None) -> None:
    """Copy the model of a folder or a checkpoint into the folder `target`, renamed if `name` is given."""
    model = load_model(source)
    config = model.config if name is None else changed(model.config, name=name)
    if source.is_dir():
        shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
        write_card(target, {**read_card(source).values, "config": config.model_dump(mode="json")})
    else:
        save_model(target, config, model.network.state_dict(), model.provenance)


def _write_onnx(source: Path, target: Path) -> None:
    model = load_model(source)
    onnx = export_onnx(model, target / ONNX_FILE)
    config = model.config.model_dump(mode="json")
    write_card(target, {"config": config, "sha256": model.sha256, **model.provenance, "onnx": onnx})


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """Yield `source` as a model folder or checkpoint, extracted if it is a zip file."""
    if not source.exists():
        raise ModelError(f"{source}: no such file or folder; check the path")
    if not (_is_zip(source) and source.is_file()):
        yield find_model(source)[0]
        return
    try:
        with extracted(source) as folder:
            cards = list(folder.rglob(CARD_FILE))
            if len(cards) != 1:
                raise ModelError(f"{source}: holds {len(cards)} files named {CARD_FILE}; give a zip of one model")
            try:
                yield cards[0].parent
            except ModelError as error:
                raise ModelError(str(error).replace(str(folder), str(source))) from None
    except ReadError as error:
        raise ModelError(f"{source}: {error}") from None


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder next to `target`; remove it afterwards, unless it was moved."""
    folder = target.parent / f".partial-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _zip(folder: Path, names: tuple[str, ...], out: Path) -> None:
    """Pack files without their dates, so that the same model becomes the same bytes."""
    with atomic_write(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            with (
                archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as stream,
                (folder / name).open("rb") as data,
            ):
                shutil.copyfileobj(data, stream)
