# mypy: allow-untyped-calls
"""Networks computed by OpenVINO: two to three times as fast as PyTorch on a CPU, and the same classes.

A network is traced, converted by OpenVINO's frontend for PyTorch and kept on disk in OpenVINO's own form (float32), so
that the next start needs neither MONAI nor the conversion. OpenVINO's converter program, which reports its use to its
makers, is not called.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch

from vertebral.core.errors import VertebralError
from vertebral.models.backends.agreement import check_agreement
from vertebral.models.config import ModelConfig
from vertebral.models.devices import cpu_computes_bfloat16

CACHE_VARIABLE = "VERTEBRAL_CACHE"
# Raise it when the same network would be kept in another form.
_FORM = 1
_FILE = "network.xml"


def is_installed() -> bool:
    """True where OpenVINO can be imported."""
    return find_spec("openvino") is not None


def cache_folder() -> Path:
    """Where converted networks are kept: below $VERTEBRAL_CACHE, or in the user's cache folder of this system."""
    place = os.environ.get(CACHE_VARIABLE)
    return (Path(place).expanduser() if place else Path(platformdirs.user_cache_dir("vertebral"))) / "openvino"


class OpenVinoNetwork(torch.nn.Module):
    """A converted network in the place of the original, on the CPU; it has no weights that PyTorch knows of."""

    def __init__(self, file: Path) -> None:
        """Compile `file` for as many threads as PyTorch would use; in bfloat16 where the CPU computes it."""
        super().__init__()
        core = _core()
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if cpu_computes_bfloat16() else "f32",
        }
        self._compiled = core.compile_model(core.read_model(file), "CPU", hints)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, I, J, K) to (B, channels, I, J, K); the result is overwritten by the next call."""
        values = np.ascontiguousarray(image.numpy(), np.float32)
        return torch.from_numpy(self._compiled(values, share_inputs=True, share_outputs=True)[0])


@cache
def _core() -> Any:
    """OpenVINO's core, kept until the process ends.

    Its CPU plugin gives the main thread another stack for signals and takes the memory away when it goes, even from
    another thread; the next signal that Python handles (a loader's end, Ctrl-C) would then end the process.
    """
    import openvino

    return openvino.Core()


def as_openvino(config: ModelConfig, digest: str, build: Callable[[], torch.nn.Module]) -> OpenVinoNetwork:
    """The network of weights with sha256 `digest`, from the cache; else converted from what `build` makes, and kept.

    Where nothing can be kept it is converted each time. Raises VertebralError where it cannot be converted or gives
    another class than PyTorch in more than a thousandth of voxels.
    """
    place = cache_folder() / _key(config, digest)
    if (place / _FILE).is_file():
        try:
            return OpenVinoNetwork(place / _FILE)
        except RuntimeError:
            shutil.rmtree(place, ignore_errors=True)  # damaged: make it anew
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=place.parent))
    except OSError:
        staging = Path(tempfile.mkdtemp(prefix="vertebral-"))
    try:
        network = _converted(config, build().float().cpu().eval(), staging / _FILE)
        if staging.parent == place.parent and not place.exists():
            staging.replace(place)
        return network
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _key(config: ModelConfig, digest: str) -> str:
    parts = (digest, config.network.model_dump_json(), config.inference.window, version("openvino"), _FORM)
    return sha256(repr(parts).encode()).hexdigest()[:32]


def _converted(config: ModelConfig, network: torch.nn.Module, file: Path) -> OpenVinoNetwork:
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, config.network.input_count, *config.inference.window)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to PyTorch's and OpenVINO's own developers
            traced = torch.jit.trace(network, example, check_trace=False)
            decoder = TorchScriptPythonDecoder(traced, example_input=(example,), shared_memory=False)
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
        if not config.network.takes_any_size:
            model.reshape(list(example.shape))
        openvino.save_model(model, str(file), compress_to_fp16=False)
        converted = OpenVinoNetwork(file)
        check_agreement(network, converted, config, f"OpenVINO {version('openvino')}", "use --backend torch")
    except RuntimeError as error:
        raise VertebralError(
            f"model {config.name}: OpenVINO cannot run its {config.network.kind} ({str(error).splitlines()[0]}); use "
            "--backend torch"
        ) from error
    return converted
