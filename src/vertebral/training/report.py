"""The report of a training run: learning curves, validation scores, overlays of the worst scans, and `report.md`."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vertebral.core.about import DISCLAIMER
from vertebral.core.config import load_config
from vertebral.core.errors import InputError, OutputExistsError
from vertebral.data.patches.config import ScansConfig
from vertebral.io.write import atomic_write
from vertebral.training.config import TrainConfig
from vertebral.training.curves import draw_curves
from vertebral.training.run_folder import EpochRow, RunFolder
from vertebral.training.scores import CaseRow, best_epoch, case_table, level_table, read_scores, worst_first, write_csv

REPORT = "report.md"

Progress = Callable[[int, int, str], None]


def write_report(
    run: Path,
    out: Path | None = None,
    worst: int = 3,
    device: str = "auto",
    progress: Progress = lambda done, total, text: None,
) -> dict[str, Path]:
    """Write the report of the run folder `run` into `out` (`run`/report if None); return its files.

    Files of an earlier report are replaced. The `worst` scans of the best epoch are predicted again with the run's
    model on `device` and drawn; 0 draws none and needs neither data nor model. A run without validation has curves
    only. Raises InputError or a subclass if `run` is not a run folder, has no finished epoch, or its data is missing.
    """
    folder = RunFolder(run)
    rows = folder.rows()
    if not rows:
        raise InputError(f"{folder.history}: no finished epoch; give the folder that `vertebral train --out` made")
    config, facts = load_config(TrainConfig, folder.config), folder.read_facts()
    best = best_epoch(rows, config.validation.monitor)
    scores = read_scores(folder.validation(best.phase, best.epoch)) if best else []
    out = out or run / "report"
    _clear(out)
    files = {f"learning_curves_{kind}": path for kind, path in draw_curves(rows, best, out).items()}
    if scores:
        files |= _write_tables(scores, out)
    drawn = _draw_worst(folder, config, facts, best, worst_first(scores, worst), out, device, progress) if best else []
    files |= {path.stem: path for _, path in drawn}
    files["report"] = out / REPORT
    text = _text(config, facts, rows, best, scores, drawn)
    with atomic_write(files["report"]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return files


def _clear(out: Path) -> None:
    """Make `out`, and remove the overlays and tables of an earlier report; its other files are replaced later."""
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out}: is a file; give a folder as --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be created ({error.strerror}); choose another --out") from None
    if (out / REPORT).exists():
        old = [path for path in out.glob("worst_*.png") if re.match(r"worst_\d+_", path.name)]
        for path in (*old, out / "validation.csv", out / "validation.md"):
            path.unlink(missing_ok=True)


def _write_tables(scores: list[CaseRow], out: Path) -> dict[str, Path]:
    files = {"validation_csv": out / "validation.csv", "validation_md": out / "validation.md"}
    write_csv(scores, files["validation_csv"])
    with atomic_write(files["validation_md"]) as temporary:
        temporary.write_text(f"{case_table(scores)}\n{level_table(scores)}", encoding="utf-8")
    return files


def _draw_worst(
    folder: RunFolder,
    config: TrainConfig,
    facts: dict[str, Any],
    best: EpochRow,
    rows: list[CaseRow],
    out: Path,
    device: str,
    progress: Progress,
) -> list[tuple[CaseRow, Path]]:
    """Predict and draw each of `rows`; return them with their pictures."""
    if not rows or not isinstance(config.data, ScansConfig):
        return []
    from vertebral.data.verse.prepared_set import open_prepared
    from vertebral.models.devices import choose_device
    from vertebral.models.weights import load_model
    from vertebral.stages.preview.comparison import draw_comparison
    from vertebral.training.worst_cases import compare

    data = Path(str(facts.get("data")))
    if not data.is_dir():
        raise InputError(f"{data}: the run's data folder is missing; restore it, or draw no overlays with --worst 0")
    scans = open_prepared(data).scans
    missing = [row.case for row in rows if row.case not in scans]
    if missing:
        raise InputError(f"{data}: scan {missing[0]} is missing; prepare it again, or draw no overlays with --worst 0")
    model, processor = load_model(folder.model), choose_device(device)
    drawn = []
    for number, row in enumerate(rows, start=1):
        progress(number - 1, len(rows), f"drawing {row.case}")
        path = out / f"worst_{number}_{re.sub(r'[^A-Za-z0-9._-]+', '_', row.case)}.png"
        about = f"Worst validation scan no. {number}. {_dice(row)} (phase {best.phase}, epoch {best.epoch})"
        draw_comparison(compare(scans[row.case], model, processor), row.case, about, path)
        drawn.append((row, path))
    progress(len(rows), len(rows), "overlays drawn")
    return drawn


def _dice(row: CaseRow) -> str:
    spine, levels = (row.values.get(name, float("nan")) for name in ("dice_spine", "dice_levels"))
    return f"Dice of the levels {levels:.3f}, of the spine {spine:.3f}"


def _text(
    config: TrainConfig,
    facts: dict[str, Any],
    rows: Sequence[EpochRow],
    best: EpochRow | None,
    scores: list[CaseRow],
    drawn: list[tuple[CaseRow, Path]],
) -> str:
    """`report.md`."""
    table = "\n".join(f"| {name} | {value} |" for name, value in _facts(config, facts, rows, best).items())
    sections = [
        f"# Training report: {config.model.name}",
        f"**{DISCLAIMER}**",
        f"## Run\n\n| | |\n| --- | --- |\n{table}",
        f"## Learning curves\n\n{_about_curves(config, best)}\n\n![Learning curves](learning_curves.png)",
    ]
    if scores and best:
        sections.append(
            f"## Validation, phase {best.phase}, epoch {best.epoch}\n\n"
            f"The same tables are in [validation.csv](validation.csv).\n\n{case_table(scores)}\n{level_table(scores)}"
        )
    if drawn:
        about = (
            "Predicted again with the run's model: the most probable class of each voxel, without the later stages of "
            "`vertebral run`."
        )
        pictures = [f"### {row.case}\n\n{_dice(row)}\n\n![{row.case}]({path.name})" for row, path in drawn]
        sections.append("\n\n".join(["## Worst validation scans", about, *pictures]))
    return "\n\n".join(sections) + "\n"


def _about_curves(config: TrainConfig, best: EpochRow | None) -> str:
    if not isinstance(config.data, ScansConfig):
        return (
            "Training loss only: patches painted from label maps are never the same twice and there are no validation "
            "scans, so there is no best epoch; the model is that of the last one."
        )
    if best is None:
        return "Training loss only: this run has not validated anything yet, so there is no best epoch."
    measure = "highest mean Dice of the levels" if config.validation.monitor == "dice" else "lowest validation loss"
    return (
        f"The best epoch is the one with the {measure}. Dice is measured on whole scans with a sliding window, "
        "the loss on patches."
    )


def _facts(
    config: TrainConfig, facts: dict[str, Any], rows: Sequence[EpochRow], best: EpochRow | None
) -> dict[str, str]:
    network, preprocess = config.model.network, config.model.preprocess
    hours = sum(row.seconds for row in rows if np.isfinite(row.seconds)) / 3600
    memory = [row.memory_gb for row in rows if row.memory_gb is not None]
    schedule = config.optimizer
    return {
        "network": network.kind,
        "levels": ", ".join(network.levels),
        "input": f"{preprocess.spacing_mm:g} mm, {preprocess.window_hu[0]:g} to {preprocess.window_hu[1]:g} HU",
        "data": _about_data(config, facts),
        "patches": f"{'x'.join(map(str, config.patch))} voxels",
        "batch": f"{config.batch} patches per device, {config.accumulate} batches per step",
        "optimizer": f"AdamW, learning rate {schedule.learning_rate:g} ({schedule.schedule}), "
        f"weight decay {schedule.weight_decay:g}",
        "average of weights": "none" if schedule.ema_decay is None else f"decay {schedule.ema_decay:g}",
        "precision": config.precision,
        "seed": str(config.seed),
        "started from": _base_name(facts.get("init_from")) or "random weights",
        "epochs": f"{len(rows)} done of {config.phases} x {config.epochs}, {rows[-1].step} steps",
        "best epoch": _about_best(best),
        "time": f"{hours:.2f} h",
        **({"GPU memory": f"{max(memory):.1f} GB at most"} if memory else {}),
        "catalogue sha256": str(facts.get("catalog_sha256") or "none"),
        "licence of the weights": config.licence,
        "versions": ", ".join(f"{name} {number}" for name, number in dict(facts.get("versions") or {}).items()),
    }


def _about_best(best: EpochRow | None) -> str:
    if best is None:
        return "unknown"
    known = {"levels": best.dice_levels, "spine": best.dice_spine}
    scores = ", ".join(f"Dice of the {name} {value:.4f}" for name, value in known.items() if value is not None)
    return f"phase {best.phase}, epoch {best.epoch}: {scores}"


def _about_data(config: TrainConfig, facts: dict[str, Any]) -> str:
    """The kind of data and the name of its folder; not the full path, since reports are shared."""
    name = _base_name(facts.get("data"))
    if isinstance(config.data, ScansConfig):
        return f"prepared scans in {name}, fold {config.data.fold}"
    return f"painted from label maps in {name}"


def _base_name(path: object) -> str:
    return re.split(r"[\\/]", str(path).rstrip("\\/"))[-1] if path else ""
