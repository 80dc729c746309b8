"""How the time of `vertebral run` grows with the volume and the vertebrae of a CT, and with jobs.

    python benchmarks/scaling.py CT.nii.gz WORK [--slices 150 300 600 1200] [--jobs 1 2] [--scans 4] [--repeats 1]

CT is a long one, such as `benchmarks/large_scan.py` makes; its middle slices are cut out and run, one file after the
other. Then so many copies of the shortest cut are run in one go with each number of jobs. Seconds of the wall clock
with imports and all outputs, and of the processor (children included); medians where there are repeats. WORK must be
empty or not be there.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vertebral.io.ct.read import read_scan
from vertebral.io.write import write_image

COMMAND = [sys.executable, "-m", "vertebral", "run"]


def timed(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor of one command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*COMMAND, *arguments, "--quiet"], check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cuts(ct: Path, counts: list[int], folder: Path) -> list[Path]:
    """Write the middle slices of `ct`, so many of them, one file each."""
    volume = read_scan(ct).volume.to_ras()
    folder.mkdir(parents=True)
    paths = []
    for count in counts:
        i, j, k = volume.array.shape
        paths.append(folder / f"{count}-slices_ct.nii.gz")
        first = max(0, (k - count) // 2)
        write_image(volume.cropped((slice(0, i), slice(0, j), slice(first, min(k, first + count)))), paths[-1])
    return paths


def by_length(paths: list[Path], out: Path, repeats: int) -> None:
    """A row for each scan."""
    print(
        "| scan | million voxels | levels found | wall (s) | processor (s) | memory (GB) |\n|---|---|---|---|---|---|"
    )
    for path in paths:
        runs = [timed([str(path), "--out", str(out / path.stem), "--overwrite"]) for _ in range(repeats)]
        manifest: dict[str, Any] = json.loads((out / path.stem / "manifest.json").read_text())
        i, j, k = manifest["input"]["shape"]
        wall, processor = (statistics.median(values) for values in zip(*runs, strict=True))
        print(
            f"| {i}x{j}x{k} | {i * j * k / 1e6:.0f} | {len(manifest['levels'])} | {wall:.1f} | {processor:.1f} "
            f"| {manifest['peak_memory_gb']} |",
            flush=True,
        )


def by_jobs(path: Path, work: Path, scans: int, jobs: list[int], repeats: int) -> None:
    """A row for each number of jobs."""
    folder = work / "many"
    folder.mkdir()
    for n in range(scans):
        shutil.copy(path, folder / f"{n}_ct.nii.gz")
    print(f"\n| jobs | {scans} scans, wall (s) | processor (s) | scans an hour |\n|---|---|---|---|")
    for count in jobs:
        found = [
            timed([str(folder), "--out", str(work / f"jobs-{count}-{n}"), "--jobs", str(count)]) for n in range(repeats)
        ]
        wall, processor = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"| {count} | {wall:.1f} | {processor:.1f} | {3600 * scans / wall:.0f} |", flush=True)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--slices", type=int, nargs="+", default=[150, 300, 600, 1200])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.work.exists() and any(os.scandir(arguments.work)):
        parser.error(f"{arguments.work} is not empty")
    paths = cuts(arguments.ct, sorted(arguments.slices), arguments.work / "cuts")
    by_length(paths, arguments.work / "out", arguments.repeats)
    by_jobs(paths[0], arguments.work, arguments.scans, arguments.jobs, arguments.repeats)


if __name__ == "__main__":
    main()
