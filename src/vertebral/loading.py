"""What stays loaded from one scan to the next: the networks, and the device that they compute on."""

from dataclasses import dataclass

import torch

from vertebral.config import RunConfig
from vertebral.errors import ModelError
from vertebral.inference import choose_device
from vertebral.weights import Model, load_model, load_refiner


@dataclass(frozen=True)
class Models:
    """A network that finds vertebrae, one that refines them (None where the run goes without), and their device."""

    finder: Model
    refiner: Model | None
    device: torch.device


def load_models(config: RunConfig) -> Models:
    """Load what `config` asks for. Raises ModelError or ConfigError for a model or a device that is not there."""
    device = choose_device(config.device)
    finder = load_model(config.model)
    if finder.config.network.guided:
        raise ModelError(
            f"model {finder.config.name}: refines what another model found and finds nothing itself; "
            "give the model that names it as its refiner"
        )
    refiner = load_refiner(config.model, finder.config) if config.refine else None
    return Models(finder, refiner, device)
