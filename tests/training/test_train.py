"""Micro runs through the real engine: patches of 16 voxels, a few steps."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from vertebral.cli import app
from vertebral.cli.train import config_file
from vertebral.core.config import load_config
from vertebral.core.errors import ConfigError, ModelError, OutputExistsError, VertebralError
from vertebral.models import devices
from vertebral.models.weights import load_model
from vertebral.training import phase as engine
from vertebral.training.config import TrainConfig
from vertebral.training.precision import choose_precision
from vertebral.training.run_folder import RunFolder
from vertebral.training.train import make_fabric, train

SYNTHETIC = {
    "kind": "synthetic",
    "sources": [{"kind": "body", "bodies": "*_organs.nii.gz"}],
    "synthesis": {"cache_spacing_mm": 4.0},
}
SCANS = {"kind": "scans", "patches_per_scan": 2, "augment": None}
EPOCHS, STEPS = 3, 2


def micro(**changes: object) -> TrainConfig:
    """Three epochs of two steps, on synthetic bodies."""
    network = {"kind": "resunet", "levels": ["L1", "L2"], "channels": [4, 8], "strides": [2], "residual_units": 1}
    model = {
        "name": "micro",
        "network": {**network, **changes.pop("network", {})},  # type: ignore[dict-item]
        "preprocess": {"spacing_mm": 4.0},
        "inference": {"window": [16, 16, 16]},
    }
    values = {
        "model": model,
        "licence": "CC0",
        "data": SYNTHETIC,
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 2, "schedule": "poly", "ema_decay": 0.5},
        "patch": [16, 16, 16],
        "epochs": EPOCHS,
        "steps_per_epoch": STEPS,
        "workers": 0,
        **changes,
    }
    return TrainConfig.model_validate(values)


def on_scans(**changes: object) -> TrainConfig:
    """As `micro`, on the prepared scans, at a plain constant rate: 4 scans give 8 patches, in batches of 2."""
    return micro(
        **{"data": SCANS, "batch": 2, "steps_per_epoch": None, "optimizer": {"learning_rate": 0.01}, **changes}
    )


def fit(
    config: TrainConfig,
    data: Path,
    root: Path,
    resume: bool = False,
    init_from: Path | None = None,
    minutes: float | None = None,
) -> RunFolder:
    fabric = make_fabric(config, "cpu")
    start = None if init_from is None else str(init_from)
    train(config, data, RunFolder(root), fabric=fabric, resume=resume, init_from=start, minutes=minutes)
    return RunFolder(root)


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of every step, as it is computed."""
    return record_losses(monkeypatch)


def record_losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seen: list[float] = []
    plain = engine.supervised_loss

    def record(*arguments: object) -> torch.Tensor:
        loss = plain(*arguments)  # type: ignore[arg-type]
        if loss.requires_grad:
            seen.append(loss.item())
        return loss

    monkeypatch.setattr(engine, "supervised_loss", record)
    return seen


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
    """Let the loss of training step number `step` (from 0) fail."""
    plain: Callable[..., torch.Tensor] = engine.supervised_loss
    calls: list[int] = []

    def fail(*arguments: object) -> torch.Tensor:
        loss = plain(*arguments)
        calls.append(1 if loss.requires_grad else 0)
        if sum(calls) > step:
            raise fault
        return loss

    monkeypatch.setattr(engine, "supervised_loss", fail)


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "weights.safetensors")


