"""A model as ONNX, for programs without PyTorch: float32, its output checked against PyTorch's.

What stays outside the file is in `model.json` beside it: resampling, window and scaling of the input, the levels of the
classes, and the sliding window with softmax and Gaussian weights (see `inference`).
"""

import logging
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebral.core.errors import ConfigError, VertebralError
from vertebral.models.config import ModelConfig, UNetConfig
from vertebral.models.weights import Model
from vertebral.runtime.hashing import file_sha256
from vertebral.runtime.silence import hushed

ONNX_FILE = "model.onnx"

_OPSET = 18
_INPUT, _OUTPUT = "image", "logits"
_LEAST_AGREEMENT = 0.999
# A U-Net takes any size: on how large a side it is tried, so that a check takes seconds.
_LONGEST_TRIED = 64

Shape = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Agreement:
    """How the file compares with PyTorch on random input of `shape`.

    `same_class` is the share of voxels with the same class, `largest_difference` that of any output value.
    """

    shape: Shape
    same_class: float
    largest_difference: float


def export_onnx(model: Model, path: Path) -> dict[str, Any]:
    """Write the network to `path`; return what its card says of the file.

    A U-Net takes any batch and any sizes that its strides divide; Swin UNETR any batch of its own window. Where
    onnxruntime is installed the file is run on random input. Raises ConfigError where onnx or onnxscript are not
    installed, VertebralError where the network cannot be exported or the outputs differ.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"an export to ONNX needs {' and '.join(missing)}: pip install 'vertebral[onnx]'")
    config = model.config
    network = model.network.float().cpu().eval()
    any_size = isinstance(config.network, UNetConfig)
    _trace(network, config, any_size, path)
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
        "check": _check(network, config, any_size, path),
    }


def _trace(network: torch.nn.Module, config: ModelConfig, any_size: bool, path: Path) -> None:
    dim, factor = torch.export.Dim, config.network.size_factor
    shape: Shape = (2, config.network.input_count, *config.inference.window)
    sizes: dict[int, Any] = {0: dim("batch")}
    if any_size:
        # Sizes of the example all differ, lest the exporter take two axes for one.
        shape = (2, config.network.input_count, 2 * factor, 3 * factor, 4 * factor)
        sizes |= {axis: factor * dim(name, min=2) for axis, name in enumerate("ijk", start=2)}
    try:
        with hushed("torch.onnx", logging.ERROR):  # advice to its own developers
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


def _check(network: torch.nn.Module, config: ModelConfig, any_size: bool, path: Path) -> list[dict[str, Any]] | None:
    """Compare outputs, or None where onnxruntime is not installed."""
    if find_spec("onnxruntime") is None:
        return None
    found = [_compare(network, config, shape, path) for shape in _tried_shapes(config, any_size)]
    worst = min(found, key=lambda one: one.same_class)
    if worst.same_class < _LEAST_AGREEMENT:
        raise VertebralError(
            f"model {config.name}: the ONNX file gives another class than PyTorch in {1 - worst.same_class:.2%} of "
            f"voxels (onnxruntime {version('onnxruntime')}); export it as safetensors"
        )
    return [asdict(one) for one in found]


def _tried_shapes(config: ModelConfig, any_size: bool) -> list[Shape]:
    """The window and, for a network that takes any size, another one; a large window is tried in part."""
    (i, j, k), inputs = config.inference.window, config.network.input_count
    if not any_size:
        return [(1, inputs, i, j, k)]
    factor = config.network.size_factor
    longest = max(2 * factor, _LONGEST_TRIED // factor * factor)
    i, j, k = (min(max(n, 2 * factor), longest) for n in (i, j, k))
    return [(1, inputs, i, j, k), (2, inputs, 3 * factor, 2 * factor, 2 * factor)]


def _compare(network: torch.nn.Module, config: ModelConfig, shape: Shape, path: Path) -> Agreement:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = network(image).numpy()
    (theirs,) = session.run(None, {_INPUT: image.numpy()})
    count = config.network.class_count
    same = ours[:, :count].argmax(axis=1) == theirs[:, :count].argmax(axis=1)
    return Agreement(shape, float(same.mean()), float(np.abs(ours - theirs).max()))


def _channels(config: ModelConfig) -> list[str]:
    """What each channel of the output is."""
    offsets = [f"offset {axis}" for axis in "RAS"] if config.network.offsets else []
    return ["background", *config.network.levels, *offsets]
