"""Export of a model to ONNX, for programs without PyTorch: float32, its output compared with PyTorch's.

The file holds the network alone. The `model.json` next to it says the rest: resampling, window and scaling of the
input, the levels of the classes, and the sliding window (softmax and Gaussian weights: see `stages.inference`).
"""

import logging
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vertebral.core.errors import ConfigError, VertebralError
from vertebral.models.backends.agreement import Shape, check_agreement
from vertebral.models.config import ModelConfig
from vertebral.models.weights import Model
from vertebral.runtime.hashing import file_sha256
from vertebral.runtime.silence import silenced

ONNX_FILE = "model.onnx"

_OPSET = 18
_INPUT, _OUTPUT = "image", "logits"


def export_onnx(model: Model, path: Path) -> dict[str, Any]:
    """Write the network to `path`; return the facts about the file for the card.

    The file takes any batch of the model's window or, if `takes_any_size` is true of the network, any sizes that are
    multiples of its `size_factor`. If onnxruntime is installed, the file is compared with PyTorch on random input.
    Raises ConfigError if onnx or onnxscript are not installed, VertebralError if the network cannot be exported or the
    outputs differ.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"an export to ONNX needs {' and '.join(missing)}: pip install 'vertebral[onnx]'")
    config = model.config
    network = model.network.float().cpu().eval()
    any_size = config.network.takes_any_size
    _trace(network, config, path)
    sizes: list[Any] = list(config.inference.window)
    if any_size:
        sizes = [f"a multiple of {config.network.size_factor}"] * 3
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        "opset": _OPSET,
        "precision": "float32",
        "input": {
            "name": _INPUT,
            "shape": ["any", config.network.input_count, *sizes],
            "axes": ["batch", "channel", "R", "A", "S"],
        },
        "output": {"name": _OUTPUT, "channels": _channels(config)},
        "any_size": any_size,
        "check": _check(network, config, path),
    }


def _trace(network: torch.nn.Module, config: ModelConfig, path: Path) -> None:
    dim, factor = torch.export.Dim, config.network.size_factor
    shape: Shape = (2, config.network.input_count, *config.inference.window)
    sizes: dict[int, Any] = {0: dim("batch")}
    if config.network.takes_any_size:
        # The sizes of the example all differ, so that the exporter does not take two axes for one.
        shape = (2, config.network.input_count, 2 * factor, 3 * factor, 4 * factor)
        sizes |= {axis: factor * dim(name, min=2) for axis, name in enumerate("ijk", start=2)}
    try:
        with silenced("torch.onnx", logging.ERROR):  # advice for developers of PyTorch
            torch.onnx.export(
                network,
                (torch.zeros(shape),),
                path,
                dynamo=True,
                opset_version=_OPSET,
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                dynamic_shapes=(sizes,),
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise VertebralError(
            f"model {config.name}: its {config.network.kind} cannot be exported to ONNX "
            f"({str(error).splitlines()[0]}); export it as safetensors"
        ) from error


def _check(network: torch.nn.Module, config: ModelConfig, path: Path) -> list[dict[str, Any]] | None:
    """Compare the file with PyTorch; None if onnxruntime is not installed."""
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def exported(image: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {_INPUT: image.numpy()})[0])

    program = f"the ONNX file, run by onnxruntime {version('onnxruntime')},"
    return [asdict(one) for one in check_agreement(network, exported, config, program, "export it as safetensors")]


def _channels(config: ModelConfig) -> list[str]:
    """The meaning of each output channel."""
    offsets = [f"offset {axis}" for axis in "RAS"] if config.network.offsets else []
    return ["background", *config.network.levels, *offsets]
