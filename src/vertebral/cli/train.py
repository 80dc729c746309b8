"""Training from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli import console
from vertebral.cli.console import Device, OutFolder, Quiet, check_device, errors, print_files
from vertebral.errors import ConfigError


def train(
    config: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped config.")],
    data: Annotated[Path, typer.Option(help="Folder that the config's globs start from.")],
    out: OutFolder,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of --out.")] = False,
    init_from: Annotated[str | None, typer.Option(help="Start from the weights of this model.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the config's number of steps.")] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a network; write checkpoints, logs and a model folder for `run --model`."""
    with errors(False):
        from vertebral.config import TrainConfig, load_config

        check_device(device)
        settings = load_config(TrainConfig, _config_file(config))
        if steps is not None:
            settings = settings.model_copy(update={"steps": steps})
        if not data.is_dir():
            raise ConfigError(f"{data}: is not a folder; give the data folder as --data")
        try:
            from vertebral.training.train import RunFolder
            from vertebral.training.train import train as fit
        except ModuleNotFoundError as error:
            raise ConfigError(f"training needs {error.name}: pip install 'vertebral[train]'") from None
        from vertebral.pipeline import choose_device

        choose_device(device)
        with console.steps(quiet) as say:
            folder = fit(
                settings,
                data,
                RunFolder(out),
                resume=resume,
                init_from=init_from,
                accelerator={"cuda": "gpu"}.get(device, device),
                progress=lambda done, total, name: say(f"body {done + 1} of {total}: {name}"),
                quiet=quiet,
            )
    print_files({"model": folder}, quiet, False)


def _config_file(name: str) -> Path:
    """A path as it is, or the shipped config of that name."""
    path = Path(name)
    shipped = Path(__file__).parents[1] / "configs" / f"{name}.yaml"
    return shipped if not path.exists() and shipped.exists() else path
