"""What stays loaded from one scan to the next: the networks, and the device that they compute on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vertebral.core.errors import ConfigError, ModelError, VertebralError
from vertebral.models.backends import openvino as openvino_network
from vertebral.models.backends.openvino import as_openvino
from vertebral.models.cards import check_weights, find_model, find_refiner, read_card
from vertebral.models.config import ModelsConfig
from vertebral.models.devices import choose_device
from vertebral.models.mirrored import Mirrored
from vertebral.models.weights import Model, for_inference, load_model, load_refiner
from vertebral.runtime.hashing import file_sha256

Backend = Literal["torch", "openvino"]


@dataclass(frozen=True)
class Models:
    """A network that finds vertebrae, one that refines them (None where the run goes without), and who computes them.

    `notes` are sentences for the user.
    """

    finder: Model
    refiner: Model | None
    device: torch.device
    backend: Backend
    notes: tuple[str, ...] = ()


def load_models(config: ModelsConfig) -> Models:
    """Load what `config` asks for.

    The backend `auto` is OpenVINO on a CPU where it is installed and can run both networks, and PyTorch else. Raises
    ModelError or ConfigError for a model, a device or a backend that is not there, VertebralError where OpenVINO was
    asked for and cannot run a network.
    """
    device = choose_device(config.device)
    backend = _choose_backend(config.backend, device)
    try:
        return _load(config, device, backend)
    except ModelError:
        raise
    except VertebralError as error:
        if backend == "torch" or config.backend != "auto":
            raise
        models = _load(config, device, "torch")
        return Models(models.finder, models.refiner, device, "torch", (f"run with PyTorch instead: {error}",))


def weights_of(config: ModelsConfig) -> list[str | None]:
    """Return the SHA-256 of the weights of the coarse network and of the refiner (or None), without loading them.

    Raises ModelError for a model that does not exist or is damaged.
    """
    place, _ = find_model(config.model)
    if not place.is_dir():
        return [file_sha256(place), None]
    card = read_card(place)
    refined = find_refiner(config.model, card.config) if config.refine else None
    return [check_weights(card), check_weights(read_card(refined)) if refined is not None else None]


def load_for_openvino(name_or_path: str | Path) -> Model:
    """As `load_model`, with the network for OpenVINO; PyTorch's own is built only where it has to be converted."""
    place, _ = find_model(name_or_path)
    if not place.is_dir():
        model = load_model(place)
        return Model(
            model.config,
            as_openvino(model.config, model.sha256, lambda: model.network),
            model.sha256,
            model.licence,
            model.provenance,
        )
    card = read_card(place)
    digest, config = check_weights(card), for_inference(card.config)
    network = as_openvino(config, digest, lambda: load_model(place).network)
    return Model(config, network, digest, card.licence, card.provenance)


def _choose_backend(name: str, device: torch.device) -> Backend:
    if name == "openvino" and not openvino_network.is_installed():
        raise ConfigError("--backend openvino: it is not installed; pip install 'vertebral[openvino]', or use torch")
    if name == "openvino" and device.type != "cpu":
        raise ConfigError("--backend openvino: it is for the CPU here; add --device cpu, or use --backend torch")
    if name == "auto":
        return "openvino" if device.type == "cpu" and openvino_network.is_installed() else "torch"
    return "openvino" if name == "openvino" else "torch"


def _load(config: ModelsConfig, device: torch.device, backend: Backend) -> Models:
    load = load_for_openvino if backend == "openvino" else load_model
    finder = load(config.model)
    if finder.config.network.guided:
        raise ModelError(
            f"model {finder.config.name}: refines what another model found and finds nothing itself; "
            "give the model that names it as its refiner"
        )
    refiner = load_refiner(config.model, finder.config, load) if config.refine else None
    if config.mirror:
        finder, refiner = _mirrored(finder), refiner and _mirrored(refiner)
    return Models(finder, refiner, device, backend)


def _mirrored(model: Model) -> Model:
    return replace(model, network=Mirrored(model.network, model.config.network.offsets))
