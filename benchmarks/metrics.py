"""How long HD95 of many labels takes, and how much memory: ours beside k-d trees, distance maps and MONAI.

    python benchmarks/metrics.py [--islands 200] [--methods ours tree edt monai] [--labels 26]

Vertebra-like ellipsoids in 256 x 256 x 600 voxels of 1 mm; the prediction is shifted by a voxel or two and has stray
islands. Each method runs in a process of its own, whose peak memory is told less what the maps and imports take.
"""

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

SHAPE = (256, 256, 600)
SPACING_MM = (1.0, 1.0, 1.0)
IDS = (*range(1, 26), 28)  # the vertebrae's
Labels = NDArray[np.uint8]


def maps(labels: int, islands: int) -> tuple[Labels, Labels]:
    """Prediction and reference."""
    reference = np.zeros(SHAPE, np.uint8)
    height = SHAPE[2] // (labels + 1)
    i, j, k = (np.arange(-n, n + 1) for n in (28, 26, height // 2 - 1))
    inside = (i / 28.5)[:, None, None] ** 2 + (j / 26.5)[None, :, None] ** 2 + (k / (height / 2 - 0.5)) ** 2 < 1
    for n in range(labels):
        middle = (n + 1) * height
        block = reference[100:157, 100:153, middle - len(k) // 2 : middle + len(k) // 2 + 1]
        block[inside] = IDS[n]
    prediction = np.roll(reference, (1, 2, 1), (0, 1, 2))
    rng = np.random.default_rng(0)
    for _ in range(islands):
        prediction[tuple(int(rng.integers(n)) for n in SHAPE)] = IDS[rng.integers(labels)]
    return prediction, reference


def ours(prediction: Labels, reference: Labels, count: int) -> list[float]:
    """One pass for all surfaces, k-d trees of what differs."""
    from vertebral.evaluation.overlaps import surface_distances
    from vertebral.evaluation.surfaces import find_surface_voxels

    edges = [find_surface_voxels(array) for array in (prediction, reference)]
    found = surface_distances(edges[0], edges[1], np.arange(256, dtype=np.uint8), SHAPE, SPACING_MM)
    return [found[n].hd95_mm for n in IDS[:count]]


def everything(prediction: Labels, reference: Labels, count: int) -> list[float]:
    """The whole score of a case: all metrics of the spine, its regions and each level, names and instances."""
    from vertebral.core.volume import Volume
    from vertebral.evaluation.case import RunRecord
    from vertebral.evaluation.evaluate import score_pair
    from vertebral.evaluation.pair import pair
    from vertebral.evaluation.settings import Settings

    made = pair(Volume(prediction, np.eye(4)), Volume(reference, np.eye(4)), Settings())
    rows = score_pair(made, Settings(), "case", "case", RunRecord()).levels
    return [row.hd95_mm or 0.0 for row in rows]


def tree(prediction: Labels, reference: Labels, count: int) -> list[float]:
    """Surface voxels of each label by erosion in its box, all of them through scipy's k-d tree."""
    from scipy.ndimage import binary_erosion
    from scipy.spatial import cKDTree

    result = []
    for n in IDS[:count]:
        points = []
        for array in (prediction, reference):
            box = _box(array == n)
            crop = np.pad(array[box] == n, 1)
            points.append(np.argwhere(crop & ~binary_erosion(crop)) + [part.start for part in box])
        there, back = cKDTree(points[1]).query(points[0])[0], cKDTree(points[0]).query(points[1])[0]
        result.append(float(max(np.percentile(there, 95), np.percentile(back, 95))))
    return result


def edt(prediction: Labels, reference: Labels, count: int) -> list[float]:
    """Scipy's exact distance maps in the box of each label."""
    from scipy.ndimage import binary_erosion, distance_transform_edt

    result = []
    for n in IDS[:count]:
        box = _box((prediction == n) | (reference == n))
        crops = [np.pad(array[box] == n, 1) for array in (prediction, reference)]
        surfaces = [crop & ~binary_erosion(crop) for crop in crops]
        far = [distance_transform_edt(~surface, SPACING_MM) for surface in surfaces]
        result.append(float(max(np.percentile(far[1][surfaces[0]], 95), np.percentile(far[0][surfaces[1]], 95))))
    return result


def monai(prediction: Labels, reference: Labels, count: int) -> list[float]:
    """MONAI's metric, one label at a time and cropped to both, so that it fits into memory."""
    import torch
    from monai.metrics import compute_hausdorff_distance

    result = []
    for n in IDS[:count]:
        box = _box((prediction == n) | (reference == n))
        crops = [
            torch.from_numpy(np.pad(array[box] == n, 1)[None, None].astype(np.float32))
            for array in (prediction, reference)
        ]
        result.append(
            float(compute_hausdorff_distance(*crops, include_background=True, percentile=95, spacing=SPACING_MM))
        )
    return result


METHODS: dict[str, Callable[[Labels, Labels, int], list[float]]] = {
    "ours": ours,
    "everything": everything,
    "tree": tree,
    "edt": edt,
    "monai": monai,
}


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    hits = [np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    i, j, k = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return i, j, k


def measure(name: str, labels: int, islands: int) -> tuple[float, float, float, list[float]]:
    """Seconds of wall and of processor, GB more than before, and the distances."""
    prediction, reference = maps(labels, islands)
    METHODS[name](prediction[:, :, :80].copy(), reference[:, :, :80].copy(), 1) if name == "monai" else None
    before = _peak_gb()
    wall, processor = time.perf_counter(), time.process_time()
    result = METHODS[name](prediction, reference, labels)
    return time.perf_counter() - wall, time.process_time() - processor, _peak_gb() - before, result


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=26, choices=range(1, 27), metavar="N")
    parser.add_argument("--islands", type=int, nargs="+", default=[0, 200])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    arguments = parser.parse_args()
    print("| islands | method | wall (s) | processor (s) | memory (GB) | largest difference (mm) |")
    print("|---|---|---|---|---|---|")
    for islands in arguments.islands:
        first: list[float] = []
        for name in arguments.methods:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                wall, processor, memory_gb, found = pool.submit(measure, name, arguments.labels, islands).result()
            first = first or found
            apart = float(np.abs(np.subtract(found, first)).max())
            print(f"| {islands} | {name} | {wall:.2f} | {processor:.2f} | {memory_gb:.2f} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
    main()
