"""Micro runs through the real engine: a patch of 16 voxels, six steps, two bodies of blocks."""

import csv
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from vertebral.cli import app
from vertebral.config import TrainConfig, load_config
from vertebral.errors import ConfigError, ModelError, OutputExistsError
from vertebral.io.write import write_labels
from vertebral.training import train as engine
from vertebral.training.train import RunFolder, SegmentationTask, train
from vertebral.volume import Volume
from vertebral.weights import load_model

STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bodies of 4 mm: L1 and L2 as blocks in fat, one wider than the other."""
    folder = tmp_path_factory.mktemp("data")
    for name, width in (("a", 12), ("b", 16)):
        labels = np.zeros((24, 24, 30), np.uint8)
        labels[2:22, 2:22] = 90
        low = 12 - width // 2
        labels[low : low + width, 8:16, 17:23] = 20
        labels[low : low + width, 8:16, 8:14] = 21
        write_labels(Volume(labels, np.diag([4.0, 4, 4, 1])), folder / f"{name}_organs.nii.gz")
        (folder / f"{name}_organs.json").write_text('{"20": "L1", "21": "L2", "90": "fat"}')
    return folder


def micro(**changes: object) -> TrainConfig:
    network = {"levels": ["L1", "L2"], "channels": [4, 8], "strides": [2], "residual_units": 1}
    values = {
        "model": {"name": "micro", "network": network, "preprocess": {"spacing_mm": 4.0}},
        "licence": "CC0",
        "sources": [{"kind": "body", "bodies": "*_organs.nii.gz"}],
        "synthesis": {"cache_spacing_mm": 4.0},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 2, "ema_decay": 0.5},
        "patch": [16, 16, 16],
        "steps": STEPS,
        "checkpoint_every": 2,
        "workers": 0,
        **changes,
    }
    return TrainConfig.model_validate(values)


def fit(config: TrainConfig, data: Path, root: Path, resume: bool = False, init_from: Path | None = None) -> Path:
    return train(
        config,
        data,
        RunFolder(root),
        resume=resume,
        init_from=None if init_from is None else str(init_from),
        accelerator="cpu",
        progress=lambda *_: None,
        quiet=True,
    )


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of every step, as it is computed."""
    seen: list[float] = []
    plain = engine.segmentation_loss

    def record(*arguments: object) -> torch.Tensor:
        loss = plain(*arguments)  # type: ignore[arg-type]
        seen.append(loss.item())
        return loss

    monkeypatch.setattr(engine, "segmentation_loss", record)
    return seen


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]) -> None:
    """Let the loss of step number `step` (from 0) fail."""
    plain: Callable[..., torch.Tensor] = engine.segmentation_loss
    calls: list[int] = []

    def fail(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) > step:
            raise fault("power cut")
        return plain(*arguments)

    monkeypatch.setattr(engine, "segmentation_loss", fail)


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "weights.safetensors")


