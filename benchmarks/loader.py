"""How fast patches are cut from prepared scans, and how many workers keep a GPU busy.

    python benchmarks/loader.py                              # two random scans of 300 x 300 x 500 voxels
    python benchmarks/loader.py --data prepared --step-seconds 0.9

Prints a Markdown table: seconds a patch on one thread, seconds a batch by way of one worker process (with putting the
patches together and handing them over), and the workers needed so that a batch is there every `--step-seconds`.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from vertebral.cli.train import config_file
from vertebral.core.anatomy import LEVELS
from vertebral.core.config import changed, load_config
from vertebral.data.patches.scan_patches import ScanPatches
from vertebral.data.verse.prepare import draw_bone
from vertebral.data.verse.prepared_set import PreparedScan, open_prepared
from vertebral.training.config import TrainConfig

SHAPE = (300, 300, 500)
COLUMNS = ("augmentation", "s/patch, median", "s/patch, mean", "s/batch, one worker", "workers for a step")


def main() -> None:
    """Measure and print."""
    options = arguments()
    torch.set_num_threads(1)
    config = load_config(TrainConfig, config_file(options.config))
    if config.data.kind != "scans":
        raise SystemExit(f"{options.config}: its data are of kind {config.data.kind}; give a config of kind scans")
    with tempfile.TemporaryDirectory() as folder:
        if options.data:
            prepared = open_prepared(options.data)
            prepared.check(config.model.preprocess)
            scans: Sequence[PreparedScan] = prepared.fold(config.data.fold)[0]
        else:
            scans = [random_scan(Path(folder) / f"random{n}", n, config.model.preprocess.spacing_mm) for n in range(2)]
        print(f"{options.config}: patches of {config.patch}, batches of {config.batch}, {len(scans)} scans\n")
        print(f"| {' | '.join(COLUMNS)} |")
        print("|" + " --- |" * len(COLUMNS))
        plain = changed(config, data=changed(config.data, augment=None))
        for name, recipe in (("none", plain), ("as in the config", config)):
            row(name, ScanPatches(scans, recipe), recipe.batch, options)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder that `vertebral data prepare` made; else random scans")
    parser.add_argument("--config", default="resunet", help="a YAML file or a shipped config (default: resunet)")
    parser.add_argument("--patches", type=int, default=40, help="patches to time one by one (default: 40)")
    parser.add_argument("--batches", type=int, default=4, help="batches to time in a worker; 0 for none (default: 4)")
    parser.add_argument("--step-seconds", type=float, default=1.0, help="seconds a step takes (default: 1)")
    return parser.parse_args()


def row(name: str, patches: ScanPatches, batch: int, options: argparse.Namespace) -> None:
    """Time one recipe and print its line of the table."""
    patches[0]
    each = [seconds(partial(patches.__getitem__, n)) for n in range(1, options.patches + 1)]
    mean = statistics.mean(each)
    whole = mean * batch
    if options.batches:
        whole = statistics.mean(through_a_worker(patches, batch, options.batches))
    workers = math.ceil(whole / options.step_seconds)
    print(f"| {name} | {statistics.median(each):.3f} | {mean:.3f} | {whole:.2f} | {workers} |", flush=True)


def through_a_worker(patches: ScanPatches, batch: int, count: int) -> list[float]:
    """Seconds between the batches that one worker process hands over, without its start."""
    numbers = [list(range(n * batch, (n + 1) * batch)) for n in range(count + 1)]
    loader = DataLoader(patches, batch_sampler=numbers, num_workers=1, prefetch_factor=2)
    batches = iter(loader)
    next(batches)
    return [seconds(lambda: next(batches)) for _ in range(count)]


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def random_scan(folder: Path, seed: int, spacing_mm: float) -> PreparedScan:
    """Noise with a column of blocks for vertebrae, on disk as `vertebral data prepare` leaves a scan."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint8)
    for place, level in enumerate(level for level in LEVELS if level.is_vertebra):
        labels[130:170, 120:180, 18 * place : 18 * place + 15] = level.verse_id
    bone, levels = draw_bone(labels)
    folder.mkdir()
    arrays = {"ct": rng.integers(-100, 1000, SHAPE, np.int16), "labels": labels, "bone": bone}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return PreparedScan(
        case=folder.name,
        subject=folder.name,
        folder=folder,
        shape=SHAPE,
        spacing_mm=spacing_mm,
        affine_rows=np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0]).tolist(),
        levels=levels,
        sha256_ct="",
        sha256_labels="",
    )


if __name__ == "__main__":
    main()
