"""One training run with Lightning: bodies -> patches -> network -> checkpoints -> model folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from vertebral import __version__
from vertebral.config import TrainConfig
from vertebral.data.catalog import cache_bodies, find_recipes
from vertebral.data.patches import PatchDataset, Sample
from vertebral.errors import ConfigError, OutputExistsError
from vertebral.model import build_network
from vertebral.training.losses import dice_ce, hard_dice
from vertebral.weights import save_model


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
    """DiceCE with AdamW, warm-up and polynomial decay."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config.model.network).to(memory_format=torch.channels_last_3d)

    def training_step(self, batch: Sample, _: int) -> torch.Tensor:
        """Return the loss of one batch of patches; every 20 steps the Dice of the patch is logged too."""
        image, classes = batch
        logits = self.network(image.contiguous(memory_format=torch.channels_last_3d))
        loss = dice_ce(logits, classes, self.config.cross_entropy_weight)
        self.log("loss", loss, prog_bar=True)
        if self.global_step % 20 == 0:
            spine, levels = hard_dice(logits.detach(), classes)
            self.log_dict({"dice_spine": spine, "dice_levels": levels}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; the learning rate rises linearly, then falls as (1 - t)^power."""
        settings, steps = self.config.optimizer, self.config.steps
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / (settings.warmup_steps + 1))
            return rise * max(0.0, 1 - step / (steps + 1)) ** settings.poly_power

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ModelFolder(Callback):
    """Export the averaged weights as a model folder whenever a checkpoint is due, so that a run can be tried early."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._folder = folder
        self._config = config

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write every `checkpoint_every` steps and at the last one."""
        step = trainer.global_step
        if step and (step % self._config.checkpoint_every == 0 or step == self._config.steps):
            average = next(c for c in trainer.callbacks if isinstance(c, EMAWeightAveraging))._average_model
            state = {} if average is None else average.module.state_dict()
            network = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
            provenance = {
                "licence": self._config.licence,
                "vertebral": __version__,
                "torch": torch.__version__,
                "steps": step,
                "training": self._config.model_dump(mode="json"),
            }
            save_model(self._folder, self._config.model, network, provenance)


def train(
    config: TrainConfig,
    data: Path,
    run: RunFolder,
    *,
    resume: bool,
    accelerator: str,
    progress: Callable[[int, int, str], None],
    quiet: bool = False,
) -> Path:
    """Train, or with `resume` go on from the run's last checkpoint; return the model folder.

    Raises OutputExistsError where `run` holds a checkpoint and `resume` is False, and ConfigError where a resumed run
    was started with another config.
    """
    text = config.model_dump_json(indent=1)
    if run.checkpoint.exists() and not resume:
        raise OutputExistsError(f"{run.root}: a run is there already; add --resume to go on, or choose another --out")
    if resume and run.config.exists() and run.config.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{run.config}: the run was started with another config; use that one, or a new --out")
    run.root.mkdir(parents=True, exist_ok=True)
    run.config.write_text(text, encoding="utf-8")
    recipes = find_recipes(data, config.sources)
    bodies = cache_bodies(
        recipes,
        config.synthesis.cache_spacing_mm,
        run.root / "bodies",
        lambda done, name: progress(done, len(recipes), name),
    )
    seed_everything(config.seed, verbose=False)
    newest = run.checkpoint if resume and run.checkpoint.exists() else None
    done = int(torch.load(newest, weights_only=False)["global_step"]) if newest else 0
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        precision=config.precision,
        max_steps=config.steps,
        gradient_clip_val=config.optimizer.clip_norm,
        logger=CSVLogger(run.root, name="logs", version=f"from-{done}"),
        log_every_n_steps=20,
        enable_progress_bar=not quiet,
        enable_model_summary=not quiet,
        callbacks=[
            EMAWeightAveraging(decay=config.optimizer.ema_decay, use_buffers=True),
            ModelCheckpoint(
                run.checkpoint.parent, filename="{step}", save_last=True, every_n_train_steps=config.checkpoint_every
            ),
            ModelFolder(run.model, config),
        ],
    )
    patches = DataLoader(
        PatchDataset(bodies, config, start=done * config.batch),
        batch_size=config.batch,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        persistent_workers=config.workers > 0,
    )
    trainer.fit(SegmentationTask(config), patches, ckpt_path=newest, weights_only=False)
    return run.model
