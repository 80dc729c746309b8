"""Finding models by name or path, and reading their cards (`model.json`), without a deep-learning package."""

import json
import os
import re
import struct
from dataclasses import dataclass
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any, Literal

import platformdirs

from vertebral.core.config import parse_config
from vertebral.core.errors import ConfigError, ModelError
from vertebral.models.config import ModelConfig
from vertebral.runtime.hashing import file_sha256

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
CHECKPOINT_SUFFIX = ".ckpt"
PLACE_VARIABLE = "VERTEBRAL_MODELS"

Origin = Literal["shipped", "imported", "given"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REMEDY = "import or export it again"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelCard:
    """The content of `model.json` in `folder`; `values` is all of it."""

    config: ModelConfig
    values: dict[str, Any]
    folder: Path

    @property
    def licence(self) -> str:
        """The licence of the weights."""
        return str(self.values.get("licence", "unknown"))

    @property
    def provenance(self) -> dict[str, Any]:
        """How the weights were made: the card without its config and hash."""
        return {key: value for key, value in self.values.items() if key not in ("config", "sha256")}

    @property
    def weights(self) -> Path:
        """The file that holds the weights."""
        return self.folder / WEIGHTS_FILE


def shipped_models() -> dict[str, Path]:
    """Names and folders of the models inside the package."""
    return _folders(Path(str(resources.files("vertebral") / "models" / "shipped")))


def imported_models() -> dict[str, Path]:
    """Names and folders of the models that the user imported, without those that carry a shipped name."""
    shipped = shipped_models()
    return {name: folder for name, folder in _folders(models_folder()).items() if name not in shipped}


def models_folder() -> Path:
    """The folder of imported models: $VERTEBRAL_MODELS, or the user's data folder on this system."""
    place = os.environ.get(PLACE_VARIABLE)
    return Path(place).expanduser() if place else Path(platformdirs.user_data_dir("vertebral")) / "models"


def is_model_name(name: str) -> bool:
    """Whether an imported model may have this name: letters, digits, `.`, `_`, `-`; no path, no leading dot."""
    return _NAME.fullmatch(name) is not None


def find_model(name_or_path: str | Path) -> tuple[Path, Origin]:
    """Return the model's folder or checkpoint file, and where it comes from; a Path is never taken for a name.

    Raises ModelError, which lists the known names, if there is no such model.
    """
    shipped, imported = shipped_models(), imported_models()
    if isinstance(name_or_path, str):
        if name_or_path in shipped:
            return shipped[name_or_path], "shipped"
        if name_or_path in imported:
            return imported[name_or_path], "imported"
    path = Path(name_or_path)
    if path.suffix == CHECKPOINT_SUFFIX and path.is_file():
        return path, "given"
    for folder in (path, path / "model"):
        if (folder / CARD_FILE).is_file():
            return folder, "given"
    raise ModelError(
        f"model {str(name_or_path)!r}: neither a shipped model ({', '.join(shipped) or 'none'}), nor an imported one "
        f"({', '.join(imported) or 'none'}), nor a folder with a {CARD_FILE}, a run folder or a {CHECKPOINT_SUFFIX} "
        "file: check the name"
    )


def find_refiner(name_or_path: str | Path, config: ModelConfig) -> Path | None:
    """Return the folder or file of the refiner named by the model `name_or_path`, whose config is `config`, or None.

    A folder next to the model's takes precedence over a model of that name. Raises ModelError if there is neither.
    """
    if config.refiner is None:
        return None
    path, _ = find_model(name_or_path)
    neighbour = path.parent / config.refiner
    if (neighbour / CARD_FILE).is_file():
        return neighbour
    try:
        return find_model(config.refiner)[0]
    except ModelError:
        raise ModelError(
            f"model {config.name}: its refiner {config.refiner!r} is neither next to it ({neighbour}) nor a known "
            "model; put it there, or run with --no-refine"
        ) from None


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model folder. Raises ModelError if it is missing or damaged."""
    path = folder / CARD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return ModelCard(parse_config(ModelConfig, values["config"], str(path)), values, folder)
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise damaged(folder, error) from None


def check_weights(card: ModelCard) -> str:
    """Return the sha256 of the weights file. Raises ModelError if it is missing or differs from the card's."""
    if "onnx" in card.values and not card.weights.exists():
        raise ModelError(
            f"{card.folder}: holds an ONNX export, for other programs; give the model that it was made from"
        )
    try:
        sha256 = file_sha256(card.weights)
    except OSError as error:
        raise damaged(card.folder, error) from None
    if sha256 != card.values.get("sha256"):
        expected = card.values.get("sha256")
        raise ModelError(
            f"{card.weights}: sha256 {sha256} is not the {expected} in its {CARD_FILE}: damaged, or of another model; "
            f"{_REMEDY}"
        )
    return sha256


def count_parameters(weights: Path) -> int:
    """Return the number of floating-point values in a safetensors file, read from its header."""
    try:
        with weights.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        return sum(prod(entry["shape"]) for entry in tensors if "F" in entry["dtype"])
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise damaged(weights.parent, error) from None


def damaged(folder: Path, error: Exception) -> ModelError:
    """The error for a model folder that cannot be read."""
    return ModelError(f"{folder}: the model is incomplete or damaged ({error}); {_REMEDY}")


def _folders(root: Path) -> dict[str, Path]:
    found = sorted(root.glob(f"*/{CARD_FILE}")) if root.is_dir() else []
    return {path.parent.name: path.parent for path in found if is_model_name(path.parent.name)}
