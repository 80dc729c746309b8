"""`vertebral mesh`: surfaces from a label map or a result."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vertebral.cli.console import AsJson, OutFolder, Overwrite, Quiet, errors, interruptible, print_json, stages


def mesh(
    source: Annotated[Path, typer.Argument(help="A label map with VerSe ids, or a result of `vertebral run`.")],
    out: OutFolder,
    levels: Annotated[str | None, typer.Option(help="Mesh only these levels, as in L1-L5 or T12,L1.")] = None,
    formats: Annotated[
        str,
        typer.Option("--format", help="stl, ply, obj (one per vertebra), glb, 3mf (one for all); separate by commas."),
    ] = "stl,glb",
    smooth: Annotated[float, typer.Option(help="Smoothing, from 0 (none: voxel steps remain) to 1 (full).")] = 1.0,
    max_error_mm: Annotated[
        float, typer.Option(help="Largest error of decimation (99.9th percentile); 0 keeps all triangles.")
    ] = 0.15,
    target_edge_mm: Annotated[
        float | None, typer.Option(help="Remesh to even triangles of about this edge length; no decimation.")
    ] = None,
    clearance_mm: Annotated[float, typer.Option(help="Minimum gap between neighbouring vertebrae.")] = 0.1,
    lps: Annotated[bool, typer.Option("--lps", help="Write LPS+ coordinates (DICOM, ITK) instead of RAS+.")] = False,
    cut: Annotated[
        str | None,
        typer.Option(help="Cut into two closed halves: sagittal, coronal or axial, or as in axial@-120.5 (RAS+ mm)."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make closed, printable surfaces from a label map or a result."""
    with errors(as_json), interruptible():
        from vertebral.core.anatomy import parse_levels
        from vertebral.core.config import parse_config
        from vertebral.workflows.config import MeshRunConfig

        options = {
            "levels": None if levels is None else tuple(level.name for level in parse_levels(levels)),
            "formats": tuple(name.strip().lower() for name in formats.split(",")),
            "smooth": smooth,
            "max_error_mm": 0.0 if target_edge_mm is not None else max_error_mm,
            "target_edge_mm": target_edge_mm,
            "clearance_mm": clearance_mm,
            "lps": lps,
            "cut": cut,
            "overwrite": overwrite,
        }
        config = parse_config(MeshRunConfig, options, "command line")
        with stages(quiet or as_json) as progress:
            progress("start", 0.0)
            from vertebral.workflows import mesh as meshing

            progress("start", 1.0)
            report = meshing.mesh(source, out, config, progress)
    if as_json:
        print_json({"out": str(out), **report})
    elif not quiet:
        _print_summary(out, report)


def _print_summary(out: Path, report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("mesh", "faces", "volume (ml)", "change (%)", "thinnest wall (mm)", "overhang (%)", "printable")
    for row in report["meshes"]:
        sound = row["manifold"] and row["components"] == 1 and row["self_intersections"] == 0
        change = f"{row['volume_change_percent']:+.2f}" if "volume_change_percent" in row else ""
        wall = f"{row['wall_p5_mm']:.1f}"
        overhang = f"{100 * row['overhang_share']:.0f}"
        table.add_row(
            row["name"], str(row["faces"]), f"{row['volume_ml']:.2f}", change, wall, overhang, "yes" if sound else "no"
        )
    console = Console()
    console.print(table)
    for warning in report["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    names = [row["file"] for row in report["outputs"]]
    single = [name for name in names if name.endswith((".stl", ".ply", ".obj"))]
    for name in (*(name for name in names if name not in single), f"{report['source']['name']}_mesh-report.json"):
        print(out / name)
    for kind in sorted({Path(name).suffix for name in single}):
        print(f"{out / ('*' + kind)} (meshes: {sum(name.endswith(kind) for name in single)})")
