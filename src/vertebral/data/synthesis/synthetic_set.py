"""A set of synthetic CTs on disk: plan the pairs of CT and labels, skip those that exist, write the others."""

import glob
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebral.core.about import __version__
from vertebral.core.config import changed
from vertebral.core.errors import ConfigError, OutputExistsError, ReadError
from vertebral.data.synthesis.body_cache import CachedBody
from vertebral.data.synthesis.body_map import BodyMap, load_body, with_cortex
from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.plain_trunk import plain_trunk
from vertebral.data.synthesis.random_draws import seed_of
from vertebral.data.synthesis.spine_placement import place_in_body
from vertebral.data.synthesis.synthetic_ct import synthesise
from vertebral.io.ct.image_header import IMAGE_SUFFIXES, suffix_of
from vertebral.io.ct.read import read_labels
from vertebral.io.write import write_image, write_json, write_labels
from vertebral.runtime.hashing import file_sha256

NOTES = "synth.json"
LICENCE_NOTE = (
    "The shapes in this set come from the label maps and body maps that it was made from: their licences apply to it, "
    "and to models trained with it."
)


@dataclass(frozen=True)
class MapSource:
    """A label map and the body map to place it in: None if it is a body map itself, or gets a plain trunk."""

    labels: Path
    body: Path | None
    kind: str

    @property
    def stem(self) -> str:
        """The name of the case; the names of its pairs begin with it."""
        name = self.labels.name.removesuffix(suffix_of(self.labels, IMAGE_SUFFIXES))
        for ending in ("_seg-vert_msk", "_labelmap", "_organs", "_msk", "_seg"):
            name = name.removesuffix(ending)
        return name


@dataclass(frozen=True)
class SyntheticPair:
    """Pair `number` (from 1) of a set: its source, its seed, and its files relative to the folder of the set."""

    number: int
    source: MapSource
    seed: int
    ct: str
    labels: str


def find_sources(labels: Path, bodies: str | None) -> list[MapSource]:
    """Return the sources in `labels`, a label map or a folder of them; maps use the `bodies` (folder or glob) in turn.

    A map with a JSON file of names next to it is a body map. Raises ReadError if there is no map, ConfigError if
    `bodies` matches none.
    """
    files = [labels] if labels.is_file() else _maps(sorted(labels.rglob("*"))) if labels.is_dir() else []
    if not files:
        raise ReadError(f"{labels}: no label map found: give a NIfTI, NRRD or MetaImage file, or a folder of them")
    places = _bodies(bodies) if bodies is not None else []
    sources = []
    for path in files:
        if _names_of(path).exists():
            sources.append(MapSource(path, None, "body"))
        else:
            body = places[len(sources) % len(places)] if places else None
            sources.append(MapSource(path, body, "vertebrae"))
    return sources


def plan_pairs(sources: list[MapSource], count: int, seed: int) -> list[SyntheticPair]:
    """Return the pairs 1 to `count`, the sources in turn; a pair depends only on `seed` and its number."""
    if len({source.stem for source in sources}) < len(sources):
        sources = [*{source.stem: source for source in reversed(sources)}.values()][::-1]
    pairs = []
    for number in range(1, count + 1):
        source = sources[(number - 1) % len(sources)]
        own = seed_of(seed, number)
        stem = f"{source.stem}-{number:04d}"
        pairs.append(
            SyntheticPair(number, source, own, f"images/{stem}_ct.nii.gz", f"labels/{stem}_seg-vert_msk.nii.gz")
        )
    return pairs


def make_set(
    pairs: list[SyntheticPair],
    out: Path,
    config: SynthesisConfig,
    spacing_mm: float,
    levels: list[int] | None,
    progress: Callable[[int, int, str], None],
) -> int:
    """Write the missing ones of `pairs` to `out` and return their number. No file is left incomplete.

    Pairs are made source by source, so that each body is built once. Raises OutputExistsError if `out` holds a set made
    with other settings or sources.
    """
    config = changed(config, cache_spacing_mm=spacing_mm)
    notes = _notes(pairs, config, spacing_mm, levels)
    _check(notes, out)
    missing = [pair for pair in pairs if not ((out / pair.ct).exists() and (out / pair.labels).exists())]
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_json(notes, out / NOTES)
    there = done = len(pairs) - len(missing)
    for source in dict.fromkeys(pair.source for pair in missing):
        body = build_body(source, spacing_mm)
        for pair in (pair for pair in missing if pair.source == source):
            ct, labels = synthesise(body, config, pair.seed, spacing_mm, levels)
            write_image(ct, out / pair.ct)
            write_labels(labels, out / pair.labels)
            done += 1
            progress(done, len(pairs), Path(pair.ct).name)
    return done - there


def build_body(source: MapSource, spacing_mm: float) -> CachedBody:
    """Read a source and turn it into a body that can be painted, at `spacing_mm`."""
    if source.kind == "body":
        body = load_body(source.labels, spacing_mm)
    else:
        subject = read_labels(source.labels)
        try:
            placed: BodyMap | None = place_in_body(subject, load_body(source.body, spacing_mm)) if source.body else None
            body = placed or plain_trunk(subject, spacing_mm)
        except ReadError as error:
            raise ReadError(f"{source.labels}: {error}") from None
    body = with_cortex(body)
    return CachedBody(source.stem, 1.0, body.tissue, body.labels, None)


def _maps(paths: list[Path]) -> list[Path]:
    """Return those of `paths` that can be label maps: images that are neither hidden nor named as a CT."""
    return [
        path
        for path in paths
        if (suffix := suffix_of(path, IMAGE_SUFFIXES))
        and not path.name.startswith(".")
        and not path.name.removesuffix(suffix).endswith("_ct")
    ]


def _bodies(pattern: str) -> list[Path]:
    place = Path(pattern)
    found = sorted(place.iterdir()) if place.is_dir() else [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207  # an absolute pattern
    bodies = [path for path in _maps(found) if _names_of(path).exists()]
    if not bodies:
        raise ConfigError(
            f"--bodies {pattern}: no label map with a JSON file of names next to it; check the folder or glob"
        )
    return bodies


def _names_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(suffix_of(path, IMAGE_SUFFIXES)) + ".json")


def _notes(
    pairs: list[SyntheticPair], config: SynthesisConfig, spacing_mm: float, levels: list[int] | None
) -> dict[str, Any]:
    """Return the contents of `synth.json`."""
    files = sorted({path for pair in pairs for path in (pair.source.labels, pair.source.body) if path})
    return {
        "vertebral": __version__,
        "licence": LICENCE_NOTE,
        "spacing_mm": spacing_mm,
        "levels": levels,
        "synthesis": config.model_dump(mode="json"),
        "sources": {path.name: file_sha256(path) for path in files},
        "pairs": [
            {
                "ct": pair.ct,
                "labels": pair.labels,
                "seed": pair.seed,
                "made_from": pair.source.labels.name,
                "body": pair.source.body.name if pair.source.body else None,
            }
            for pair in pairs
        ],
    }


def _check(notes: dict[str, Any], out: Path) -> None:
    """Refuse to mix two sets in one folder; more or fewer pairs of the same set are fine."""
    path = out / NOTES
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        pairs = {pair["ct"]: pair for pair in before["pairs"]}
        same = all(before[key] == notes[key] for key in ("spacing_mm", "levels", "synthesis"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(f"{path}: not written by vertebral synth ({error!r}); choose another --out") from None
    if not same or any(pairs.get(pair["ct"], pair) != pair for pair in notes["pairs"]):
        raise OutputExistsError(f"{path}: belongs to a set with other settings, seed or sources; choose another --out")
