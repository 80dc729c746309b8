"""Fit the temperature that turns path costs into probabilities, and plot its calibration.

    python tools/calibrate_levels.py record CT... --out RECORDS [--model default]
    python tools/calibrate_levels.py fit RECORDS --labels FOLDER... --out FOLDER [--write]

`record` runs a model up to the instances and stores them as RECORDS/CASE.pkl, where CASE is the name of the CT without
`_ct`. `fit` needs CASE_seg-vert_msk.nii.gz (VerSe ids) of each in one of the label folders: scans that no network was
trained on. It chooses the temperature with the least log loss over all named vertebrae that overlap a labelled one, and
writes reliability.png, calibration.csv with a row per vertebra and, with --write,
src/vertebral/stages/identify/calibration.json. Pickles run code when read: read only your own.
"""

import argparse
import csv
import json
import pickle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from vertebral.core.anatomy import BY_VERSE_ID, Level, level_named
from vertebral.core.records import Instance, Instances
from vertebral.core.volume import Grid, Volume
from vertebral.evaluation.calibration import expected_calibration_error, reliability
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.stages.identify import identify, provisional_levels

ENDING = "_seg-vert_msk.nii.gz"
TEMPERATURES = np.geomspace(0.5, 8, 33)
# An instance is compared with the labelled vertebra that holds at least this share of it.
LEAST_OVERLAP = 0.2
Answer = tuple[str, str, str, float, bool]


