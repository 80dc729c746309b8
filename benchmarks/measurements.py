"""How exact are the measurements, and do they look human? The tables and the plot of docs/measurements.md.

    PYTHONPATH=tests python benchmarks/measurements.py exact
    python benchmarks/measurements.py human MAPS... --plot measured_sizes.png

`exact` measures analytic vertebrae (tests/measure_solids.py) and prints the largest error of three of them; `human`
measures label maps with VerSe ids (files or folders), prints medians of `good` figures by level, and plots them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vertebral.core.anatomy import BY_NAME
from vertebral.core.measurements import MeasurementRow, Measurements
from vertebral.io.ct.read import read_labels
from vertebral.stages.measure import measure

SIZES = {"lumbar": (44.0, 34.0, 27.0), "thoracic": (30.0, 27.0, 20.0), "cervical": (19.0, 16.0, 13.0)}
LEVELS = {"lumbar": ("L2", "L3", "L4"), "thoracic": ("T7", "T8", "T9"), "cervical": ("C4", "C5", "C6")}
DISC_MM = {"lumbar": 9.0, "thoracic": 5.0, "cervical": 5.0}
SPACINGS_MM = ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (3.0, 1.0, 1.0), (1.0, 1.0, 3.0))
WEDGE_DEG, DISC_DEG, SLIP_MM = 8.0, 6.0, 3.0
TURN = ((1.0, 0.4, 0.3), 9.0)
# Against the grid, on top of wedges and discs, so that endplates lie along the voxels.
ONE = ((1.0, 0.4, 0.3), 1.0)
ALONG_MM = ((1.0, 1.0, 1.0),)
# Means by level of Panjabi et al., Spine 1991;16:861 and 888, 1992;17:299 (from memory, not checked against print).
_LEVELS_C3_L5 = [*(f"C{n}" for n in range(3, 8)), *(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6))]
_PANJABI = """
width 15.8 17.2 17.5 18.5 21.8 24.5 24.9 24.6 24.5 24.9 26.2 27.8 29.5 30.6 31.9 34.9 39.0 41.2 42.6 44.1 46.6 47.3
depth 15.0 15.3 15.2 16.4 18.1 18.5 19.6 22.7 23.3 24.3 26.0 27.4 27.9 29.3 30.5 31.9 32.8 34.1 34.6 35.2 35.5 34.7
height 11.6 11.4 11.4 10.9 12.8 14.1 15.6 15.7 16.2 16.2 17.4 18.2 18.7 19.3 20.2 21.3 22.7 23.8 24.3 23.8 24.1 22.9
"""
PANJABI_MM = {
    column: [float(value) for value in line.split()[1:]]
    for column, line in zip(
        ("body_width_mm", "body_depth_mm", "height_posterior_mm"), _PANJABI.strip().splitlines(), strict=True
    )
}
PLOTTED = (*PANJABI_MM, "height_anterior_mm", "body_volume_ml", "volume_ml")


def errors(
    region: str, spacing_mm: tuple[float, float, float], turn: tuple[tuple[float, float, float], float] = TURN
) -> dict[str, tuple[float, str]]:
    """The largest error of each figure over three analytic vertebrae of a region, and the worst quality."""
    from measure_solids import Vertebra, grid_around, moved, painted, stacked, turned

    width, depth, height = SIZES[region]
    shape = {"width": width, "depth": depth, "height": height, "wedge_deg": WEDGE_DEG}
    bones = stacked([Vertebra(level, **shape) for level in LEVELS[region]], DISC_MM[region], DISC_DEG, SLIP_MM)
    bones = [moved(bone, turned(*turn)) for bone in bones]
    found = measure(painted(bones, grid_around(bones, spacing_mm, np.eye(3))))
    truth = {
        "body_width_mm": [width] * 3,
        "body_depth_mm": [depth] * 3,
        "height_anterior_mm": [bone.edge_height(1) for bone in bones],
        "height_posterior_mm": [bone.edge_height(-1) for bone in bones],
        "wedge_sagittal_deg": [WEDGE_DEG] * 3,
        "wedge_coronal_deg": [0.0] * 3,
        "body_volume_ml": [bone.volume_ml() for bone in bones],
    }
    between = {"disc_height_middle_mm": DISC_MM[region], "angle_sagittal_deg": DISC_DEG, "listhesis_mm": SLIP_MM}
    worst = {name: off(found.vertebrae, name, values) for name, values in truth.items()}
    return worst | {name: off(found.gaps, name, [value] * 2) for name, value in between.items()}


def off(rows: tuple[MeasurementRow, ...], column: str, truth: list[float]) -> tuple[float, str]:
    """The largest error of a column (NaN where a row has no figure) and its worst quality."""
    values = [row.value(column) for row in rows]
    worst = max(abs((np.nan if v is None else float(v)) - t) for v, t in zip(values, truth, strict=True))
    return worst, min((row.figures[column].quality for row in rows), key=("none", "check", "good").index)


def exact() -> None:
    """Print a row for each region and spacing."""
    rows = {f"{region} {spacing}": errors(region, spacing) for spacing in SPACINGS_MM for region in SIZES}
    rows |= {f"{region} {spacing}, 1 degree": errors(region, spacing, ONE) for spacing in ALONG_MM for region in SIZES}
    table = Table("region, spacing (mm)", *next(iter(rows.values())))
    for name, row in rows.items():
        table.add_row(name, *(f"{v:.2f}{'' if quality == 'good' else ' ' + quality}" for v, quality in row.values()))
    Console(width=240).print(table)


def human(paths: list[Path], plot: Path) -> None:
    """Measure label maps; print medians by level and the processor time; draw them."""
    files = [f for p in paths for f in (sorted(p.glob("*_seg-vert_msk.nii.gz")) if p.is_dir() else [p])]
    found: list[Measurements] = []
    seconds = []
    for path in track(files, "measuring"):
        labels = read_labels(path)
        start = time.process_time()
        found.append(measure(labels))
        seconds.append(time.process_time() - start)
    table = Table("level", *PLOTTED)
    for level in _LEVELS_C3_L5:
        values = {c: figures(found, level, c, "good") for c in PLOTTED}
        table.add_row(level, *(f"{np.median(v):.1f} ({len(v)})" if v else "-" for v in values.values()))
    Console(width=200).print(table)
    print(f"processor seconds: median {np.median(seconds):.1f}, most {max(seconds):.1f}, maps {len(files)}")
    draw(found, plot)


def figures(found: list[Measurements], level: str, column: str, quality: str) -> list[float]:
    """All figures of one column, level and quality."""
    rows = [row for one in found for row in one.vertebrae if row.name == level]
    return [float(row.figures[column].value) for row in rows if row.figures[column].quality == quality]


def draw(found: list[Measurements], plot: Path) -> None:
    """A panel a column: every figure by level, and the published means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chart, panels = pyplot.subplots(3, 2, figsize=(13, 11), sharex=True)
    spread = np.random.default_rng(0)
    for panel, column in zip(panels.ravel(), PLOTTED, strict=True):
        for quality, colour in (("good", "tab:blue"), ("check", "tab:orange")):
            points = [(BY_NAME[n].rank, v) for n in _LEVELS_C3_L5 for v in figures(found, n, column, quality)]
            x, y = np.array(points).reshape(-1, 2).T
            panel.plot(x + spread.uniform(-0.2, 0.2, len(x)), y, ".", color=colour, ms=4, alpha=0.7, label=quality)
        if column in PANJABI_MM:
            ranks = [BY_NAME[n].rank for n in _LEVELS_C3_L5]
            panel.plot(ranks, PANJABI_MM[column], "k-", lw=1.2, label="Panjabi et al., mean")
        panel.set_ylabel(column)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    for panel in panels[-1]:
        panel.set_xticks([BY_NAME[n].rank for n in _LEVELS_C3_L5], _LEVELS_C3_L5, rotation=90)
    chart.tight_layout()
    chart.savefig(plot, dpi=62)


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("exact", "human"))
    parser.add_argument("maps", type=Path, nargs="*")
    parser.add_argument("--plot", type=Path, default=Path("measured_sizes.png"))
    arguments = parser.parse_args()
    if arguments.what == "exact":
        exact()
    else:
        human(arguments.maps, arguments.plot)


if __name__ == "__main__":
    main()
