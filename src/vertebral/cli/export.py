"""Results in other formats from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import AsJson, OutFolder, Overwrite, Quiet, errors, interruptible, print_json, stages
from vertebral.cli.pacs import CaBundle, Credentials, Store, check_store, fetched, formats_of
from vertebral.core.about import DISCLAIMER

Formats = Annotated[
    str,
    typer.Option(
        "--format",
        help="seg, rtstruct, stl-dicom, sr (DICOM), seg.nrrd, itksnap, nifti, nnunet, bids; separate by commas.",
    ),
]
Scheme = Annotated[str, typer.Option(help="Label ids in formats other than DICOM: verse, totalsegmentator, plain, ...")]


def export(
    result: Annotated[Path, typer.Argument(help="A result of `vertebral run`, or a label map with VerSe ids.")],
    out: OutFolder,
    formats: Formats = "seg",
    source: Annotated[
        str | None, typer.Option(help="DICOM series of the CT (folder, zip, dicomwebs://...), for DICOM formats.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID, or its first characters, in --source.")] = None,
    scheme: Scheme = "verse",
    store: Store = False,
    pacs_credentials: Credentials = None,
    pacs_ca: CaBundle = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Export a result for the PACS (SEG, structure set, STL, structured report) or for other tools."""
    with errors(as_json), interruptible():
        from vertebral.core.config import parse_config
        from vertebral.workflows.config import ExportRunConfig

        options = {"formats": formats_of(formats), "scheme": scheme, "series": series, "overwrite": overwrite}
        config = parse_config(ExportRunConfig, options, "command line")
        check_store(store, source, config.formats)
        with stages(quiet or as_json) as progress:
            progress("start", 0.0)
            from vertebral.workflows import export as exporting

            progress("start", 1.0)
            with fetched(source or "", pacs_credentials, pacs_ca, progress) as ct:
                files, notes = exporting.export(result, ct.path if source else None, out, config, progress)
                if store and ct.send is not None:
                    ct.send([file for file in files if file.suffix == ".dcm"])
    if as_json:
        print_json({"out": str(out), "files": [file.name for file in files], "warnings": list(notes), "stored": store})
    elif not quiet:
        for note in notes:
            print(f"warning: {note}")
        print(DISCLAIMER)
        for file in files:
            print(file)
