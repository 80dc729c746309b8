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
            help="A label map with VerSe ids, a folder of them, or a body map with its json of names beside."
        ),
    ],
    out: OutFolder,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of pairs of CT and labels.")] = 100,
    bodies: Annotated[
        str | None,
        typer.Option(
            help="Folder or glob of body maps (each with a json of names) to place the vertebrae in: better context, "
            "with ribs and pelvis. Without it a plain trunk is made around them."
        ),
    ] = None,
    spacing_mm: Annotated[float, typer.Option(help="Voxel size, 0.5 to 4 mm.")] = 1.5,
    config: Annotated[
        str, typer.Option(help="Config whose synthesis section says the ranges: a YAML file or a shipped name.")
    ] = "default",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the config: --set data.synthesis.rotation_deg=5")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another set.")] = 0,
    levels: Annotated[str | None, typer.Option(help="Aim the field of view at these levels, as in T10-L2.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Paint CT with labels from label maps: images/ and labels/, as `data index` finds them. Started again, it goes on.

    The licences of the label and body maps hold for what is made from them.
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
            raise ConfigError(f"{config}: its data are of kind {data.kind}; give a config of kind synthetic")
        wanted = [level.verse_id for level in parse_levels(levels)] if levels else None
        pairs = plan_pairs(find_sources(labels, bodies), n, seed)
        with counted(quiet or as_json) as show:
            made = make_set(pairs, out, data.synthesis, spacing_mm, wanted, show)
    if as_json:
        print_json({"out": str(out), "pairs": len(pairs), "made": made, "notes": str(out / NOTES)})
    elif not quiet:
        print(out)
