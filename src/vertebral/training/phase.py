"""One phase of a run: epochs with a new optimizer, each validated and recorded."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from vertebral.core.errors import ConfigError, VertebralError
from vertebral.data.patches.network_input import Patch
from vertebral.io.write import atomic_write, write_json
from vertebral.models.devices import Precision
from vertebral.models.modules import Network
from vertebral.models.weights import CHECKPOINT_PREFIX, save_model
from vertebral.training.checkpoint import RunPosition, network_state, versions
from vertebral.training.config import TrainConfig
from vertebral.training.datasets import BatchSampler, Datasets, load_batches
from vertebral.training.losses import hard_dice, offset_loss, supervised_loss
from vertebral.training.run_folder import EpochRow, RunFolder
from vertebral.training.transfer import averaged, parameter_groups
from vertebral.training.validate import ValidationScore, as_rows, gather_objects, means, score_scan

_LOG_EVERY = 20
Progress = Callable[[int, int, str], None]


class Phase:
    """The epochs of one phase, with their optimizer, schedule and average of the weights."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        fabric: Fabric,
        datasets: Datasets,
        network: Network,
        position: RunPosition,
        checkpoint: dict[str, Any] | None,
        progress: Progress,
    ) -> None:
        self._config, self._run, self._fabric, self._datasets = config, run, fabric, datasets
        self._position, self._progress = position, progress
        self._steps = config.steps_per_epoch or _steps_of_a_pass(config, datasets, fabric.world_size)
        if checkpoint:
            network.load_state_dict(checkpoint["trained"])
        fabric.to_device(network)
        self._network = network
        self._optimizer = torch.optim.AdamW(
            parameter_groups(network, config.optimizer), weight_decay=config.optimizer.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)
        self._average = averaged(network, config.optimizer.ema_decay)
        if checkpoint:
            self._optimizer.load_state_dict(checkpoint["optimizer"])
            self._schedule.load_state_dict(checkpoint["schedule"])
            if self._average is not None:
                self._average.module.load_state_dict(network_state(checkpoint))
                self._average.n_averaged.fill_(checkpoint["averaged"])
        if config.compile:
            network.compile()
        self._module, self._wrapped_optimizer = fabric.setup(network, self._optimizer)

    def run_epochs(self, deadline: float) -> RunPosition:
        """Run the remaining epochs, or until the best one is `patience` epochs ago; return the run's new position.

        The phase ends early after the epoch in which `time.monotonic()` passes `deadline`.
        """
        config, position = self._config, self._position
        if position.epoch >= config.epochs or self._is_over(position):
            return position
        batches = iter(self._loader(position))
        logger = TensorBoardLogger(self._run.logs, name="", version="")
        while position.epoch < config.epochs and not self._is_over(position):
            start = time.perf_counter()
            loss = self._epoch(batches, position, logger)
            position = replace(position, epoch=position.epoch + 1, step=position.step + self._steps)
            due = position.epoch % config.validation.every_epochs == 0 or position.epoch == config.epochs
            validated = self._validate() if self._datasets.validation and due else None
            position = self._finish(position, loss, validated, time.perf_counter() - start, logger)
            if gather_objects(time.monotonic() > deadline)[0]:
                break
        logger.finalize("success")
        return position

    def _is_over(self, position: RunPosition) -> bool:
        patience = self._config.validation.patience
        return bool(patience and self._datasets.validation and position.waited() >= patience)

    def _loader(self, position: RunPosition) -> Any:
        config, fabric = self._config, self._fabric
        epoch = self._steps * config.accumulate
        first = ((position.phase - 1) * config.epochs + position.epoch) * epoch
        last = position.phase * config.epochs * epoch
        sampler = BatchSampler(first, last, config.batch, fabric.global_rank, fabric.world_size)
        return load_batches(self._datasets.patches, sampler, config.workers, fabric.device.type == "cuda")

    def _rate(self, step: int) -> float:
        """The learning rate at a step of the phase, as a share of the configured one."""
        settings, steps = self._config.optimizer, self._config.epochs * self._steps
        rise = min(1.0, (step + 1) / (settings.warmup_steps + 1))
        fall = max(0.0, 1 - step / (steps + 1)) ** settings.poly_power if settings.schedule == "poly" else 1.0
        return float(rise * fall)

    def _epoch(self, batches: Iterator[Patch], position: RunPosition, logger: TensorBoardLogger) -> float:
        """Train for an epoch; return its mean loss over all devices."""
        self._module.train()
        total = torch.zeros((), device=self._fabric.device)
        for n in range(self._steps):
            logged = (n + 1) % _LOG_EVERY == 0 or n + 1 == self._steps
            loss, dice = self._step(batches, with_dice=logged)
            total += loss
            if logged:
                value = float(loss)
                if not np.isfinite(value):
                    raise VertebralError(
                        f"step {position.step + n}: the loss is not finite; "
                        "lower optimizer.learning_rate or set precision=32-true"
                    )
                if self._fabric.is_global_zero:
                    logger.log_metrics(
                        {"loss": value, **dice, "learning_rate": self._current_rate()}, position.step + n
                    )
                best = f", best epoch {position.best_epoch}" if position.best is not None else ""
                where = f"phase {position.phase} epoch {position.epoch + 1} of {self._config.epochs}"
                self._progress(n + 1, self._steps, f"{where}, loss {value:.3f}{best}")
        mean = self._fabric.all_reduce(total / self._steps, reduce_op="mean")
        return float(mean)  # type: ignore[arg-type]  # a tensor in, a tensor out

    def _step(self, batches: Iterator[Patch], with_dice: bool) -> tuple[torch.Tensor, dict[str, float]]:
        """Take one step of the optimizer; return the loss and, with `with_dice`, the Dice of the last patches."""
        config, fabric = self._config, self._fabric
        total = torch.zeros((), device=fabric.device)
        for number in range(config.accumulate):
            image, classes = (fabric.to_device(tensor) for tensor in next(batches))
            with fabric.no_backward_sync(self._module, enabled=number + 1 < config.accumulate):
                outputs = self._module(image.contiguous(memory_format=torch.channels_last_3d))
                loss = self._loss(outputs, classes) / config.accumulate
                fabric.backward(loss)
            total += loss.detach()
        if config.optimizer.clip_norm is not None:
            fabric.clip_gradients(self._module, self._wrapped_optimizer, max_norm=config.optimizer.clip_norm)
        self._wrapped_optimizer.step()
        self._wrapped_optimizer.zero_grad()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self._network)
        dice = {}
        if with_dice:
            logits = (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).detach()
            spine, levels = hard_dice(logits[:, : config.model.network.class_count], classes)
            dice = {"dice_spine": spine, "dice_levels": levels}
        return total, dice

    def _loss(self, outputs: Any, classes: torch.Tensor) -> torch.Tensor:
        network, settings = self._config.model.network, self._config.loss
        loss = supervised_loss(outputs, classes, network.class_count, settings)
        if network.offsets:
            finest = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
            spacing_mm = self._config.model.preprocess.spacing_mm
            loss = loss + settings.offset_weight * offset_loss(finest[:, network.class_count :], classes, spacing_mm)
        return loss

    def _validate(self) -> tuple[float, list[ValidationScore]]:
        """Return the loss of the fixed patches and the scores of the scans; each device computes its share."""
        config, fabric, datasets = self._config, self._fabric, self._datasets
        network = self._kept_network().eval()
        losses = []
        for index in range(fabric.global_rank, datasets.fixed_count, fabric.world_size):
            image, classes = (fabric.to_device(tensor[None]) for tensor in datasets.fixed[index])  # type: ignore[index]
            with torch.no_grad(), fabric.autocast():
                losses.append(float(self._loss(network(image), classes)))
        scans = datasets.validation[fabric.global_rank :: fabric.world_size]
        precision: Precision = "float32" if config.precision == "32-true" else "auto"
        scores = []
        for done, scan in enumerate(scans):
            self._progress(done, len(scans), f"validating {scan.case}")
            scores.append(score_scan(scan, network, config.model, fabric.device, precision))
        found = gather_objects((losses, scores))
        every = [loss for share, _ in found for loss in share]
        return float(np.mean(every)), [score for _, share in found for score in share]

    def _kept_network(self) -> torch.nn.Module:
        """The network that is validated and kept: the average if there is one."""
        return self._average.module if self._average is not None else self._network

    def _finish(
        self,
        position: RunPosition,
        loss: float,
        validated: tuple[float, list[ValidationScore]] | None,
        seconds: float,
        logger: TensorBoardLogger,
    ) -> RunPosition:
        """Record an epoch: history, scores, checkpoint, and the model if it is the best so far."""
        loss_validation, scores = validated if validated else (None, [])
        spine, levels = means(scores)
        monitored = levels if self._config.validation.monitor == "dice" else loss_validation
        sign = 1 if self._config.validation.monitor == "dice" else -1
        is_best = not self._datasets.validation or (
            monitored is not None and (position.best is None or sign * monitored > sign * position.best)
        )
        if is_best:
            position = replace(position, best=monitored, best_phase=position.phase, best_epoch=position.epoch)
        if self._fabric.is_global_zero:
            row = EpochRow(
                position.phase,
                position.epoch,
                position.step,
                self._current_rate(),
                loss,
                loss_validation,
                spine,
                levels,
                round(seconds, 2),
                self._memory_gb(),
            )
            metrics = {"loss": loss, "loss_validation": loss_validation, "dice_spine": spine, "dice_levels": levels}
            if validated:
                path = self._run.validation(position.phase, position.epoch)
                path.parent.mkdir(exist_ok=True)
                write_json({"phase": position.phase, "epoch": position.epoch, "cases": as_rows(scores)}, path)
                known = {f"validation/{name}": value for name, value in metrics.items() if value is not None}
                logger.log_metrics(known, position.step)
            self._run.append(row)
            self._write(position, metrics, is_best)
        self._fabric.barrier()
        return position

    def _write(self, position: RunPosition, metrics: dict[str, float | None], is_best: bool) -> None:
        origin = self._origin(position, metrics)
        state = {name: value.cpu() for name, value in self._kept_network().state_dict().items()}
        checkpoint = {
            "state_dict": {CHECKPOINT_PREFIX + name: value for name, value in state.items()},
            "trained": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "averaged": int(self._average.n_averaged) if self._average is not None else 0,
            "place": vars(position),
            "vertebral": origin,
        }
        self._run.last.parent.mkdir(exist_ok=True)
        for path in (self._run.last, self._run.best) if is_best else (self._run.last,):
            with atomic_write(path) as temporary:
                torch.save(checkpoint, temporary)
        if is_best:
            rest = {name: value for name, value in origin.items() if name != "config"}
            provenance = {"licence": self._config.licence, "training": origin["config"], **rest}
            save_model(self._run.model, self._config.model, state, provenance)

    def _origin(self, position: RunPosition, metrics: dict[str, float | None]) -> dict[str, Any]:
        facts = self._run.read_facts()
        return {
            "config": self._config.model_dump(mode="json"),
            "versions": versions(),
            "catalog_sha256": self._datasets.catalog_sha256,
            "initialised_from": facts["init_from"],
            "metrics": metrics,
            "phase": position.phase,
            "epoch": position.epoch,
            "step": position.step,
        }

    def _current_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def _memory_gb(self) -> float | None:
        """Peak memory of the GPU, GB (1e9 bytes); None on a CPU."""
        if self._fabric.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self._fabric.device) / 1e9, 2)


def _steps_of_a_pass(config: TrainConfig, datasets: Datasets, world: int) -> int:
    """The number of steps in which every scan is used once."""
    if datasets.per_pass is None:
        raise ConfigError("steps_per_epoch: patches from label maps never end; set the number of steps in an epoch")
    return -(-datasets.per_pass // (config.batch * config.accumulate * world))