def main() -> None:
    """Record or fit, depending on the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("scans", type=Path, nargs="+")
    recording.add_argument("--out", type=Path, required=True)
    recording.add_argument("--model", default="default")
    fitting = commands.add_parser("fit")
    fitting.add_argument("records", type=Path)
    fitting.add_argument("--labels", type=Path, nargs="+", required=True)
    fitting.add_argument("--out", type=Path, required=True)
    fitting.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.scans, arguments.out, arguments.model)
    else:
        fit(arguments.records, arguments.labels, arguments.out, arguments.write)


def record(scans: list[Path], out: Path, name: str) -> None:
    """Store the instances that a model finds in each scan, before they get their levels."""
    from vertebral.models.devices import choose_device
    from vertebral.models.weights import load_model, load_refiner
    from vertebral.stages.inference import infer
    from vertebral.stages.instances import find_instances
    from vertebral.stages.preprocess import prepare
    from vertebral.stages.refine import refine

    device, model = choose_device("auto"), load_model(name)
    refiner, config = load_refiner(name, model.config), model.config
    levels = tuple(level_named(level) for level in config.network.levels)
    out.mkdir(parents=True, exist_ok=True)
    for path in track(scans, "finding vertebrae"):
        scan = read_scan(path)
        prepared = prepare(scan.volume, config.preprocess)
        evidence = infer(
            prepared, model.network, config.inference, levels, device, None, offsets=config.network.offsets
        )
        instances = find_instances(evidence)
        if refiner is not None:
            network, config = refiner.network, refiner.config
            instances = refine(instances, evidence, scan.volume, network, config, device, provisional_levels)
        case = path.name.removesuffix(".nii.gz").removesuffix("_ct")
        (out / f"{case}.pkl").write_bytes(pickle.dumps(instances))


def fit(records: Path, folders: list[Path], out: Path, write: bool) -> None:
    """Choose the temperature, draw the diagram, print the results."""
    cases = [(path.stem, pickle.loads(path.read_bytes())) for path in sorted(records.glob("*.pkl"))]
    truths = {case: truth_of(instances, _labels(case, folders)) for case, instances in cases}
    losses = []
    for temperature in track(TEMPERATURES, "fitting"):
        losses.append(log_loss(answers(cases, truths, float(temperature))))
    best = round(float(TEMPERATURES[int(np.argmin(losses))]), 2)
    rows = answers(cases, truths, best)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "calibration.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("case", "named", "true", "confidence", "right"))
        table.writerows(rows)
    plain = answers(cases, truths, 1.0)
    draw(plain, rows, best, out / "reliability.png")
    say = Console().print
    say(f"{len(rows)} vertebrae of {len(cases)} scans, {sum(row[4] for row in rows)} of them right")
    for temperature, found in ((1.0, plain), (best, rows)):
        error = expected_calibration_error([row[3:] for row in found])
        say(f"temperature {temperature:g}: log loss {log_loss(found):.4f}, expected calibration error {error:.4f}")
    if write:
        place = Path(__file__).parents[1] / "src" / "vertebral" / "stages" / "identify" / "calibration.json"
        place.write_text(json.dumps({"temperature": best}) + "\n", encoding="utf-8")


def _labels(case: str, folders: list[Path]) -> Volume:
    found = [folder / f"{case}{ENDING}" for folder in folders if (folder / f"{case}{ENDING}").exists()]
    if not found:
        raise SystemExit(f"{case}{ENDING}: not found in the label folders")
    return read_labels(found[0])


def truth_of(instances: Instances, labels: Volume) -> list[Level | None]:
    """Return the labelled level that holds most of each instance; None if none holds enough."""
    return [_truth(item, instances.grid, labels) for item in instances.items]


def _truth(item: Instance, grid: Grid, labels: Volume) -> Level | None:
    own = np.argwhere(item.occupancy >= 0.5) + np.array([s.start for s in item.box])
    voxels = np.rint(labels.grid.to_voxel(grid.to_world(own))).astype(int)
    inside = ((voxels >= 0) & (voxels < labels.array.shape)).all(1)
    counts = np.bincount(labels.array[tuple(voxels[inside].T)].astype(int), minlength=1)
    counts[0] = 0
    best = int(counts.argmax())
    return BY_VERSE_ID[best] if counts[best] >= max(1, LEAST_OVERLAP * len(own)) else None


def answers(
    cases: list[tuple[str, Instances]], truths: dict[str, list[Level | None]], temperature: float
) -> list[Answer]:
    """Return (case, named, true, confidence, right) of every named vertebra that overlaps a labelled one."""
    rows = []
    for case, instances in cases:
        true = dict(zip(instances.items, truths[case], strict=True))
        for vertebra in identify(instances, temperature).vertebrae:
            level = true[vertebra.instance]
            if level is not None and vertebra.level.is_vertebra:
                right = vertebra.level == level
                rows.append((case, vertebra.level.name, level.name, vertebra.confidence, right))
    return rows


def log_loss(rows: list[Answer]) -> float:
    """Return the mean of -ln of the probability of each outcome, clipped at a thousandth."""
    confidence = np.clip([row[3] for row in rows], 1e-3, 1 - 1e-3)
    return float(-np.log(np.where([row[4] for row in rows], confidence, 1 - confidence)).mean())


def draw(plain: list[Answer], fitted: list[Answer], temperature: float, path: Path) -> None:
    """Draw two reliability diagrams side by side; the size of a dot is the number of vertebrae in its bin."""
    figure = Figure(figsize=(6.7, 3.4), layout="constrained")
    for panel, rows, title in zip(
        figure.subplots(1, 2, sharey=True),
        (plain, fitted),
        ("temperature 1", f"temperature {temperature:g}"),
        strict=True,
    ):
        pairs = [row[3:] for row in rows]
        bins = reliability(pairs)
        panel.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        panel.plot([b.confidence for b in bins], [b.accuracy for b in bins], color="#0072B2", linewidth=1)
        sizes = [12 + 160 * b.count / len(pairs) for b in bins]
        panel.scatter([b.confidence for b in bins], [b.accuracy for b in bins], s=sizes, color="#0072B2", zorder=3)
        panel.set_title(f"{title}: error {expected_calibration_error(pairs):.3f}", loc="left", fontsize=10)
        panel.set_xlabel("confidence")
        panel.set_xlim(-0.03, 1.03)
        panel.set_ylim(-0.03, 1.03)
        panel.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("share of correct levels")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