def equal(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A run from start to end without interruption, and its losses."""
    root = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen: list[float] = []
        plain = engine.segmentation_loss

        def record(*arguments: object) -> torch.Tensor:
            loss = plain(*arguments)  # type: ignore[arg-type]
            seen.append(loss.item())
            return loss

        monkeypatch.setattr(engine, "segmentation_loss", record)
        fit(micro(), data, root)
    return root, seen


def test_a_run_leaves_a_checkpoint_a_config_and_a_model(whole: tuple[Path, list[float]]) -> None:
    root, losses = whole
    assert len(losses) == STEPS and all(math.isfinite(loss) for loss in losses)
    assert sorted(path.name for path in root.iterdir()) == ["bodies", "checkpoints", "config.json", "logs", "model"]
    assert [path.name for path in (root / "checkpoints").iterdir()] == ["last.ckpt"]
    assert torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == STEPS
    assert load_config(TrainConfig, root / "config.json") == micro()


def test_the_model_is_ready_for_inference_and_tells_its_origin(whole: tuple[Path, list[float]]) -> None:
    folder = RunFolder(whole[0]).model
    model = load_model(str(folder))
    assert model.config == micro().model
    assert model.licence == "CC0"
    card = json.loads((folder / "model.json").read_text())
    assert card["steps"] == STEPS and card["torch"] == torch.__version__
    assert TrainConfig.model_validate(card["training"]) == micro()
    with torch.inference_mode():
        assert model.network(torch.zeros((1, 1, 8, 8, 8))).shape == (1, 3, 8, 8, 8)


def test_the_model_has_the_averaged_weights_and_the_checkpoint_both(whole: tuple[Path, list[float]]) -> None:
    run = RunFolder(whole[0])
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    name = "head.weight"
    exported = weights(run.model)[name]
    assert torch.equal(exported, checkpoint["state_dict"][f"network.{name}"].half())
    assert not torch.equal(exported, checkpoint["current_model_state"][f"network.{name}"].half())


def test_a_run_is_not_overwritten_without_resume(whole: tuple[Path, list[float]], data: Path) -> None:
    before = RunFolder(whole[0]).checkpoint.read_bytes()
    with pytest.raises(OutputExistsError, match="a run is there already; add --resume"):
        fit(micro(), data, whole[0])
    assert RunFolder(whole[0]).checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"optimizer": {"learning_rate": 0.02}}, {"batch": 2}, {"synthesis": {"cache_spacing_mm": 3.0}}],
)
def test_a_run_goes_on_with_its_own_config_only(
    whole: tuple[Path, list[float]], data: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: the run was started with another config"):
        fit(micro(**changes), data, whole[0], resume=True)
    assert load_config(TrainConfig, whole[0] / "config.json") == micro()


def test_fewer_steps_than_are_done_are_refused(whole: tuple[Path, list[float]], data: Path) -> None:
    with pytest.raises(ConfigError, match=f"has {STEPS} steps already, more than the 5 asked for"):
        fit(micro(steps=5), data, whole[0], resume=True)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    whole: tuple[Path, list[float]],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: list[float],
) -> None:
    """It fails in its sixth step; the checkpoint after the fourth is what it goes on from."""
    with monkeypatch.context() as during, pytest.raises(RuntimeError, match="power cut"):
        interrupt_at(5, during, RuntimeError)
        fit(micro(), data, tmp_path / "run")
    assert losses == whole[1][:5]
    losses.clear()
    model = fit(micro(), data, tmp_path / "run", resume=True)
    assert losses == whole[1][4:]
    assert equal(model, RunFolder(whole[0]).model)


def test_a_run_may_be_given_more_steps_and_another_place(
    whole: tuple[Path, list[float]], data: Path, tmp_path: Path, losses: list[float]
) -> None:
    """Odd numbers of steps: the last step has a checkpoint too. A moved run still has one checkpoint."""
    fit(micro(steps=3), data, tmp_path / "run")
    assert losses == pytest.approx(whole[1][:3], rel=0.2)
    (tmp_path / "run").rename(tmp_path / "moved")
    run = RunFolder(tmp_path / "moved")
    losses.clear()
    fit(micro(steps=5), data, run.root, resume=True)
    assert len(losses) == 2
    assert [path.name for path in run.checkpoint.parent.iterdir()] == ["last.ckpt"]
    assert torch.load(run.checkpoint, weights_only=True)["global_step"] == 5
    assert json.loads((run.model / "model.json").read_text())["steps"] == 5
    assert load_config(TrainConfig, run.config) == micro(steps=5)


def test_a_new_run_may_start_from_a_models_weights(
    whole: tuple[Path, list[float]], data: Path, tmp_path: Path, losses: list[float]
) -> None:
    """At a learning rate of next to nothing it stays where the model is, which has the same first classes."""
    model = RunFolder(whole[0]).model
    network = {**micro().model.network.model_dump(), "offsets": True}
    config = micro(
        model={"name": "more", "network": network, "preprocess": {"spacing_mm": 4.0}},
        optimizer={"learning_rate": 1e-9},
        steps=2,
    )
    made = fit(config, data, tmp_path / "run", init_from=model)
    before, after = weights(model), weights(made)
    assert torch.allclose(before["head.weight"].float(), after["head.weight"][:3].float(), atol=1e-3)
    assert len(after["head.weight"]) == 3 + 3
    for name in before.keys() - {"head.weight", "head.bias"}:
        assert torch.allclose(before[name].float(), after[name].float(), atol=1e-3), name
    assert losses[0] < whole[1][0]
    assert json.loads((made / "model.json").read_text())["initialised_from"] == str(model)


def test_a_finished_run_stays_as_it_is(
    whole: tuple[Path, list[float]], data: Path, tmp_path: Path, losses: list[float]
) -> None:
    run = RunFolder(tmp_path / "run")
    fit(micro(steps=1), data, run.root)
    before = run.checkpoint.read_bytes()
    losses.clear()
    assert fit(micro(steps=1), data, run.root, resume=True) == run.model
    assert losses == [] and run.checkpoint.read_bytes() == before


def test_resume_without_a_checkpoint_starts_anew(
    whole: tuple[Path, list[float]], data: Path, tmp_path: Path, losses: list[float]
) -> None:
    fit(micro(), data, tmp_path / "run", resume=True)
    assert losses == whole[1]


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_damaged_checkpoint_is_named(
    whole: tuple[Path, list[float]], data: Path, tmp_path: Path, content: bytes | None
) -> None:
    run = RunFolder(tmp_path)
    run.checkpoint.parent.mkdir()
    whole_bytes = RunFolder(whole[0]).checkpoint.read_bytes()
    run.checkpoint.write_bytes(whole_bytes[: len(whole_bytes) // 2] if content is None else content)
    with pytest.raises(ModelError, match=r"last\.ckpt: damaged"):
        fit(micro(), data, tmp_path, resume=True)


def test_ctrl_c_is_a_keyboard_interrupt(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning alone would end the process, with exit code 1, and ignore Ctrl-C from then on."""
    before = signal.getsignal(signal.SIGINT)
    interrupt_at(2, monkeypatch, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(micro(), data, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(RunFolder(tmp_path).checkpoint, weights_only=True)["global_step"] == 2


def test_loader_processes_change_nothing(
    whole: tuple[Path, list[float]], data: Path, tmp_path: Path, losses: list[float]
) -> None:
    model = fit(micro(workers=2), data, tmp_path)
    assert losses == whole[1]
    assert equal(model, RunFolder(whole[0]).model)


def test_learning_rate_rises_then_falls_to_nearly_nothing() -> None:
    """Two steps of warm-up, then (1 - t / 7) ** 0.9 of 0.01."""
    settings = SegmentationTask(micro()).configure_optimizers()
    assert isinstance(settings, dict)
    optimizer = settings["optimizer"]
    schedule = settings["lr_scheduler"]["scheduler"]  # type: ignore[typeddict-item,index]
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    decay = [0.01 * (1 - step / 7) ** 0.9 for step in range(STEPS)]
    assert rates == pytest.approx([decay[0] / 3, decay[1] * 2 / 3, *decay[2:]])
    assert optimizer.param_groups[0]["weight_decay"] == 1e-5


def test_dice_is_logged_with_the_loss_of_its_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> None:
    monkeypatch.setattr(engine, "_LOG_EVERY", 2)
    seen: list[int] = []
    monkeypatch.setattr(engine, "hard_dice", lambda *_: (float(len(losses)), seen.append(len(losses)) or 0.5))
    fit(micro(steps=4), data, tmp_path)
    assert seen == [2, 4]
    with (tmp_path / "logs" / "from-0" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["step"], float(row["dice_spine"])) for row in rows] == [("1", 2), ("3", 4)]
    assert [float(row["loss"]) for row in rows] == pytest.approx([losses[1], losses[3]])


def test_training_from_the_command_line(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "micro.yaml"
    config.write_text(yaml.safe_dump(micro().model_dump(mode="json")))
    arguments = [
        "train",
        "--config",
        str(config),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(app, [*arguments, "--steps", "1", "--quiet"])
    assert result.exit_code == 0, result.output
    assert load_model(str(tmp_path / "run" / "model")).config == micro().model
    again = CliRunner().invoke(app, [*arguments, "--steps", "1"])
    assert again.exit_code == OutputExistsError.exit_code
    assert "add --resume" in again.output
    more = CliRunner().invoke(app, [*arguments, "--steps", "2", "--resume"])
    assert more.exit_code == 0, more.output
    assert str(tmp_path / "run" / "model") in more.output
