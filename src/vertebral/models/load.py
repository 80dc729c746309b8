"""The networks of a run, loaded once for many scans, and the device and backend that run them."""

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
    """The coarse network, its refiner (None for a run without one), and the device and backend that run them.

    `notes` are sentences for the user.
    """

    coarse: Model
    refiner: Model | None
    device: torch.device
    backend: Backend
    notes: tuple[str, ...] = ()


def load_models(config: ModelsConfig) -> Models:
    """Load the networks that `config` names.

    The backend `auto` is OpenVINO on a CPU if it is installed and can run both networks, else PyTorch. Raises
    ModelError or ConfigError for a missing model, device or backend, VertebralError if OpenVINO was requested and
    cannot run a network.
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
        return Models(
            models.coarse, models.refiner, device, "torch", (f"PyTorch was used instead of OpenVINO: {error}",)
        )


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
    """As `load_model`, with the network for OpenVINO; PyTorch's own is built only if it has to be converted."""
    path, _ = find_model(name_or_path)
    if not path.is_dir():
        model = load_model(path)
        return Model(
            model.config,
            as_openvino(model.config, model.sha256, lambda: model.network),
            model.sha256,
            model.licence,
            model.provenance,
        )
    card = read_card(path)
    sha256, config = check_weights(card), for_inference(card.config)
    network = as_openvino(config, sha256, lambda: load_model(path).network)
    return Model(config, network, sha256, card.licence, card.provenance)


def _choose_backend(name: str, device: torch.device) -> Backend:
    if name == "openvino" and not openvino_network.is_installed():
        raise ConfigError(
            "--backend openvino: not installed; pip install 'vertebral[openvino]', or use --backend torch"
        )
    if name == "openvino" and device.type != "cpu":
        raise ConfigError("--backend openvino: it runs on the CPU only; add --device cpu, or use --backend torch")
    if name == "auto":
        return "openvino" if device.type == "cpu" and openvino_network.is_installed() else "torch"
    return "openvino" if name == "openvino" else "torch"


def _load(config: ModelsConfig, device: torch.device, backend: Backend) -> Models:
    load = load_for_openvino if backend == "openvino" else load_model
    coarse = load(config.model)
    if coarse.config.network.guided:
        raise ModelError(
            f"model {coarse.config.name}: is a refiner, which cannot find vertebrae on its own; "
            "give the model that uses it"
        )
    refiner = load_refiner(config.model, coarse.config, load) if config.refine else None
    if config.mirror:
        coarse, refiner = _mirrored(coarse), refiner and _mirrored(refiner)
    return Models(coarse, refiner, device, backend)


def _mirrored(model: Model) -> Model:
    return replace(model, network=Mirrored(model.network, model.config.network.offsets))
