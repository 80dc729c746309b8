"""`vertebral run`: one CT, or many."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebral.cli.batch import Printing, run_many
from vertebral.cli.console import (
    AsJson,
    Device,
    OutFolder,
    Overwrite,
    Quiet,
    check_device,
    errors,
    interruptible,
    print_json,
    stages,
    stages_as_json,
)
from vertebral.cli.export import Scheme
from vertebral.cli.pacs import CaBundle, Credentials, Store, check_store, fetched, formats_of
from vertebral.core.about import DISCLAIMER
from vertebral.core.errors import ConfigError


def run(
    ct: Annotated[
        str,
        typer.Argument(
            help="NIfTI, NRRD or MHA file, DICOM folder, zip of one of these, or dicomwebs://.../series/UID. "
            "With --jobs: a folder of scans, or a .txt file with one path per line."
        ),
    ],
    out: OutFolder,
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "default",
    device: Device = "auto",
    backend: Annotated[
        str, typer.Option(help="auto, torch or openvino; auto uses OpenVINO on a CPU if installed.")
    ] = "auto",
    levels: Annotated[str | None, typer.Option(help="Keep only these levels, as in L1-L5 or T12,L1.")] = None,
    spacing_mm: Annotated[
        float | None, typer.Option(help="Resample to this spacing; default: the model's own, the best.")
    ] = None,
    refine: Annotated[bool, typer.Option(help="Refine each vertebra if the model has a refiner; slower.")] = True,
    exact: Annotated[
        bool, typer.Option(help="Search the whole scan, not only where a spine is likely; slower.")
    ] = False,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="Overlap of the sliding windows, as a fraction; more is slower."),
    ] = None,
    mirror: Annotated[
        bool,
        typer.Option("--mirror", help="Average over the scan and its mirror image; inference takes twice as long."),
    ] = False,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, or its first characters, in a DICOM folder.")
    ] = None,
    max_memory_gb: Annotated[
        float | None, typer.Option(help="Refuse a CT that would need more memory than this.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Run many scans, this many at once; finished ones are skipped.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", help="Also write these formats of `vertebral export`; separate by commas."),
    ] = None,
    scheme: Scheme = "verse",
    store: Store = False,
    pacs_credentials: Credentials = None,
    pacs_ca: CaBundle = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    progress_json: Annotated[
        bool, typer.Option("--progress-json", help="Print progress as JSON lines on standard error.")
    ] = False,
) -> None:
    """Find, name and mesh the vertebrae of one CT, or of many.

    With --jobs, each scan gets its own folder in --out; scans.csv and scans.jsonl list the outcome of each. The exit
    code is 1 if a scan failed; the same command then runs the missing ones.
    """
    with errors(as_json), interruptible():
        from vertebral.core.anatomy import parse_levels
        from vertebral.core.config import parse_config
        from vertebral.workflows.config import RunConfig

        check_device(device)
        names = None if levels is None else tuple(level.name for level in parse_levels(levels))
        options = {
            "model": model,
            "device": device,
            "backend": backend,
            "levels": names,
            "spacing_mm": spacing_mm,
            "refine": refine,
            "exact": exact,
            "overlap": overlap,
            "mirror": mirror,
            "series": series,
            "max_memory_gb": max_memory_gb,
            "formats": formats_of(formats),
            "scheme": scheme,
            "overwrite": overwrite,
        }
        config = parse_config(RunConfig, options, "command line")
        if jobs is not None or ct.lower().endswith(".txt"):
            if store:
                raise ConfigError("--store: works for a single scan only; leave out --jobs")
            run_many(Path(ct), out, config, jobs or 1, Printing(quiet, as_json))
            return
        check_store(store, ct, config.formats)
        reporting = stages_as_json() if progress_json else stages(quiet or as_json)
        with reporting as progress, fetched(ct, pacs_credentials, pacs_ca, progress) as source:
            progress("start", 0.0)
            import torch

            from vertebral.runtime.forked_tasks import ForkedTasks
            from vertebral.workflows import run as workflow

            progress("start", 1.0)
            with ForkedTasks(torch.get_num_threads()) as tasks:
                manifest = workflow.run(source.path, out, config, progress=progress, tasks=tasks)
            if store and source.send is not None:
                source.send([out / row["file"] for row in manifest["outputs"] if row["file"].endswith(".dcm")])
    if as_json:
        print_json({"out": str(out), **manifest})
    elif not quiet:
        _print_summary(out, manifest)


def _print_summary(out: Path, manifest: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("level", "confidence", "volume (ml)", "at the border", title=None)
    for row in manifest["levels"]:
        border = "yes" if row["touches_border"] else ""
        table.add_row(row["level"], f"{row['confidence']:.2f}", f"{row['volume_ml']:.1f}", border)
    if manifest["levels"]:
        console.print(table)
    for warning in manifest["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    seconds = sum(manifest["seconds"].values())
    memory = f", {manifest['peak_memory_gb']} GB peak memory" if manifest["peak_memory_gb"] else ""
    print(f"{seconds:.0f} s{memory}. {DISCLAIMER}")
    names = [row["file"] for row in manifest["outputs"]]
    meshes = [name for name in names if name.endswith(".stl")]
    for name in (*(name for name in names if name not in meshes), "manifest.json"):
        print(out / name)
    if meshes:
        print(f"{out / '*.stl'} (meshes: {len(meshes)})")
