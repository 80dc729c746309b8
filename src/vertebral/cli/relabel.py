"""`vertebral relabel`: correct label maps of any tool."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebral.cli.console import AsJson, OutFolder, Overwrite, Quiet, errors, interruptible, print_json, steps
from vertebral.core.about import DISCLAIMER
from vertebral.core.errors import ConfigError

if TYPE_CHECKING:
    from vertebral.workflows.relabel import Pin


def relabel(
    seg: Annotated[Path, typer.Argument(help="Label map of any tool: NIfTI, NRRD or MetaImage.")],
    out: OutFolder,
    ct: Annotated[
        Path | None, typer.Option(help="Its CT, only to check that the grids agree and labels cover bone.")
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(
            help="Label ids of the input: verse, totalsegmentator (v2), totalsegmentator-v1, vista3d, monailabel, "
            "cads, cads-vertebrae or plain (1, 2, 3, ... from C1)."
        ),
    ] = "verse",
    out_scheme: Annotated[str, typer.Option(help="Label ids of the output.")] = "verse",
    pins: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set the level at a point in mm (RAS): --set L3=40,-12,310. Repeatable."),
    ] = None,
    first: Annotated[str | None, typer.Option(help="Level of the topmost vertebra.")] = None,
    last: Annotated[str | None, typer.Option(help="Level of the bottommost vertebra.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Correct a label map: one label per vertebra, in anatomical order; what is right stays unchanged.

    Writes the label map on its own grid, its centroids, and a manifest that lists the changes.
    """
    with errors(as_json), interruptible():
        from vertebral.core.anatomy import level_named
        from vertebral.workflows.relabel import RelabelRequest
        from vertebral.workflows.relabel import relabel as relabel_map

        request = RelabelRequest(
            scheme,
            out_scheme,
            tuple(_pin(text) for text in pins or ()),
            level_named(first) if first else None,
            level_named(last) if last else None,
            overwrite,
        )
        with steps(quiet or as_json) as say:
            say(f"relabelling {seg.name}")
            manifest = relabel_map(seg, out, request, ct)
    if as_json:
        print_json({"out": str(out), **manifest})
    elif not quiet:
        _print_changes(out, manifest)


def _pin(text: str) -> "Pin":
    """Parse `L3=40,-12,310` as a level and a point."""
    from vertebral.core.anatomy import level_named
    from vertebral.workflows.relabel import Pin

    name, equals, point = text.partition("=")
    try:
        x, y, z = (float(value) for value in point.split(","))
    except ValueError:
        equals = ""
    if not equals:
        raise ConfigError(f"--set {text}: write a level and a point in mm (RAS), as in --set L3=40,-12,310")
    return Pin(level_named(name), (x, y, z))


def _print_changes(out: Path, manifest: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    changed = [row for row in manifest["levels"] if row["voxels_changed"]]
    if changed:
        table = Table("level", "was", "voxels changed", "confidence", "review")
        for row in changed:
            was = ", ".join(f"{name} ({voxels})" for name, voxels in row["was"].items())
            review = "; ".join(row["needs_review"])
            table.add_row(row["level"], was, str(row["voxels_changed"]), f"{row['confidence']:.2f}", review)
        console.print(table)
    for row in manifest["dropped"]:
        was = ", ".join(f"{name} ({voxels} voxels)" for name, voxels in row["was"].items())
        console.print(f"dropped: {was}", highlight=False)
    for warning in manifest["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    ignored = manifest["input"]["ignored_ids"]
    if ignored:
        print(f"ignored: {len(ignored)} ids of other structures ({sum(ignored.values())} voxels)")
    if manifest["voxels_changed"]:
        print(f"{manifest['voxels_changed']} voxels changed in {len(changed)} of {len(manifest['levels'])} vertebrae.")
    else:
        print(f"Nothing changed: {len(manifest['levels'])} vertebrae.")
    print(DISCLAIMER)
    for name in (*(row["file"] for row in manifest["outputs"]), "manifest.json"):
        print(out / name)
