"""What does each part of the synthesis do for real CT? Small refiners, each trained with one part left out.

    python benchmarks/ablation.py --data DATA --out OUT [--steps 300] [--only pose]

DATA is laid out as configs/refiner.yaml wants it. Against that recipe: painted CT alone (no real scan, no organ maps),
`MAPS` label maps in one body, 2 mm for 1.25 mm, patches of 64x64x48. The score is the mean Dice of complete vertebrae
of real CTs that no network here saw; each vertebra is looked at from its reference centroid, so that shapes alone are
measured. `context` leaves out all but vertebrae, which lie in muscle.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import torch
import yaml
from scipy import ndimage

import vertebral
from vertebral.core.anatomy import BY_VERSE_ID
from vertebral.core.errors import ModelError
from vertebral.core.records import Spine, Vertebra
from vertebral.data.synthesis.tissues import level_of
from vertebral.evaluation.metrics import dice
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.models.weights import Model, load_model
from vertebral.stages.refine import refine_at
from vertebral.stages.restore import restore

CONFIG = Path(vertebral.__file__).parent / "training" / "configs" / "refiner.yaml"
REAL = ("LIDC-IDRI-0001", "ts_example_ct_3mm")
BODY = "bodyparts3d_3.0_labelmap_1p5mm"
MAPS = "labels/train/pred_verse0*_seg-vert_msk.nii.gz"
SPACING_MM, PATCH = 2.0, [64, 64, 48]
LEFT_OUT: dict[str, dict[str, object]] = {
    "nothing": {},
    "context": {},
    "texture": {"texture": [0, 0]},
    "pose": {
        "rotation_deg": 0,
        "elastic_mm": 0,
        "scale": [1, 1],
        "anisotropy": 0,
        "mirror_probability": 0,
        "breathing_mm": [0, 0],
    },
    "scanner": {"slice_mm": [0.6, 0.6], "noise_hu": [0, 0], "crop_probability": 0, "artefacts": None},
    "findings": {"findings": None},
}


def recipe(out: Path, part: str, steps: int) -> Path:
    """The refiner's recipe, reduced as the head of this file says, without `part`."""
    values = yaml.safe_load(CONFIG.read_text())
    values["model"]["preprocess"]["spacing_mm"] = SPACING_MM
    values["model"]["inference"]["window"] = values["patch"] = PATCH
    values["data"]["sources"] = [{"kind": "vertebrae", "labels": MAPS, "bodies": f"phantom/{BODY}.nii.gz"}]
    values["data"]["synthesis"].update({"cache_spacing_mm": SPACING_MM, **LEFT_OUT[part]})
    values.update(epochs=1, steps_per_epoch=steps, precision="32-true")
    values["optimizer"].update(ema_decay=0.98, warmup_steps=20)
    path = out / f"{part}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def without_context(data: Path, folder: Path) -> Path:
    """A data folder like `data` whose body map is muscle but for vertebrae, sacrum and air."""
    (folder / "phantom").mkdir(parents=True, exist_ok=True)
    if not (folder / "labels").exists():
        (folder / "labels").symlink_to((data / "labels").resolve())
    names = json.loads((data / "phantom" / f"{BODY}.json").read_text())
    table = {int(key): name for key, name in names.get("labels", names).items() if int(key)}
    kept = {value: name for value, name in table.items() if level_of(name) is not None}
    muscle = max(table) + 1
    image = nibabel.load(data / "phantom" / f"{BODY}.nii.gz")
    array = np.asarray(image.dataobj)
    plain = np.where(np.isin(array, list(kept)) | (array == 0), array, muscle).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(plain, image.affine), folder / "phantom" / f"{BODY}.nii.gz")
    (folder / "phantom" / f"{BODY}.json").write_text(json.dumps({**kept, muscle: "muscle"}))
    return folder


def score(model: Model, data: Path, case: str) -> float:
    """Mean Dice of the complete vertebrae of a real case."""
    folder = data / "real" / "labelled"
    scan, labels = read_scan(folder / f"{case}_ct.nii.gz"), read_labels(folder / f"{case}_seg-vert_msk.nii.gz")
    found = []
    for value in map(int, np.unique(labels.array)):
        own = labels.array == value
        cut = any(own.take(edge, axis).any() for axis in range(3) for edge in (0, -1))
        if value == 0 or cut or not BY_VERSE_ID[value].is_vertebra:
            continue
        centre_mm = labels.grid.to_world(np.array(ndimage.center_of_mass(own))).tolist()
        try:
            seen = refine_at([centre_mm], scan.volume, model.network, model.config, torch.device("cpu"))
        except ModelError:
            found.append(0.0)
            continue
        spine = Spine((Vertebra(BY_VERSE_ID[value], 1.0, seen.items[0]),), seen.grid)
        found.append(dice(restore(spine, labels.grid).labels.array > 0, own))
    return float(np.mean(found))


def main() -> None:
    """Train what is missing, one part after the other, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", choices=sorted(LEFT_OUT))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in [arguments.only] if arguments.only else LEFT_OUT:
        run = arguments.out / part
        data = without_context(arguments.data, arguments.out / "plain") if part == "context" else arguments.data
        config = recipe(arguments.out, part, arguments.steps)
        words = ("train", "--config", config, "--data", data, "--out", run, "--resume", "--quiet")
        subprocess.run([Path(sys.executable).parent / "vertebral", *map(str, words)], check=True)
        model = load_model(str(run))
        print(f"without {part}:", *(f"{case} {score(model, arguments.data, case):.3f}" for case in REAL), flush=True)


if __name__ == "__main__":
    main()
