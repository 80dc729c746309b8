"""One phase of a run: epochs with a fresh optimizer, each validated and written down."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from vertebral.core.errors import ConfigError, VertebralError
from vertebral.data.patches.network_input import Patch
from vertebral.io.write import atomic_write, write_json
from vertebral.models.devices import Precision
from vertebral.models.modules import Network
from vertebral.models.weights import save_model
from vertebral.training.checkpoint import PREFIX, Place, network_state, versions
from vertebral.training.config import TrainConfig
from vertebral.training.datasets import BatchSampler, Material, load_batches
from vertebral.training.losses import hard_dice, offset_loss, supervised_loss
from vertebral.training.run_folder import EpochRow, RunFolder
from vertebral.training.transfer import averaged, parameter_groups
from vertebral.training.validate import CaseScore, as_rows, gather_objects, means, score_scan

_LOG_EVERY = 20
Progress = Callable[[int, int, str], None]


class Phase:
    """The epochs of one phase: a fresh optimizer and schedule, and the average of the weights."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        fabric: Fabric,
        material: Material,
        network: Network,
        place: Place,
        checkpoint: dict[str, Any] | None,
        progress: Progress,
    ) -> None:
        self._config, self._run, self._fabric, self._material = config, run, fabric, material
        self._place, self._progress = place, progress
        self._steps = config.steps_per_epoch or _steps_of_a_pass(config, material, fabric.world_size)
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

    def run_epochs(self, deadline: float) -> Place:
        """Run the epochs that are left, or until the best one is `patience` epochs ago; return where the run is.

        It ends early after the epoch in which `time.monotonic()` passes `deadline`.
        """
        config, place = self._config, self._place
        if place.epoch >= config.epochs or self._is_over(place):
            return place
        batches = iter(self._loader(place))
        logger = TensorBoardLogger(self._run.logs, name="", version="")
        while place.epoch < config.epochs and not self._is_over(place):
            start = time.perf_counter()
            loss = self._epoch(batches, place, logger)
            place = replace(place, epoch=place.epoch + 1, step=place.step + self._steps)
            due = place.epoch % config.validation.every_epochs == 0 or place.epoch == config.epochs
            validated = self._validate() if self._material.validation and due else None
            place = self._finish(place, loss, validated, time.perf_counter() - start, logger)
            if gather_objects(time.monotonic() > deadline)[0]:
                break
        logger.finalize("success")
        return place

    def _is_over(self, place: Place) -> bool:
        patience = self._config.validation.patience
        return bool(patience and self._material.validation and place.waited() >= patience)

    def _loader(self, place: Place) -> Any:
        config, fabric = self._config, self._fabric
        epoch = self._steps * config.accumulate
        first = ((place.phase - 1) * config.epochs + place.epoch) * epoch
        last = place.phase * config.epochs * epoch
        sampler = BatchSampler(first, last, config.batch, fabric.global_rank, fabric.world_size)
        return load_batches(self._material.patches, sampler, config.workers, fabric.device.type == "cuda")

    def _rate(self, step: int) -> float:
        """The learning rate at a step of the phase, as a share of the config's."""
        settings, steps = self._config.optimizer, self._config.epochs * self._steps
        rise = min(1.0, (step + 1) / (settings.warmup_steps + 1))
        fall = max(0.0, 1 - step / (steps + 1)) ** settings.poly_power if settings.schedule == "poly" else 1.0
        return float(rise * fall)

    def _epoch(self, batches: Iterator[Patch], place: Place, logger: TensorBoardLogger) -> float:
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
                        f"step {place.step + n}: the loss is no number; lower optimizer.learning_rate or use 32-true"
                    )
                if self._fabric.is_global_zero:
                    logger.log_metrics({"loss": value, **dice, "learning_rate": self._current_rate()}, place.step + n)
                best = f", best epoch {place.best_epoch}" if place.best is not None else ""
                where = f"phase {place.phase} epoch {place.epoch + 1} of {self._config.epochs}"
                self._progress(n + 1, self._steps, f"{where}, loss {value:.3f}{best}")
        mean = self._fabric.all_reduce(total / self._steps, reduce_op="mean")
        return float(mean)  # type: ignore[arg-type]  # a tensor in, a tensor out

    def _step(self, batches: Iterator[Patch], with_dice: bool) -> tuple[torch.Tensor, dict[str, float]]:
        """One step of the optimizer; return the loss and, if asked for, the Dice of the last patches."""
        config, fabric = self._config, self._fabric
        total = torch.zeros((), device=fabric.device)
        for part in range(config.accumulate):
            image, classes = (fabric.to_device(tensor) for tensor in next(batches))
            with fabric.no_backward_sync(self._module, enabled=part + 1 < config.accumulate):
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

    def _validate(self) -> tuple[float, list[CaseScore]]:
        """The loss of the fixed patches and the scores of the scans, each device doing its share."""
        config, fabric, material = self._config, self._fabric, self._material
        judged = self._judged().eval()
        losses = []
        for index in range(fabric.global_rank, material.fixed_count, fabric.world_size):
            image, classes = (fabric.to_device(tensor[None]) for tensor in material.fixed[index])  # type: ignore[index]
            with torch.no_grad(), fabric.autocast():
                losses.append(float(self._loss(judged(image), classes)))
        scans = material.validation[fabric.global_rank :: fabric.world_size]
        precision: Precision = "float32" if config.precision == "32-true" else "auto"
        scores = []
        for done, scan in enumerate(scans):
            self._progress(done, len(scans), f"validating {scan.case}")
            scores.append(score_scan(scan, judged, config.model, fabric.device, precision))
        found = gather_objects((losses, scores))
        every = [loss for part, _ in found for loss in part]
        return float(np.mean(every)), [score for _, part in found for score in part]

    def _judged(self) -> torch.nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self._average.module if self._average is not None else self._network

    def _finish(
        self,
        place: Place,
        loss: float,
        validated: tuple[float, list[CaseScore]] | None,
        seconds: float,
        logger: TensorBoardLogger,
    ) -> Place:
        """Write down an epoch: history, scores, checkpoint, and the model if it is the best so far."""
        loss_validation, scores = validated if validated else (None, [])
        spine, levels = means(scores)
        monitored = levels if self._config.validation.monitor == "dice" else loss_validation
        sign = 1 if self._config.validation.monitor == "dice" else -1
        is_best = not self._material.validation or (
            monitored is not None and (place.best is None or sign * monitored > sign * place.best)
        )
        if is_best:
            place = replace(place, best=monitored, best_phase=place.phase, best_epoch=place.epoch)
        if self._fabric.is_global_zero:
            row = EpochRow(
                place.phase,
                place.epoch,
                place.step,
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
                path = self._run.validation(place.phase, place.epoch)
                path.parent.mkdir(exist_ok=True)
                write_json({"phase": place.phase, "epoch": place.epoch, "cases": as_rows(scores)}, path)
                known = {f"validation/{name}": value for name, value in metrics.items() if value is not None}
                logger.log_metrics(known, place.step)
            self._run.append(row)
            self._write(place, metrics, is_best)
        self._fabric.barrier()
        return place

    def _write(self, place: Place, metrics: dict[str, float | None], is_best: bool) -> None:
        origin = self._origin(place, metrics)
        state = {name: value.cpu() for name, value in self._judged().state_dict().items()}
        checkpoint = {
            "state_dict": {PREFIX + name: value for name, value in state.items()},
            "trained": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "averaged": int(self._average.n_averaged) if self._average is not None else 0,
            "place": vars(place),
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

    def _origin(self, place: Place, metrics: dict[str, float | None]) -> dict[str, Any]:
        facts = self._run.read_facts()
        return {
            "config": self._config.model_dump(mode="json"),
            "versions": versions(),
            "catalog_sha256": self._material.catalog_sha256,
            "initialised_from": facts["init_from"],
            "metrics": metrics,
            "phase": place.phase,
            "epoch": place.epoch,
            "step": place.step,
        }

    def _current_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def _memory_gb(self) -> float | None:
        """Peak memory of the GPU, GB (1e9 bytes); None on a CPU."""
        if self._fabric.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self._fabric.device) / 1e9, 2)


def _steps_of_a_pass(config: TrainConfig, material: Material, world: int) -> int:
    """Steps in which every scan has given its patches."""
    if material.per_pass is None:
        raise ConfigError("steps_per_epoch: patches from label maps have no end; say how many steps an epoch has")
    return -(-material.per_pass // (config.batch * config.accumulate * world))
