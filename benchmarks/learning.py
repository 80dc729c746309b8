"""Do the three recipes learn? CT painted from label maps to train on, painted and real CT to validate on.

    python benchmarks/learning.py --data DATA --out OUT [--only resunet] [--levels] [--epochs 20]

DATA is laid out as configs/default.yaml wants it. The set is written in VerSe's layout and goes through `vertebral data
index|split|prepare` and `vertebral train`, as a real one would. Against the recipes in configs/: 3 mm for 1 mm, patches
of 64^3 (Swin UNETR: 96x64x64) for 160^3, half the channels, batches of 2, a higher learning rate, spine against
background (--levels: levels).
The baseline is the best threshold: every voxel above some HU is spine.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

import vertebral
from vertebral.core.config import load_config
from vertebral.core.volume import Volume
from vertebral.data.patches.config import SyntheticConfig
from vertebral.data.synthesis.body_cache import CachedBody, cache_bodies, find_recipes
from vertebral.data.synthesis.synthetic_ct import synthesise
from vertebral.data.verse.prepared_set import open_prepared
from vertebral.evaluation.metrics import dice
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import write_image, write_labels
from vertebral.training.config import TrainConfig

CONFIGS = Path(vertebral.__file__).parent / "training" / "configs"
SPACING_MM = 3.0
REAL = ("LIDC-IDRI-0001", "ts_example_ct_3mm")
HELD_OUT = 5
SMALL = {
    "unet": {"channels": [16, 32, 64, 128, 256]},
    "resunet": {"channels": [16, 32, 64, 128, 256]},
    "swinunetr": {"feature_size": 24},
}


def make_set(data: Path, out: Path, bodies: Path) -> None:
    """Write OUT/verse: one painted CT a label map, the last `HELD_OUT` of them and the real CTs for validation."""
    config = load_config(TrainConfig, CONFIGS / "default.yaml")
    assert isinstance(config.data, SyntheticConfig)
    recipes = [r for r in find_recipes(data, config.data.sources) if r.kind == "vertebrae"]
    first = {str(recipe.labels): recipe for recipe in reversed(recipes)}
    chosen = [first[name] for name in sorted(first)]
    cached = cache_bodies(chosen, config.data.synthesis.cache_spacing_mm, bodies, lambda done, name: print(done, name))
    for number, body in enumerate(cached):
        subset = "01training" if number < len(cached) - HELD_OUT else "02validation"
        ct, labels = painted(body, config.data, number)
        write_case(out / f"dataset-{subset}", f"synthetic{number:02d}", ct, labels)
    for name in REAL:
        folder = data / "real" / "labelled"
        ct = read_scan(folder / f"{name}_ct.nii.gz").volume
        labels = read_labels(folder / f"{name}_seg-vert_msk.nii.gz")
        write_case(out / "dataset-02validation", name.replace("-", "").replace("_", ""), ct, labels)


def painted(body: CachedBody, settings: SyntheticConfig, seed: int) -> tuple[Volume, Volume]:
    """The part of a body around its spine, painted, posed and scanned with random settings."""
    return synthesise(body, settings.synthesis, seed, settings.synthesis.cache_spacing_mm)


def write_case(root: Path, name: str, ct: Volume, labels: Volume) -> None:
    """Write one subject in VerSe's layout of 2020."""
    for folder, volume, ending, write in (
        ("rawdata", ct, "ct", write_image),
        ("derivatives", labels, "seg-vert_msk", write_labels),
    ):
        place = root / folder / f"sub-{name}"
        place.mkdir(parents=True, exist_ok=True)
        write(volume, place / f"sub-{name}_{ending}.nii.gz")


def recipe(name: str, arguments: argparse.Namespace) -> Path:
    """The shipped recipe, reduced as the head of this file says, as a YAML file."""
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    values["model"]["preprocess"]["spacing_mm"] = SPACING_MM
    values["model"]["network"].update(SMALL[name])
    size = [96 if values["model"]["network"]["kind"] == "swinunetr" else 64, 64, 64]  # see `train.check_bottom`
    values["model"]["inference"]["window"] = values["patch"] = size
    values.update(batch=2, phases=1, epochs=arguments.epochs, workers=1, steps_per_epoch=arguments.steps)
    values["optimizer"]["learning_rate"] = arguments.rate
    values["validation"]["patience"] = None
    path = arguments.out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def baseline(prepared: Path) -> str:
    """Dice of the best single threshold over the validation scans."""
    _, validation = open_prepared(prepared).fold(0)
    rows = []
    for hu in range(100, 500, 50):
        scores = [dice(np.asarray(s.ct) > hu, np.isin(s.labels, [*range(1, 26), 28])) for s in validation]
        rows.append((float(np.mean(scores)), hu))
    best, hu = max(rows)
    return f"best threshold {hu} HU: Dice {best:.3f}"


def vertebral_command(*words: object) -> None:
    """Run the command line as a user would."""
    subprocess.run([Path(sys.executable).parent / "vertebral", *map(str, words)], check=True)


def main() -> None:
    """Make the set where it is missing, train what was asked for, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bodies", type=Path, help="cache of bodies; OUT/bodies if not given")
    parser.add_argument("--only", choices=sorted(SMALL))
    parser.add_argument("--levels", action="store_true")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    verse, prepared = arguments.out / "verse", arguments.out / "prepared"
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not (verse / "catalog.json").exists():
        make_set(arguments.data, verse, arguments.bodies or arguments.out / "bodies")
        vertebral_command("data", "index", verse)
        vertebral_command("data", "split", verse / "catalog.json", "--mode", "challenge")
    for name in [arguments.only] if arguments.only else SMALL:
        config = recipe(name, arguments)
        if not (prepared / "prepared.json").exists():
            options = ("--config", config, "--split", verse / "split.json", "--out", prepared)
            vertebral_command("data", "prepare", verse / "catalog.json", *options)
        run = arguments.out / f"{name}{'-levels' if arguments.levels else ''}"
        binary = () if arguments.levels else ("--binary",)
        vertebral_command("train", "--config", config, "--data", prepared, "--out", run, "--resume", *binary)
        vertebral_command("report", run)
    print(baseline(prepared))


if __name__ == "__main__":
    main()
