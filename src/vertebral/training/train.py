"""One training run with Lightning: bodies -> patches -> network -> checkpoints -> model folder."""

import logging
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader

from vertebral import __version__
from vertebral.config import TrainConfig, load_config
from vertebral.data.body_cache import cache_bodies, find_recipes
from vertebral.data.patches import PatchDataset, Sample
from vertebral.errors import ConfigError, ModelError, OutputExistsError, VertebralError
from vertebral.io.write import atomic_write
from vertebral.model import build_network
from vertebral.training.losses import hard_dice, offset_loss, segmentation_loss
from vertebral.weights import Model, load_model, save_model

_LOG_EVERY = 20


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its things."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint: network, optimizer, schedule, averaged weights."""
        return self.root / "checkpoints" / "last.ckpt"

    @property
    def config(self) -> Path:
        """The config the run was started with."""
        return self.root / "config.json"

    @property
    def model(self) -> Path:
        """The model folder for `vertebral run --model`."""
        return self.root / "model"


class SegmentationTask(LightningModule):
    """The loss of `losses` with AdamW, warm-up and polynomial decay."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config.model.network).to(  # type: ignore[call-overload]  # torch's stub lacks it
            memory_format=torch.channels_last_3d
        )

    def training_step(self, batch: Sample, _: int) -> torch.Tensor:
        """Return the loss of one batch of patches; whenever it is logged, the Dice of the patch is logged too."""
        image, classes = batch
        model, weights = self.config.model, self.config.loss
        output = self.network(image.contiguous(memory_format=torch.channels_last_3d))
        logits = output[:, : model.network.class_count]
        loss = segmentation_loss(logits, classes, weights)
        if model.network.offsets:
            offsets = offset_loss(output[:, model.network.class_count :], classes, model.preprocess.spacing_mm)
            loss = loss + weights.offset_weight * offsets
            self.log("offset_loss", offsets.detach())
        self.log("loss", loss, prog_bar=True)
        if (self.global_step + 1) % _LOG_EVERY == 0:
            if not torch.isfinite(loss):
                raise VertebralError(f"step {self.global_step}: the loss is not finite; lower the learning rate")
            spine, levels = hard_dice(logits.detach(), classes)
            self.log_dict({"dice_spine": spine, "dice_levels": levels}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; the learning rate rises linearly, then falls as (1 - t)^power."""
        settings, steps = self.config.optimizer, self.config.steps
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / (settings.warmup_steps + 1))
            return float(rise * max(0.0, 1 - step / (steps + 1)) ** settings.poly_power)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Snapshots(Callback):
    """Every `checkpoint_every` steps and at the last one: a checkpoint, and the averaged weights as a model folder.

    So a run can go on from there and be tried early. Lightning's own `ModelCheckpoint` misses the last step, or writes
    it once the averaged weights have replaced the trained ones, and starts a second `last` when a run's folder moved.
    """

    def __init__(
        self, run: RunFolder, config: TrainConfig, averaging: EMAWeightAveraging, init_from: str | None
    ) -> None:
        self._run = run
        self._init_from = init_from
        self._config = config
        self._averaging = averaging

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write both; `averaging` comes before this in the callbacks, so it has seen the step."""
        step, average = trainer.global_step, self._averaging._average_model
        if average is not None and (step % self._config.checkpoint_every == 0 or step == self._config.steps):
            self._run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._run.checkpoint) as temporary:
                trainer.save_checkpoint(temporary)
            prefix = "network."
            state = average.module.state_dict()
            network = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            provenance = {
                "licence": self._config.licence,
                "vertebral": __version__,
                "torch": torch.__version__,
                "steps": step,
                "training": self._config.model_dump(mode="json"),
                "initialised_from": self._init_from,
            }
            save_model(self._run.model, self._config.model, network, provenance)


def train(
    config: TrainConfig,
    data: Path,
    run: RunFolder,
    *,
    resume: bool,
    init_from: str | None = None,
    accelerator: str,
    progress: Callable[[int, int, str], None],
    quiet: bool = False,
) -> Path:
    """Train, or with `resume` go on from the run's last checkpoint; return the model folder.

    A resumed run sees the patches that the uninterrupted one would have seen; it may be given more steps, at the
    learning rate that the longer schedule has there. A new run starts from the weights of model `init_from`, if given.

    Raises OutputExistsError where `run` holds a checkpoint and `resume` is False, ConfigError where a resumed run was
    started with another config or is past `steps`, ModelError where its checkpoint is damaged.
    """
    if run.checkpoint.exists() and not resume:
        raise OutputExistsError(f"{run.root}: a run is there already; add --resume to go on, or choose another --out")
    if resume and run.config.exists():
        before = load_config(TrainConfig, run.config)
        if before.model_copy(update={"steps": config.steps}) != config:
            raise ConfigError(f"{run.config}: the run was started with another config; use that one, or a new --out")
    done = _steps_done(run.checkpoint)
    if done > config.steps:
        raise ConfigError(f"{run.checkpoint}: has {done} steps already, more than the {config.steps} asked for")
    run.root.mkdir(parents=True, exist_ok=True)
    run.config.write_text(config.model_dump_json(indent=1), encoding="utf-8")
    recipes = find_recipes(data, config.sources)
    bodies = cache_bodies(
        recipes,
        config.synthesis.cache_spacing_mm,
        run.root / "bodies",
        lambda done, name: progress(done, len(recipes), name),
    )
    seed_everything(config.seed, verbose=False)
    averaging = EMAWeightAveraging(decay=config.optimizer.ema_decay, use_buffers=True)
    with _hushed(quiet):
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            precision=config.precision,
            max_steps=config.steps,
            gradient_clip_val=config.optimizer.clip_norm,
            logger=CSVLogger(run.root, name="logs", version=f"from-{done}"),
            log_every_n_steps=_LOG_EVERY,
            enable_progress_bar=not quiet,
            enable_model_summary=not quiet,
            enable_checkpointing=False,
            callbacks=[averaging, Snapshots(run, config, averaging, init_from)],
        )
    patches = DataLoader(
        PatchDataset(bodies, config, start=done * config.batch),
        batch_size=config.batch,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        persistent_workers=config.workers > 0,
    )
    newest = run.checkpoint if done else None
    task = SegmentationTask(config)
    if init_from is not None and newest is None:
        _copy_weights(load_model(init_from), task)
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with _hushed(quiet):
            trainer.fit(task, patches, ckpt_path=newest, weights_only=True)
    except SystemExit:  # so Lightning ends where Ctrl-C is pressed, deaf to a second one
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    return run.model


@contextmanager
def _hushed(quiet: bool) -> Iterator[None]:
    """Keep what Lightning tells of its settings, and its advertisements, from standard error if `quiet`."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING if quiet else before)
    try:
        yield
    finally:
        logger.setLevel(before)


def _copy_weights(source: Model, task: SegmentationTask) -> None:
    """Start from the weights of `source`; offsets that only one of the two networks has are left as they are.

    Raises ConfigError where the networks differ in anything else.
    """
    ours, theirs = task.config.model.network, source.config.network
    if ours.model_copy(update={"offsets": theirs.offsets}) != theirs:
        raise ConfigError(f"model {source.config.name}: its network or levels differ from the config's; see model.json")
    found, state = source.network.state_dict(), task.network.state_dict()
    for name, value in state.items():
        rows = min(len(found[name]), len(value))
        value[:rows] = found[name][:rows]
    task.network.load_state_dict(state)


def _steps_done(checkpoint: Path) -> int:
    """The number of steps in a checkpoint, 0 where there is none."""
    if not checkpoint.exists():
        return 0
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{checkpoint}: damaged ({str(error).splitlines()[0]}); start a new --out") from None
