"""One training run: material -> network -> epochs, validation, checkpoints -> model folder.

Lightning Fabric places the network and moves gradients (one device, several, several nodes); the loop is written out
here. All that a run does follows from its config and the number of the epoch, and a checkpoint is written after each
epoch, so a run that was cut off goes on as if nothing had happened.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from vertebral.core.config import changed, load_config
from vertebral.core.errors import ConfigError, OutputExistsError, VertebralError
from vertebral.models.networks import build_network
from vertebral.models.weights import load_model
from vertebral.training.checkpoint import Place, load_checkpoint, network_state, versions
from vertebral.training.config import TrainConfig
from vertebral.training.datasets import find_material
from vertebral.training.phase import Phase, Progress
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
    """Train, or with `resume` go on after the last epoch that was finished; return the folder of the best model.

    A resumed run gives what the uninterrupted one would have given; it may be given more epochs. A new run starts from
    the weights of model `init_from`, if given. After `minutes` it stops at the end of an epoch, to be resumed. `fabric`
    is launched already. `progress(done, total, text)` tells of the
    steps of an epoch.

    Raises OutputExistsError where `run` holds a checkpoint and `resume` is False, ConfigError where a resumed run was
    started with another config or `data` does not fit it, ModelError where its checkpoint is damaged, and
    VertebralError where memory does not suffice or the loss is no number.
    """
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    checkpoint = _check_resume(config, run, resume)
    check_bottom(config, fabric.device)
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    with _first_process_first(fabric):
        run.root.mkdir(parents=True, exist_ok=True)
        material = find_material(config, data, run.root / "bodies", progress)
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
        run.write_facts({**facts, "catalog_sha256": material.catalog_sha256})
    fabric.barrier()
    place = Place(**checkpoint["place"]) if checkpoint else Place()
    with _memory_advice(config):
        for number in range(place.phase, config.phases + 1):
            if number > place.phase:
                place = replace(place, phase=number, epoch=0)
                checkpoint = None
                network.load_state_dict(network_state(load_checkpoint(run.best)))
            before, phase = place, Phase(config, run, fabric, material, network, place, checkpoint, progress)
            place = phase.run_epochs(deadline)
            if place != before and time.monotonic() > deadline:
                break
    return run.model


def check_bottom(config: TrainConfig, device: torch.device) -> None:
    """Refuse what a CPU trains wrong: bf16 where the deepest feature map has a first axis of 2 voxels.

    There the weights' gradient of a 3x3x3 convolution reads memory that nobody wrote (oneDNN, at least in
    PyTorch 2.13), and now and then it is not a number.
    """
    factor = config.model.network.size_factor
    if device.type == "cpu" and config.precision == "bf16-mixed" and config.patch[0] // factor == 2:
        raise ConfigError(
            f"patch {config.patch}: on a CPU bf16-mixed gives wrong gradients where {factor} fits the first size "
            "twice; use --set precision=32-true, or another first size"
        )


def make_fabric(config: TrainConfig, device: str, devices: int = 1, nodes: int = 1) -> Fabric:
    """Launch `devices` processes on each of `nodes` machines; torchrun and SLURM are recognised by their environment.

    Processes beyond the first are started with this process's own command line, unless a launcher did it.
    """
    fabric = Fabric(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=config.precision,
    )
    fabric.launch()
    return fabric


def leave_processes(fabric: Fabric) -> None:
    """End the group of processes in order: a process that exits with its threads running may be aborted."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        fabric.barrier()
        torch.distributed.destroy_process_group()


def _check_resume(config: TrainConfig, run: RunFolder, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, or None to start. Raises what `train` says."""
    if not run.last.exists():
        return None
    if not resume:
        raise OutputExistsError(f"{run.root}: a run is there already; add --resume to go on, or choose another --out")
    if run.config.exists():
        before = load_config(TrainConfig, run.config)
        if changed(before, epochs=config.epochs, workers=config.workers) != config:
            raise ConfigError(f"{run.config}: the run was started with another config; use that one, or a new --out")
    checkpoint = load_checkpoint(run.last)
    if checkpoint["place"]["epoch"] > config.epochs:
        done = checkpoint["place"]["epoch"]
        raise ConfigError(f"{run.last}: has {done} epochs already, more than the {config.epochs} asked for")
    return checkpoint


@contextmanager
def _first_process_first(fabric: Fabric) -> Iterator[None]:
    """Let the first process build what all of them then open."""
    if not fabric.is_global_zero:
        fabric.barrier()
    yield
    if fabric.is_global_zero:
        fabric.barrier()


@contextmanager
def _memory_advice(config: TrainConfig) -> Iterator[None]:
    """Turn a lack of memory into a sentence that says what to change."""
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
