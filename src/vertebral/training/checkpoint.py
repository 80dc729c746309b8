"""The position of a run, and reading back the checkpoint that holds it."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vertebral.core.about import __version__
from vertebral.core.errors import ModelError
from vertebral.models.weights import CHECKPOINT_PREFIX


@dataclass(frozen=True)
class RunPosition:
    """The last finished `epoch` of `phase` (both from 1; epoch 0 is the start), and the best epoch so far."""

    phase: int = 1
    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_phase: int = 0
    best_epoch: int = 0

    def waited(self) -> int:
        """Epochs of this phase since the best one."""
        return self.epoch - (self.best_epoch if self.best_phase == self.phase else 0)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises ModelError if it is damaged."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        RunPosition(**checkpoint["place"])
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path}: damaged ({reason}); start again with a new --out") from None
    return dict(checkpoint)


def network_state(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights that are validated and kept: the averaged ones if there is an average."""
    return {name.removeprefix(CHECKPOINT_PREFIX): value for name, value in checkpoint["state_dict"].items()}


def versions() -> dict[str, str]:
    """The versions that a checkpoint records."""
    return {"vertebral": __version__, "torch": str(torch.__version__)}
