"""One training run: datasets -> network -> epochs, validation, checkpoints -> model folder.

Lightning Fabric moves the network to its device and averages gradients over devices and nodes; the loop is written out
here. Everything in a run follows from its config and the number of the epoch, and a checkpoint is written after each
epoch, so an interrupted run continues as if nothing had happened.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from vertebral.core.config import changed, load_config
from vertebral.core.errors import ConfigError, OutputExistsError, VertebralError
from vertebral.models.devices import choose_device
from vertebral.models.networks import build_network
from vertebral.models.weights import load_model
from vertebral.training.checkpoint import RunPosition, load_checkpoint, network_state, versions
from vertebral.training.config import TrainConfig
from vertebral.training.datasets import open_datasets
from vertebral.training.phase import Phase, Progress
from vertebral.training.precision import choose_precision
from vertebral.training.run_folder import RunFolder
from vertebral.training.transfer import copy_weights


def train(
    config: TrainConfig,
    data: Path,
    run: RunFolder,
    *,
    fabric: Fabric,
    resume: bool = False,
    init_from: str | None = None,
    minutes: float | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Path:
    """Train, or with `resume` continue after the last finished epoch; return the folder of the best model.

    A resumed run ends with the same weights as one that was never interrupted; it may be given more epochs. A new run
    starts from the weights of the model `init_from`, if given. After `minutes` the run stops at the end of an epoch and
    can be resumed. `fabric` has been launched. `progress(done, total, text)` reports the steps of an epoch.

    Raises OutputExistsError if `run` holds a checkpoint and `resume` is False, ConfigError if a resumed run was started
    with another config or `data` does not fit the config, ModelError if the checkpoint is damaged, and VertebralError
    if memory runs out or the loss is not finite.
    """
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    config = changed(config, precision=choose_precision(config, fabric.device))
    checkpoint = _check_resume(config, run, resume)
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    with _first_process_first(fabric):
        run.root.mkdir(parents=True, exist_ok=True)
        datasets = open_datasets(config, data, run.root / "bodies", progress)
    torch.manual_seed(config.seed)
    network = build_network(config.model.network).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if checkpoint is not None:
        init_from = checkpoint["vertebral"]["initialised_from"]
    elif init_from is not None:
        source = load_model(init_from)
        copy_weights(source, network, config.model.network)
        init_from = f"{source.config.name}, sha256 {source.sha256}"
    if fabric.is_global_zero:
        if checkpoint is None:
            run.history.unlink(missing_ok=True)
        run.config.write_text(config.model_dump_json(indent=1), encoding="utf-8")
        facts = {"data": str(data.resolve()), "init_from": init_from, "versions": versions()}
        run.write_facts({**facts, "catalog_sha256": datasets.catalog_sha256})
    fabric.barrier()
    position = RunPosition(**checkpoint["place"]) if checkpoint else RunPosition()
    with _memory_advice(config):
        for number in range(position.phase, config.phases + 1):
            if number > position.phase:
                position = replace(position, phase=number, epoch=0)
                checkpoint = None
                network.load_state_dict(network_state(load_checkpoint(run.best)))
            before, phase = position, Phase(config, run, fabric, datasets, network, position, checkpoint, progress)
            position = phase.run_epochs(deadline)
            if position != before and time.monotonic() > deadline:
                break
    return run.model


def make_fabric(config: TrainConfig, device: str, devices: int = 1, nodes: int = 1) -> Fabric:
    """Launch `devices` processes on each of `nodes` machines; torchrun and SLURM are recognised by their environment.

    Unless a launcher has done so, Fabric starts the other processes with the command line of this one.
    """
    fabric = Fabric(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=choose_precision(config, choose_device(device)),
    )
    fabric.launch()
    return fabric


def leave_processes(fabric: Fabric) -> None:
    """End the process group in order: a process that exits while its threads run may be aborted."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        fabric.barrier()
        torch.distributed.destroy_process_group()


def _check_resume(config: TrainConfig, run: RunFolder, resume: bool) -> dict[str, Any] | None:
    """Return the checkpoint to continue from, or None to start. Raises what `train` raises."""
    if not run.last.exists():
        return None
    if not resume:
        raise OutputExistsError(
            f"{run.root}: a run already exists; add --resume to continue it, or choose another --out"
        )
    if run.config.exists():
        before = load_config(TrainConfig, run.config)
        if changed(before, epochs=config.epochs, workers=config.workers) != config:
            raise ConfigError(f"{run.config}: the run was started with another config; use that one, or a new --out")
    checkpoint = load_checkpoint(run.last)
    if checkpoint["place"]["epoch"] > config.epochs:
        done = checkpoint["place"]["epoch"]
        raise ConfigError(f"{run.last}: {done} epochs are already done, more than the {config.epochs} requested")
    return checkpoint


@contextmanager
def _first_process_first(fabric: Fabric) -> Iterator[None]:
    """Let the first process build what the others then open."""
    if not fabric.is_global_zero:
        fabric.barrier()
    yield
    if fabric.is_global_zero:
        fabric.barrier()


@contextmanager
def _memory_advice(config: TrainConfig) -> Iterator[None]:
    """Turn an out-of-memory error into one that says what to change."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        size = "x".join(map(str, config.patch))
        raise VertebralError(
            f"out of memory with {config.batch} patches of {size} voxels: lower batch and raise accumulate, "
            "set model.network.activation_checkpointing: true, use precision bf16-mixed, or a smaller patch"
        ) from error
