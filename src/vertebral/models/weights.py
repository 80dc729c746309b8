"""Models with their weights: `model.json` and `weights.safetensors` in a folder, or a checkpoint of a training run."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vertebral.core.config import changed, parse_config
from vertebral.core.errors import ConfigError, ModelError
from vertebral.models.cards import (
    CARD_FILE,
    WEIGHTS_FILE,
    check_weights,
    damaged,
    find_model,
    find_refiner,
    read_card,
)
from vertebral.models.config import ModelConfig
from vertebral.models.networks import AUXILIARY, build_network
from vertebral.runtime.hashing import file_sha256

State = dict[str, torch.Tensor]

CHECKPOINT_PREFIX = "network."
CHECKPOINT_FACTS = "vertebral"


@dataclass(frozen=True)
class Model:
    """A network ready for inference. `sha256` is that of the weights file; `provenance` is the rest of the card."""

    config: ModelConfig
    network: torch.nn.Module
    sha256: str
    licence: str
    provenance: dict[str, Any] = field(default_factory=dict)


def load_model(name_or_path: str | Path) -> Model:
    """Load a model by its name (shipped or imported), from a model folder, a run folder or a checkpoint (`.ckpt`).

    A Path is never taken for a name. The network has only the head that inference needs. Raises ModelError, which names
    the fault, if there is no such model or it is damaged.
    """
    path, _ = find_model(name_or_path)
    return _load_folder(path) if path.is_dir() else _load_checkpoint(path)


def load_refiner(
    name_or_path: str | Path, config: ModelConfig, load: Callable[[Path], Model] = load_model
) -> Model | None:
    """Load the refiner of the model `name_or_path`, whose config is `config`; None if it has none.

    Raises ModelError if the refiner is missing, or is not a refiner.
    """
    path = find_refiner(name_or_path, config)
    if path is None:
        return None
    refiner = load(path)
    if not refiner.config.network.guided:
        raise ModelError(
            f"{path}: the refiner of model {config.name} is not a guided network; name another one in its {CARD_FILE}"
        )
    return refiner


def save_model(folder: Path, config: ModelConfig, state: State, provenance: dict[str, Any]) -> None:
    """Write a model folder, floating-point weights in half precision and without the heads that only training uses.

    `provenance` (licence, data, commands, scores) goes into the card unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{WEIGHTS_FILE}.tmp"
    kept = {name: value.detach().cpu() for name, value in _without_auxiliary(state).items()}
    # Integers, such as Swin's table of relative positions, would not all survive half precision.
    halved = {name: value.half() if value.is_floating_point() else value for name, value in kept.items()}
    save_file({name: value.contiguous() for name, value in halved.items()}, temporary)
    sha256 = file_sha256(temporary)
    temporary.replace(folder / WEIGHTS_FILE)
    write_card(folder, {"config": for_inference(config).model_dump(mode="json"), "sha256": sha256, **provenance})


def write_card(folder: Path, values: dict[str, Any]) -> None:
    """Write `model.json` atomically."""
    draft = folder / f".{CARD_FILE}.tmp"
    draft.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / CARD_FILE)


def for_inference(config: ModelConfig) -> ModelConfig:
    """The same model without what its network has for training only."""
    return changed(config, network=config.network.for_inference())


def _load_folder(folder: Path) -> Model:
    card = read_card(folder)
    sha256 = check_weights(card)
    try:
        state = load_file(card.weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(folder, error) from None
    return _assembled(card.config, state, sha256, card.provenance, folder)


def _load_checkpoint(path: Path) -> Model:
    """Read the weights that a training run validated and their provenance; nothing else is unpickled."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        facts = dict(content[CHECKPOINT_FACTS])
        training = dict(facts.pop("config"))
        config = parse_config(ModelConfig, training["model"], "its config")
        state = {
            name.removeprefix(CHECKPOINT_PREFIX): value
            for name, value in content["state_dict"].items()
            if name.startswith(CHECKPOINT_PREFIX)
        }
    except (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise _bad_checkpoint(path, error) from None
    except (pickle.UnpicklingError, ConfigError) as error:
        raise _bad_checkpoint(path, error) from None
    provenance = {"licence": training.get("licence", "unknown"), **facts, "training": training}
    return _assembled(config, state, file_sha256(path), provenance, path)


def _bad_checkpoint(path: Path, error: Exception) -> ModelError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ModelError(
        f"{path}: damaged, or not a checkpoint of `vertebral train` ({reason}); give another one, or the run folder"
    )


def _assembled(config: ModelConfig, state: State, sha256: str, provenance: dict[str, Any], path: Path) -> Model:
    """Load the weights, which may be in half precision, into a new float32 network."""
    config = for_inference(config)
    network = build_network(config.network)
    try:
        network.load_state_dict(_without_auxiliary(state))
    except RuntimeError as error:
        raise ModelError(
            f"{path}: the weights do not fit the network of its config ({error}); import or export it again"
        ) from None
    return Model(config, network.eval(), sha256, str(provenance.get("licence", "unknown")), provenance)


def _without_auxiliary(state: State) -> State:
    return {name: value for name, value in state.items() if AUXILIARY not in name}
