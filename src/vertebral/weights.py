"""Model folders: `model.json` (config and provenance) with `weights.safetensors` beside it."""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vertebral.config import ModelConfig, parse_config
from vertebral.errors import ConfigError, ModelError
from vertebral.model import build_network

_CONFIG = "model.json"
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Model:
    """A network ready for inference. `sha256` is over the weights file."""

    config: ModelConfig
    network: torch.nn.Module
    sha256: str
    licence: str


def shipped_models() -> dict[str, Path]:
    """Names and folders of the models inside the package."""
    root = Path(str(resources.files("vertebral") / "models"))
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{_CONFIG}"))}


def load_model(name_or_path: str) -> Model:
    """Load a shipped model by name or a model folder by path. Raises ModelError with what can be named."""
    shipped = shipped_models()
    folder = shipped.get(name_or_path) or Path(name_or_path)
    if not (folder / _CONFIG).is_file():
        known = ", ".join(shipped) or "none"
        raise ModelError(f"model {name_or_path!r}: neither a shipped model ({known}) nor a folder with a {_CONFIG}")
    try:
        card = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        config = parse_config(ModelConfig, card["config"], str(folder / _CONFIG))
        digest = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
        state = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, ConfigError) as error:
        raise ModelError(
            f"{folder}: the model is incomplete or damaged ({error}); install or export it again"
        ) from None
    if digest != card.get("sha256"):
        raise ModelError(f"{folder / _WEIGHTS}: sha256 {digest} is not the {card.get('sha256')} of its {_CONFIG}")
    network = build_network(config.network)
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights do not fit the network of {_CONFIG} ({error})") from None
    return Model(config, network.eval(), digest, str(card.get("licence", "unknown")))


def save_model(folder: Path, config: ModelConfig, state: dict[str, torch.Tensor], provenance: dict[str, Any]) -> None:
    """Write a model folder in half precision. `provenance` (licence, data, commands, numbers) is kept as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_WEIGHTS}.tmp"
    save_file({key: value.detach().cpu().half().contiguous() for key, value in state.items()}, temporary)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    temporary.replace(folder / _WEIGHTS)
    card = {"config": config.model_dump(mode="json"), "sha256": digest, **provenance}
    draft = folder / f".{_CONFIG}.tmp"
    draft.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    draft.replace(folder / _CONFIG)
