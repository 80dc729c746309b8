"""Models from the command line: list, describe, import and export them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vertebral.cli.console import AsJson, Overwrite, Quiet, errors, print_json, steps

if TYPE_CHECKING:
    from vertebral.models.config import ModelConfig

# Shown under other names, or used in training only.
_LEFT_OUT = ("kind", "levels", "deep_supervision", "activation_checkpointing")

models_app = typer.Typer(
    help="List, describe, import and export models.",
    epilog="Example: vertebral models list && vertebral models info default",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

AnyModel = Annotated[str, typer.Argument(metavar="NAME|PATH", help="A model's name, folder, run folder or checkpoint.")]


@models_app.command("list", epilog="Example: vertebral models list")
def list_models(as_json: AsJson = False) -> None:
    """List the shipped and the imported models."""
    with errors(as_json):
        from vertebral.core.errors import ModelError
        from vertebral.models.cards import imported_models, read_card, shipped_models

        rows, damaged = [], []
        for origin, folders in (("shipped", shipped_models()), ("imported", imported_models())):
            for name, folder in folders.items():
                try:
                    card = read_card(folder)
                except ModelError as error:
                    damaged.append(str(error))
                    continue
                size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
                place = {"origin": origin, "path": str(folder), "bytes": size}
                rows.append({**_summary(card.config), "name": name, "licence": card.licence, **place})
    if as_json:
        print_json({"models": rows, "damaged": damaged})
    else:
        _print_models(rows, damaged)


@models_app.command(epilog="Example: vertebral models info default")
def info(model: AnyModel, as_json: AsJson = False) -> None:
    """Show a model's card: network, preprocessing, licence, origin, scores, hash."""
    with errors(as_json):
        from vertebral.models.cards import check_weights, count_parameters, find_model, read_card

        path, origin = find_model(model)
        facts: dict[str, Any] = {"path": str(path), "origin": origin}
        if path.is_dir():
            card = read_card(path)
            config, values = card.config, card.values
            facts |= {"sha256": check_weights(card), "parameters": count_parameters(card.weights)}
        else:
            from vertebral.models.weights import load_model

            loaded = load_model(path)
            config, values = loaded.config, loaded.provenance
            count = sum(parameter.numel() for parameter in loaded.network.parameters())
            facts |= {"sha256": loaded.sha256, "parameters": count}
        provenance = {key: value for key, value in values.items() if key not in ("config", "sha256")}
    if as_json:
        print_json({**facts, "config": config.model_dump(mode="json"), **provenance})
    else:
        _print_card(config, facts, provenance)


@models_app.command("import", epilog="Example: vertebral models import runs/one --name hospital-a")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="PATH", help="A model folder, run folder, checkpoint, or zip from `export`.")
    ],
    name: Annotated[str, typer.Option(help="The name for `run --model`.")],
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Copy a model into your own models: in $VERTEBRAL_MODELS, or your data folder."""
    with errors(as_json), steps(quiet or as_json) as say:
        say("reading the model")
        from vertebral.models.exchange import import_model

        folder = import_model(source, name, overwrite)
    if as_json:
        print_json({"name": name, "path": str(folder)})
    elif not quiet:
        print(folder)


@models_app.command(epilog="Example: vertebral models export default --out default.zip")
def export(
    model: AnyModel,
    out: Annotated[Path, typer.Option(help="A folder, or the name of a zip file.")],
    file_format: Annotated[
        str, typer.Option("--format", help="safetensors, to import elsewhere; onnx, for other programs.")
    ] = "safetensors",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a model to a folder or a zip file."""
    with errors(as_json), steps(quiet or as_json) as say:
        say(f"exporting {model} as {file_format}")
        from vertebral.models.exchange import export_model, exported_files

        card = export_model(model, out, file_format, overwrite)
        files = [str(path) for path in exported_files(out, file_format)]
    onnx = card.get("onnx")
    if as_json:
        print_json({"files": files, "onnx": onnx} if onnx else {"files": files})
    elif not quiet:
        print("\n".join(files))
        if onnx:
            print(_agreement(onnx["check"]))


def _agreement(check: list[dict[str, Any]] | None) -> str:
    if check is None:
        return "not compared with PyTorch: onnxruntime is not installed (pip install 'vertebral[onnx]')"
    same, most = min(one["same_class"] for one in check), max(one["largest_difference"] for one in check)
    return f"compared with PyTorch: same class in {same:.3%} of voxels, outputs differ by at most {most:.1e}"


def _summary(config: "ModelConfig") -> dict[str, Any]:
    return {
        "network": config.network.kind,
        "levels": list(config.network.levels),
        "spacing_mm": config.preprocess.spacing_mm,
    }


def _print_models(rows: list[dict[str, Any]], damaged: list[str]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Column, Table

    table = Table("name", "network", "classes", "spacing", "licence", Column("where", overflow="fold"), "size")
    for row in rows:
        where = "shipped" if row["origin"] == "shipped" else row["path"]
        size = f"{row['bytes'] / 1e6:.1f} MB"
        spacing = f"{row['spacing_mm']:g} mm"
        table.add_row(row["name"], row["network"], _classes(row["levels"]), spacing, row["licence"], where, size)
    Console().print(table)
    for message in damaged:
        print(f"vertebral: {message}", file=sys.stderr)


def _classes(levels: list[str]) -> str:
    """The number of levels, the first and the last."""
    return levels[0] if len(levels) == 1 else f"{len(levels)}: {levels[0]} to {levels[-1]}"


def _print_card(config: "ModelConfig", facts: dict[str, Any], provenance: dict[str, Any]) -> None:
    network = config.network.model_dump(mode="json")
    rows = {
        "name": config.name,
        "network": config.network.kind,
        "parameters": f"{facts['parameters']:,}",
        "levels": ", ".join(config.network.levels),
        **{key: _shown(value) for key, value in network.items() if key not in _LEFT_OUT},
        **{key: _shown(value) for key, value in config.preprocess.model_dump(mode="json").items()},
        **{key: _shown(value) for key, value in config.inference.model_dump(mode="json").items()},
        **{key: _shown(value) for key, value in provenance.items() if key != "training"},
        "training": "see --json" if "training" in provenance else "unknown",
        "sha256": facts["sha256"],
        "where": facts["path"],
    }
    width = max(len(key) for key in rows) + 2
    for key, text in rows.items():
        print(f"{key:<{width}}{text}")


def _shown(value: Any) -> str:
    """A value of the card on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