def equal(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def checkpoint(path: Path) -> dict[str, object]:
    return dict(torch.load(path, weights_only=True))


Whole = tuple[RunFolder, list[float]]


@pytest.fixture(scope="module")
def whole(bodies: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A synthetic run from start to end without interruption, and its losses."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = record_losses(monkeypatch)
        return fit(micro(), bodies, tmp_path_factory.mktemp("whole") / "run"), seen


@pytest.fixture(scope="module")
def validated(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A run on scans, in two phases, with validation."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = record_losses(monkeypatch)
        return fit(on_scans(phases=2, epochs=2), scans, tmp_path_factory.mktemp("validated") / "run"), seen


def test_a_run_leaves_checkpoints_a_config_a_history_and_a_model(whole: Whole) -> None:
    run, losses = whole
    assert len(losses) == EPOCHS * STEPS and all(math.isfinite(loss) for loss in losses)
    assert {path.name for path in run.root.iterdir()} == {
        *("bodies", "checkpoints", "config.json", "history.csv", "logs", "model", "run.json")
    }
    assert {path.name for path in (run.root / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert load_config(TrainConfig, run.config) == micro()
    rows = run.rows()
    assert [(row.phase, row.epoch, row.step) for row in rows] == [(1, 1, 2), (1, 2, 4), (1, 3, 6)]
    assert [row.loss for row in rows] == pytest.approx([sum(losses[n : n + 2]) / 2 for n in (0, 2, 4)], abs=1e-5)
    assert all(row.dice_levels is None and row.loss_validation is None for row in rows)


def test_the_model_is_ready_for_inference_and_tells_its_origin(whole: Whole) -> None:
    folder = whole[0].model
    model = load_model(str(folder))
    assert model.config == micro().model
    assert model.licence == "CC0"
    card = json.loads((folder / "model.json").read_text())
    assert (card["phase"], card["epoch"], card["step"]) == (1, EPOCHS, EPOCHS * STEPS)
    assert card["versions"]["torch"] == torch.__version__
    assert TrainConfig.model_validate(card["training"]) == micro()
    with torch.inference_mode():
        assert model.network(torch.zeros((1, 1, 8, 8, 8))).shape == (1, 3, 8, 8, 8)


def test_the_checkpoint_holds_the_averaged_weights_and_the_trained_ones(whole: Whole) -> None:
    saved = checkpoint(whole[0].last)
    exported = weights(whole[0].model)["head.weight"]
    assert torch.equal(exported, saved["state_dict"]["network.head.weight"].half())  # type: ignore[index]
    assert not torch.equal(exported, saved["trained"]["head.weight"].half())  # type: ignore[index]


def test_a_checkpoint_tells_its_config_data_and_scores(validated: Whole) -> None:
    facts = checkpoint(validated[0].best)["vertebral"]
    assert isinstance(facts, dict)
    assert TrainConfig.model_validate(facts["config"]) == on_scans(phases=2, epochs=2)
    assert len(facts["catalog_sha256"]) == 64
    assert facts["metrics"]["dice_levels"] == max(row.dice_levels or 0 for row in validated[0].rows())


def test_a_run_is_not_overwritten_without_resume(whole: Whole, bodies: Path) -> None:
    before = whole[0].last.read_bytes()
    with pytest.raises(OutputExistsError, match="a run already exists; add --resume"):
        fit(micro(), bodies, whole[0].root)
    assert whole[0].last.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"optimizer": {"learning_rate": 0.02}}, {"batch": 2}, {"steps_per_epoch": 3}],
)
def test_a_run_goes_on_with_its_own_config_only(whole: Whole, bodies: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: the run was started with another config"):
        fit(micro(**changes), bodies, whole[0].root, resume=True)
    assert load_config(TrainConfig, whole[0].config) == micro()


def test_fewer_epochs_than_are_done_are_refused(whole: Whole, bodies: Path) -> None:
    with pytest.raises(ConfigError, match=f"{EPOCHS} epochs are already done, more than the 2 requested"):
        fit(micro(epochs=2), bodies, whole[0].root, resume=True)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    whole: Whole, bodies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> None:
    """It fails in its sixth step, in the third epoch; the checkpoint after the second is what it goes on from."""
    with monkeypatch.context() as during, pytest.raises(RuntimeError, match="power cut"):
        interrupt_at(5, during, RuntimeError("power cut"))
        fit(micro(), bodies, tmp_path / "run")
    assert losses[:5] == whole[1][:5]
    losses.clear()
    run = fit(micro(), bodies, tmp_path / "run", resume=True)
    assert losses == whole[1][4:]
    assert equal(run.model, whole[0].model)
    assert [row.loss for row in run.rows()] == [row.loss for row in whole[0].rows()]


@pytest.mark.parametrize("step", [3, 5, 13])
def test_a_run_on_scans_goes_on_in_either_phase(
    validated: Whole, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float], step: int
) -> None:
    """An epoch has four steps, a phase two epochs; an epoch that was not finished is run again."""
    config = on_scans(phases=2, epochs=2)
    with monkeypatch.context() as during, pytest.raises(RuntimeError, match="power cut"):
        interrupt_at(step, during, RuntimeError("power cut"))
        fit(config, scans, tmp_path / "run")
    losses.clear()
    run = fit(config, scans, tmp_path / "run", resume=True)
    assert losses == validated[1][step // 4 * 4 :]
    assert equal(run.model, validated[0].model)
    same = [(row.phase, row.epoch, row.step, row.loss, row.loss_validation, row.dice_levels) for row in run.rows()]
    assert same == [(r.phase, r.epoch, r.step, r.loss, r.loss_validation, r.dice_levels) for r in validated[0].rows()]


def test_validation_scores_every_scan_of_the_fold(validated: Whole) -> None:
    run = validated[0]
    rows = run.rows()
    assert [(row.phase, row.epoch) for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    scores = json.loads(run.validation(1, 2).read_text())
    assert len(scores["cases"]) == 2 and scores["epoch"] == 2
    mean = np.mean([case["dice_levels"] for case in scores["cases"]])
    assert rows[1].dice_levels == pytest.approx(mean)
    assert set(scores["cases"][0]["levels"]) == {"L1", "L2"}
    assert rows[-1].loss < rows[0].loss and rows[-1].loss_validation is not None


def test_a_run_stops_when_its_time_is_over_and_goes_on(validated: Whole, scans: Path, tmp_path: Path) -> None:
    """No time at all is enough for one epoch; three such runs are over before the fourth epoch."""
    config = on_scans(phases=2, epochs=2)
    for count in (1, 2, 3):
        run = fit(config, scans, tmp_path, resume=True, minutes=0)
        assert len(run.rows()) == count
    assert equal(fit(config, scans, tmp_path, resume=True).model, validated[0].model)


def test_a_second_phase_starts_from_the_best_weights_with_a_new_optimizer(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second epoch is called worse than the first, so the second phase starts from the first."""
    scores = iter([0.5, 0.4, 0.3, 0.3])
    monkeypatch.setattr(engine, "means", lambda _: (0.0, next(scores)))
    started: list[torch.Tensor] = []
    plain = engine.parameter_groups

    def note(network: torch.nn.Module, *rest: object) -> object:
        started.append(network.state_dict()["head.weight"].clone())
        return plain(network, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "parameter_groups", note)
    run = fit(on_scans(phases=2, epochs=2), scans, tmp_path)
    best = checkpoint(run.best)
    assert best["place"] == {"phase": 1, "epoch": 1, "step": 4, "best": 0.5, "best_phase": 1, "best_epoch": 1}
    assert torch.equal(started[1], best["trained"]["head.weight"])  # type: ignore[index]
    assert json.loads((run.model / "model.json").read_text())["epoch"] == 1


@pytest.mark.parametrize(("monitor", "epochs"), [("dice", 4), ("loss", 3)])
def test_patience_ends_a_phase(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: str, epochs: int
) -> None:
    """Dice is best in epoch 2, the loss in epoch 1; two epochs without a better one are enough."""
    values = iter([(1.0, 0.1), (1.1, 0.2), (1.2, 0.1), (1.3, 0.2), (1.4, 0.3), (1.5, 0.4)])
    drawn: list[float] = []

    def judge(_: object) -> tuple[float, list[object]]:
        loss, dice = next(values)
        drawn.append(dice)
        return loss, []

    monkeypatch.setattr(engine.Phase, "_validate", judge)
    monkeypatch.setattr(engine, "means", lambda _: (None, drawn[-1]))
    config = on_scans(epochs=6, validation={"monitor": monitor, "patience": 2})
    assert len(fit(config, scans, tmp_path).rows()) == epochs
    assert len(fit(config, scans, tmp_path, resume=True).rows()) == epochs, "a run that has stopped stays so"


def test_a_run_may_be_given_more_epochs_and_another_place(
    whole: Whole, bodies: Path, tmp_path: Path, losses: list[float]
) -> None:
    fit(micro(epochs=1), bodies, tmp_path / "run")
    assert losses == pytest.approx(whole[1][:2], rel=0.2)
    (tmp_path / "run").rename(tmp_path / "moved")
    losses.clear()
    run = fit(micro(epochs=2), bodies, tmp_path / "moved", resume=True)
    assert len(losses) == 2
    assert [row.step for row in run.rows()] == [2, 4]
    assert load_config(TrainConfig, run.config) == micro(epochs=2)


def test_accumulated_batches_give_the_step_of_a_large_one(scans: Path, tmp_path: Path) -> None:
    """Two batches of 2 against one of 4, over two steps. A bias before a norm has no gradient but rounding."""
    common = {"epochs": 1, "steps_per_epoch": 2, "optimizer": {"learning_rate": 0.001}}
    parts = fit(on_scans(batch=2, accumulate=2, **common), scans, tmp_path / "parts")
    large = fit(on_scans(batch=4, **common), scans, tmp_path / "large")
    assert parts.rows()[0].loss == pytest.approx(large.rows()[0].loss, abs=1e-5)
    one, other = (checkpoint(run.last)["trained"] for run in (parts, large))
    for name in [name for name in one if not name.endswith("conv.bias")]:  # type: ignore[attr-defined]
        assert torch.allclose(one[name], other[name], atol=1e-5), name  # type: ignore[index]


def test_a_new_run_may_start_from_a_models_weights(
    whole: Whole, bodies: Path, tmp_path: Path, losses: list[float]
) -> None:
    """At a learning rate of next to nothing it stays where the model is, class by class: L2 is the first one here."""
    config = micro(network={"levels": ["L2", "L3", "L1"], "offsets": True}, optimizer={"learning_rate": 1e-9}, epochs=1)
    run = fit(config, bodies, tmp_path / "run", init_from=whole[0].model)
    before, after = weights(whole[0].model), weights(run.model)
    for ours, theirs in ((0, 0), (1, 2), (3, 1)):
        assert torch.allclose(before["head.weight"][theirs].float(), after["head.weight"][ours].float(), atol=1e-3)
    assert len(after["head.weight"]) == 4 + 3
    for name in before.keys() - {"head.weight", "head.bias"}:
        assert torch.allclose(before[name].float(), after[name].float(), atol=1e-3), name
    again = fit(config.model_copy(update={"epochs": 2}), bodies, run.root, resume=True)
    assert json.loads((again.model / "model.json").read_text())["initialised_from"].startswith("micro, sha256 ")


def test_another_architecture_cannot_be_started_from(whole: Whole, bodies: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="micro: cannot start a resunet of this config"):
        fit(micro(network={"channels": [4, 6]}), bodies, tmp_path, init_from=whole[0].model)


def test_a_frozen_encoder_stays_and_the_rest_moves(bodies: Path, tmp_path: Path, whole: Whole) -> None:
    config = micro(optimizer={"learning_rate": 0.01, "encoder_rate": 0})
    run = fit(config, bodies, tmp_path, init_from=whole[0].model)
    before, after = weights(whole[0].model), weights(run.model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert any(name.startswith("body.model.0") for name in same)
    assert "head.weight" not in same and not any(".model.2" in name for name in same if name.endswith("weight"))


def test_the_encoder_may_learn_more_slowly(bodies: Path, tmp_path: Path) -> None:
    run = fit(micro(optimizer={"learning_rate": 0.01, "encoder_rate": 0.1}, epochs=1), bodies, tmp_path)
    groups = checkpoint(run.last)["optimizer"]["param_groups"]  # type: ignore[index]
    assert [group["initial_lr"] for group in groups] == pytest.approx([0.01, 0.001])


def test_two_classes_are_enough(scans: Path, tmp_path: Path) -> None:
    run = fit(on_scans(network={"levels": ["spine"]}, epochs=1), scans, tmp_path)
    (case, _) = json.loads(run.validation(1, 1).read_text())["cases"]
    assert case["dice_levels"] == case["dice_spine"] and list(case["levels"]) == ["spine"]


def test_deep_supervision_trains_heads_that_the_model_does_not_ship(scans: Path, tmp_path: Path) -> None:
    network = {"channels": [4, 8, 8], "strides": [2, 2], "deep_supervision": 1}
    run = fit(on_scans(network=network, epochs=1), scans, tmp_path)
    assert any("auxiliary" in name for name in checkpoint(run.last)["trained"])  # type: ignore[attr-defined]
    assert not any("auxiliary" in name for name in weights(run.model))
    assert load_model(str(run.model)).config.network.deep_supervision == 0


def test_a_finished_run_stays_as_it_is(whole: Whole, bodies: Path, losses: list[float]) -> None:
    before = whole[0].last.read_bytes()
    fit(micro(), bodies, whole[0].root, resume=True)
    assert losses == [] and whole[0].last.read_bytes() == before


def test_resume_without_a_checkpoint_starts_anew(
    whole: Whole, bodies: Path, tmp_path: Path, losses: list[float]
) -> None:
    fit(micro(), bodies, tmp_path / "run", resume=True)
    assert losses == whole[1]


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_damaged_checkpoint_is_named(whole: Whole, bodies: Path, tmp_path: Path, content: bytes | None) -> None:
    run = RunFolder(tmp_path)
    run.last.parent.mkdir()
    whole_bytes = whole[0].last.read_bytes()
    run.last.write_bytes(whole_bytes[: len(whole_bytes) // 2] if content is None else content)
    with pytest.raises(ModelError, match=r"last\.ckpt: damaged"):
        fit(micro(), bodies, tmp_path, resume=True)


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_a_lack_of_memory_is_answered_with_advice(
    bodies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: RuntimeError
) -> None:
    interrupt_at(0, monkeypatch, fault)
    with pytest.raises(VertebralError, match=r"1 patches of 16x16x16 voxels: lower batch and raise accumulate"):
        fit(micro(), bodies, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(bodies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = engine.supervised_loss
    monkeypatch.setattr(engine, "supervised_loss", lambda *a: plain(*a) * float("nan"))
    with pytest.raises(VertebralError, match="the loss is not finite"):
        fit(micro(), bodies, tmp_path)
    assert not RunFolder(tmp_path).last.exists()


@pytest.mark.parametrize(
    "changes", [{"workers": 2}, {"deterministic": True}, {"network": {"activation_checkpointing": True}}]
)
def test_what_must_not_change_the_result(
    whole: Whole, bodies: Path, tmp_path: Path, losses: list[float], changes: dict[str, object]
) -> None:
    run = fit(micro(**changes), bodies, tmp_path)
    assert losses == pytest.approx(whole[1], abs=1e-6)
    assert all(
        torch.allclose(a, b, atol=1e-3)
        for a, b in zip(weights(run.model).values(), weights(whole[0].model).values(), strict=True)
    )


def test_learning_rate_rises_then_falls_to_nearly_nothing(bodies: Path, tmp_path: Path) -> None:
    """Two steps of warm-up, then (1 - t / 7) ** 0.9 of 0.01; a row tells the rate of the step that follows."""
    rows = fit(micro(steps_per_epoch=1, epochs=6), bodies, tmp_path).rows()
    decay = [0.01 * (1 - step / 7) ** 0.9 for step in range(7)]
    assert [row.learning_rate for row in rows] == pytest.approx([decay[1] * 2 / 3, *decay[2:]])


def test_the_wrong_data_folder_is_named(tmp_path: Path, bodies: Path) -> None:
    with pytest.raises(ConfigError):
        fit(on_scans(), bodies, tmp_path / "run")


def test_training_from_the_command_line(bodies: Path, tmp_path: Path) -> None:
    config = tmp_path / "micro.yaml"
    config.write_text(yaml.safe_dump(micro().model_dump(mode="json")))
    out = tmp_path / "run"
    arguments = ["train", "--config", str(config), "--data", str(bodies), "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--set", "epochs=1", "--quiet"])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert load_model(str(out / "model")).config == micro().model
    again = CliRunner().invoke(app, [*arguments, "--epochs", "1"])
    assert again.exit_code == OutputExistsError.exit_code
    assert "add --resume" in again.output
    more = CliRunner().invoke(app, [*arguments, "--epochs", "2", "--resume"])
    assert more.exit_code == 0, more.output
    assert str(out / "model") in more.stdout and "phase 1 epoch 2 of 2" in more.stderr
    with (out / "history.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2"]


@pytest.mark.parametrize(
    ("patch", "precision", "device", "refused"),
    [
        ([4, 8, 8], "bf16-mixed", "cpu", True),
        ([4, 8, 8], "32-true", "cpu", False),
        ([4, 8, 8], "bf16-mixed", "cuda", False),
        ([6, 4, 4], "bf16-mixed", "cpu", False),
        ([2, 4, 4], "bf16-mixed", "cpu", False),
    ],
)
def test_what_a_cpu_trains_wrong_is_refused(patch: list[int], precision: str, device: str, refused: bool) -> None:
    config = micro(patch=patch, precision=precision)
    if refused:
        with pytest.raises(ConfigError, match="precision=32-true"):
            choose_precision(config, torch.device(device))
    else:
        assert choose_precision(config, torch.device(device)) == precision


@pytest.mark.parametrize(
    ("device", "in_hardware", "patch", "chosen"),
    [
        ("cpu", True, [8, 8, 8], "bf16-mixed"),
        ("cpu", False, [8, 8, 8], "32-true"),
        ("cpu", True, [4, 8, 8], "32-true"),
        ("cuda", True, [4, 8, 8], "bf16-mixed"),
        ("cuda", False, [8, 8, 8], "32-true"),
    ],
)
def test_auto_is_the_precision_that_the_processor_computes(
    device: str, in_hardware: bool, patch: list[int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16-mixed where bfloat16 is computed in hardware and trains rightly."""
    monkeypatch.setattr(devices, "cpu_computes_bfloat16", lambda: in_hardware)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: in_hardware)
    assert choose_precision(micro(patch=patch, precision="auto"), torch.device(device)) == chosen


def test_a_run_says_and_records_the_chosen_precision(
    bodies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cpu_computes_bfloat16", lambda: False)
    config = tmp_path / "micro.yaml"
    config.write_text(yaml.safe_dump(micro(precision="auto").model_dump(mode="json")))
    out = tmp_path / "run"
    arguments = ["train", "--config", str(config), "--data", str(bodies), "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("training on cpu in precision 32-true\n")
    assert load_config(TrainConfig, out / "config.json").precision == "32-true"
    assert fit(micro(precision="auto", epochs=1), bodies, out, resume=True).rows()[-1].epoch == 1


@pytest.mark.parametrize("name", ["default", "refiner"])
def test_the_shipped_recipes_leave_the_precision_to_the_processor(name: str) -> None:
    assert load_config(TrainConfig, config_file(name)).precision == "auto"
