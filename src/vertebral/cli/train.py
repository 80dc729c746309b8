"""Training from the command line."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import Device, OutFolder, Quiet, check_device, counted, errors, print_files
from vertebral.core.errors import ConfigError


def train(
    config: Annotated[
        str, typer.Option(help="A YAML file, or a shipped recipe: default, refiner, resunet, swinunetr, unet.")
    ],
    data: Annotated[
        Path, typer.Option(help="The folder that `data prepare` made, or the one that the recipe's globs start from.")
    ],
    out: OutFolder,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out after its last finished epoch.")
    ] = False,
    init_from: Annotated[str | None, typer.Option(help="Start from this model: a name, a folder or a .ckpt.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs, instead of the config's.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the config: --set batch=2 --set optimizer.ema_decay=0.999")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after the epoch in which this time runs out.")] = None,
    binary: Annotated[bool, typer.Option("--binary", help="Train spine against background instead of levels.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Try the recipe out in miniature.")] = False,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes per node, each with its own GPU.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Number of machines, under torchrun or SLURM.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Train a network; write checkpoints, logs, a history and a model folder for `run --model`."""
    with errors(False):
        from vertebral.core.config import changed, load_config
        from vertebral.training.config import TrainConfig

        check_device(device)
        settings = load_config(TrainConfig, config_file(config), changes or ())
        if not data.is_dir():
            raise ConfigError(f"{data}: not a folder; give the data folder as --data")
        try:
            from vertebral.training.precision import choose_precision
            from vertebral.training.run_folder import RunFolder
            from vertebral.training.train import leave_processes, make_fabric
            from vertebral.training.train import train as fit
            from vertebral.training.variants import as_binary
            from vertebral.training.variants import smoke as reduced
        except ModuleNotFoundError as error:
            raise ConfigError(f"training needs {error.name}: pip install 'vertebral[train]'") from None
        from vertebral.models.devices import choose_device

        processor = choose_device(device)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        if binary:
            settings = as_binary(settings)
        if smoke:
            settings = reduced(settings)
        if epochs is not None:
            settings = changed(settings, epochs=epochs)
        precision = choose_precision(settings, processor)
        settings = changed(settings, precision=precision)
        fabric = make_fabric(settings, device, devices, nodes)
        silent = quiet or not fabric.is_global_zero
        if not silent:
            print(f"training on {fabric.device} in precision {precision}", file=sys.stderr)
        with counted(silent) as progress:
            folder = fit(
                settings,
                data,
                RunFolder(out),
                fabric=fabric,
                resume=resume,
                init_from=init_from,
                minutes=minutes,
                progress=progress,
            )
        leave_processes(fabric)
    if fabric.is_global_zero:
        print_files({"model": folder, "history": RunFolder(out).history}, quiet, False)


def config_file(name: str) -> Path:
    """Return `name` as a path, or the shipped config of that name."""
    path = Path(name)
    shipped = Path(__file__).parents[1] / "training" / "configs" / f"{name}.yaml"
    return shipped if not path.exists() and shipped.exists() else path
