"""Make training labels for real CTs that have none: the refiner segments the vertebra at each hand-set centre.

    python tools/self_training.py DATA OUT [--small-scans DIR] [--model default] [--spec tools/self_training.json]

DATA holds real/unlabelled/CASE_ct.nii.gz; OUT gets CASE_seg-vert_msk.nii.gz of every accepted case. With --small-scans,
DIR gets the scans as the coarse network needs them, at 2 mm, cropped to 80 mm around the labels and rounded to 16 HU,
and OUT their labels on that grid: a seventh of the size, for a machine without network access. The spec lists for each
case whether it was accepted, why, and the centroid of each vertebra (RAS, mm): found by an earlier model, then named
and corrected by looking at every scan. The sacrum is that of the whole model. The method: docs/self-training.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.progress import track
from scipy import ndimage

from vertebral.core.anatomy import BY_NAME
from vertebral.core.config import PreprocessConfig
from vertebral.core.records import Scan, Spine, Vertebra
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_scan
from vertebral.io.write import write_image, write_labels
from vertebral.models.devices import choose_device
from vertebral.models.weights import Model, load_model, load_refiner
from vertebral.stages.inference import infer
from vertebral.stages.instances import find_instances
from vertebral.stages.preprocess import prepare, prepare_labels
from vertebral.stages.refine import refine_at
from vertebral.stages.restore import restore

DEVICE = choose_device("auto")
SMALL_MM, MARGIN_MM, ROUNDED_HU = 2.0, 80.0, 16.0


def main() -> None:
    """Label every accepted case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small-scans", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--spec", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    refiner = load_refiner(arguments.model, model.config)
    if refiner is None:
        parser.error(f"model {arguments.model} has no refiner")
    cases = json.loads(arguments.spec.read_text(encoding="utf-8"))
    accepted = {case: entry["centres_ras_mm"] for case, entry in cases.items() if entry["accepted"]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for case, centres_mm in track(accepted.items(), "labelling"):
        scan = read_scan(arguments.data / "real" / "unlabelled" / f"{case}_ct.nii.gz")
        found = refine_at(list(centres_mm.values()), scan.volume, refiner.network, refiner.config, DEVICE)
        named = zip(centres_mm, found.items, strict=True)
        spine = Spine(tuple(Vertebra(BY_NAME[name], 1.0, item) for name, item in named), found.grid)
        labels = restore(spine, scan.volume.grid).labels
        sacrum = find_sacrum(scan, model)
        array = np.where((labels.array == 0) & sacrum, BY_NAME["sacrum"].verse_id, labels.array)
        labels = Volume(array.astype(np.uint8), labels.affine)
        if arguments.small_scans is not None:
            arguments.small_scans.mkdir(parents=True, exist_ok=True)
            ct, labels = small(scan.volume, labels)
            write_image(ct, arguments.small_scans / f"{case}_ct.nii.gz")
        write_labels(labels, arguments.out / f"{case}_seg-vert_msk.nii.gz")


def small(ct: Volume, labels: Volume) -> tuple[Volume, Volume]:
    """Return CT and labels as --small-scans writes them."""
    labels = prepare_labels(labels, SMALL_MM)
    plain_hu = PreprocessConfig(spacing_mm=SMALL_MM, window_hu=(-1024, 3071), scaling="zscore", std_hu=1)
    hu = prepare(ct, plain_hu).volume
    margin = round(MARGIN_MM / SMALL_MM)
    spans = ndimage.find_objects((labels.array > 0).astype(np.uint8))[0]
    i, j, k = (slice(max(0, s.start - margin), s.stop + margin) for s in spans)
    rounded = (np.rint(hu.array / ROUNDED_HU) * ROUNDED_HU).astype(np.int16)
    return Volume(rounded, hu.affine).cropped((i, j, k)), labels.cropped((i, j, k))


def find_sacrum(scan: Scan, model: Model) -> np.ndarray:
    """Return the voxels that the model labels as sacrum."""
    prepared = prepare(scan.volume, model.config.preprocess)
    levels = tuple(BY_NAME[name] for name in model.config.network.levels)
    evidence = infer(prepared, model.network, model.config.inference, levels, DEVICE, offsets=True)
    found = find_instances(evidence)
    best = [(item, levels[int(np.argmax(item.class_mass[1:]))]) for item in found.items]
    spine = Spine(tuple(Vertebra(level, 1.0, item) for item, level in best if not level.is_vertebra), found.grid)
    return restore(spine, scan.volume.grid).labels.array > 0


if __name__ == "__main__":
    main()
