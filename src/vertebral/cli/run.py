"""One CT from the command line."""

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
from vertebral.cli.pacs import CaBundle, Credentials, Store, brought, check_store, formats_of
from vertebral.core.about import DISCLAIMER
from vertebral.core.errors import ConfigError


def run(
    ct: Annotated[
        str,
        typer.Argument(
            help="NIfTI, NRRD, MHA, a DICOM folder, a zip of one, or dicomwebs://.../series/UID. With --jobs a folder "
            "of such scans, or a .txt file with a path a line."
        ),
    ],
    out: OutFolder,
    model: Annotated[str, typer.Option(help="A shipped model's name, or a model folder.")] = "default",
    device: Device = "auto",
    backend: Annotated[
        str, typer.Option(help="auto, torch or openvino; auto takes OpenVINO on a CPU where it is installed.")
    ] = "auto",
    levels: Annotated[str | None, typer.Option(help="Keep these levels only, as in L1-L5 or T12,L1.")] = None,
    spacing_mm: Annotated[float | None, typer.Option(help="Working spacing; the model's own is best.")] = None,
    refine: Annotated[bool, typer.Option(help="Refine each vertebra, if the model can; without it is faster.")] = True,
    exact: Annotated[
        bool, typer.Option(help="Look at all of the scan, not only where a spine may be; somewhat slower.")
    ] = False,
    overlap: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="How much windows overlap, as a fraction; more is slower.")
    ] = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Average over the scan and its mirror image: networks take twice as long.")
    ] = False,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID (or its start) of a DICOM folder.")] = None,
    max_memory_gb: Annotated[float | None, typer.Option(help="Refuse a CT that would need more.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Run many scans, so many at once; what is done already is skipped.")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="Write these too: formats of `vertebral export`, by comma.")
    ] = None,
    scheme: Scheme = "verse",
    store: Store = False,
    pacs_credentials: Credentials = None,
    pacs_ca: CaBundle = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    progress_json: Annotated[
        bool, typer.Option("--progress-json", help="Tell progress as JSON lines on standard error.")
    ] = False,
) -> None:
    """Find, name and mesh the vertebrae of one CT, or of many.

    Of many, each has a folder of its own in --out, beside scans.csv and scans.jsonl, which tell what became of each.
    The exit code is 1 where one failed; the same command then runs what is missing.
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
                raise ConfigError("--store: is for one scan; leave out --jobs")
            run_many(Path(ct), out, config, jobs or 1, Printing(quiet, as_json))
            return
        check_store(store, ct, config.formats)
        told = stages_as_json() if progress_json else stages(quiet or as_json)
        with told as progress, brought(ct, pacs_credentials, pacs_ca, progress) as place:
            progress("start", 0.0)
            from vertebral.workflows import run as pipeline

            progress("start", 1.0)
            manifest = pipeline.run(place.path, out, config, progress)
            if store and place.send is not None:
                place.send([out / row["file"] for row in manifest["outputs"] if row["file"].endswith(".dcm")])
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
    memory = f", {manifest['peak_memory_gb']} GB at most" if manifest["peak_memory_gb"] else ""
    print(f"{seconds:.0f} s{memory}. {DISCLAIMER}")
    names = [row["file"] for row in manifest["outputs"]]
    meshes = [name for name in names if name.endswith(".stl")]
    for name in (*(name for name in names if name not in meshes), "manifest.json"):
        print(out / name)
    if meshes:
        print(f"{out / '*.stl'} (meshes: {len(meshes)})")
