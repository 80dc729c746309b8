"""The command line. Heavy imports happen inside the commands, so that help is quick."""

from typing import Annotated

import typer

from vertebral.cli.benchmark import benchmark_app
from vertebral.cli.data import data_app
from vertebral.cli.evaluate import evaluate
from vertebral.cli.export import export
from vertebral.cli.measure import measure
from vertebral.cli.mesh import mesh
from vertebral.cli.models import models_app
from vertebral.cli.prepare import prepare
from vertebral.cli.relabel import relabel
from vertebral.cli.report import report
from vertebral.cli.run import run
from vertebral.cli.samples import phantom, sample
from vertebral.cli.synth import synth
from vertebral.cli.train import train
from vertebral.cli.view import app as web_app
from vertebral.cli.view import view
from vertebral.core.about import DISCLAIMER

app = typer.Typer(
    name="vertebral",
    help=f"Raw CT in, a labelled, measurable, printable 3D spine out. [bold]{DISCLAIMER}[/bold]",
    epilog="Example: vertebral sample --out sample && vertebral run sample/LIDC-IDRI-0001_ct.nii.gz --out result",
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command(
    epilog="Examples: vertebral run scan.nii.gz --out result\n\nvertebral run dicom_folder --out result --levels T12-L5"
    "\n\nvertebral run folder_of_scans --out results --jobs 2"
)(run)
app.command(epilog="Example: vertebral sample --out sample")(sample)
app.command(epilog="Example: vertebral phantom --out phantom --levels T8-sacrum --seed 3")(phantom)
app.command(epilog="Example: vertebral synth labels --bodies bodies --out synthetic --n 100")(synth)
app.command(epilog="Example: vertebral train --config default --data data --out runs/one")(train)
app.command(epilog="Example: vertebral evaluate --pred result/a_seg-vert_msk.nii.gz --ref a_seg-vert_msk.nii.gz")(
    evaluate
)
app.command(epilog="Example: vertebral measure result --ct scan.nii.gz --out measured --format csv,json")(measure)
app.command(
    epilog="Examples: vertebral relabel seg.nii.gz --scheme totalsegmentator --out corrected\n\n"
    "vertebral relabel seg.nii.gz --out corrected --set L3=40,-12,310"
)(relabel)
app.command(
    epilog="Examples: vertebral mesh result --out meshes --format stl,3mf\n\n"
    "vertebral mesh a_seg-vert_msk.nii.gz --out meshes --levels L4-L5 --clearance-mm 0.3"
)(mesh)
app.command(
    epilog="Examples: vertebral export result --source dicom_folder --format seg,rtstruct,sr --out dicom\n\n"
    "vertebral export result --format seg.nrrd,itksnap --scheme totalsegmentator --out other"
)(export)
data_app.command(epilog="Example: vertebral data prepare verse --out prepared --config resunet")(prepare)
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")
app.add_typer(benchmark_app, name="benchmark")
app.command(
    epilog="Examples: vertebral report runs/one\n\nvertebral report result --ct scan.nii.gz --overwrite",
)(report)
app.command(epilog="Example: vertebral view result --ct scan.nii.gz")(view)
app.command("app", epilog="Example: vertebral app --data jobs")(web_app)


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda on: _print_version(on), help="Print the version."),
    ] = False,
) -> None:
    """Options of `vertebral` itself; all others belong to the commands."""


def _print_version(on: bool) -> None:
    if on:
        from vertebral.core.about import __version__

        print(f"vertebral {__version__}")
        raise typer.Exit
