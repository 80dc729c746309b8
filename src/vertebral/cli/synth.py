"""Synthetic CT from label maps, from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from vertebral.cli.console import AsJson, OutFolder, Quiet, counted, errors, interruptible, print_json
from vertebral.cli.train import config_file
from vertebral.core.errors import ConfigError, OutputExistsError


def synth(
    labels: Annotated[
        Path,
        typer.Argument(
            help="A label map with VerSe ids, a folder of them, or a body map with its JSON file of names next to it."
        ),
    ],
    out: OutFolder,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of pairs of CT and labels.")] = 100,
    bodies: Annotated[
        str | None,
        typer.Option(
            help="Folder or glob of body maps (each with a JSON file of names) to place the vertebrae in, for better "
            "context with ribs and pelvis. By default a simple trunk is made around them."
        ),
    ] = None,
    spacing_mm: Annotated[float, typer.Option(help="Voxel size, 0.5 to 4 mm.")] = 1.5,
    config: Annotated[
        str,
        typer.Option(help="Config whose synthesis section gives the ranges: a YAML file or the name of a shipped one."),
    ] = "default",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the config: --set data.synthesis.rotation_deg=5")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the set.")] = 0,
    levels: Annotated[
        str | None, typer.Option(help="Centre the field of view on these levels, for example T10-L2.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Paint CTs with labels from label maps, as images/ and labels/ for `data index`. Run it again to resume.

    The licences of the label maps and body maps apply to the CTs made from them.
    """
    with errors(as_json), interruptible():
        from vertebral.core.anatomy import parse_levels
        from vertebral.core.config import load_config
        from vertebral.data.patches.config import SyntheticConfig
        from vertebral.data.synthesis.synthetic_set import NOTES, find_sources, make_set, plan_pairs
        from vertebral.training.config import TrainConfig

        if out.exists() and not out.is_dir():
            raise OutputExistsError(f"{out}: is a file; give a folder as --out")
        if not 0.5 <= spacing_mm <= 4:
            raise ConfigError(f"--spacing-mm {spacing_mm:g}: choose 0.5 to 4")
        data = load_config(TrainConfig, config_file(config), changes or ()).data
        if not isinstance(data, SyntheticConfig):
            raise ConfigError(f"{config}: its data.kind is {data.kind}; give a config with data.kind synthetic")
        wanted = [level.verse_id for level in parse_levels(levels)] if levels else None
        pairs = plan_pairs(find_sources(labels, bodies), n, seed)
        with counted(quiet or as_json) as show:
            made = make_set(pairs, out, data.synthesis, spacing_mm, wanted, show)
    if as_json:
        print_json({"out": str(out), "pairs": len(pairs), "made": made, "notes": str(out / NOTES)})
    elif not quiet:
        print(out)
