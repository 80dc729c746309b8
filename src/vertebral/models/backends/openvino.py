# mypy: allow-untyped-calls
"""Networks run by OpenVINO: two to three times as fast as PyTorch on a CPU, with the same classes.

A network is traced, converted by OpenVINO's frontend for PyTorch and cached on disk in OpenVINO's own format (float32),
so that the next start needs neither MONAI nor the conversion. OpenVINO's own telemetry is kept out, see
`_import_openvino`.
"""

import hashlib
import importlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
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
# Increase it when the same network would be cached in another form.
_FORM = 1
_FILE = "network.xml"
_TELEMETRY = "openvino_telemetry"


def is_installed() -> bool:
    """Whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


def cache_folder() -> Path:
    """The folder of converted networks: in $VERTEBRAL_CACHE, or in the user's cache folder on this system."""
    place = os.environ.get(CACHE_VARIABLE)
    return (Path(place).expanduser() if place else Path(platformdirs.user_cache_dir("vertebral"))) / "openvino"


class OpenVinoNetwork(torch.nn.Module):
    """A converted network in place of the original, on the CPU; it has no PyTorch parameters."""

    def __init__(self, file: Path) -> None:
        """Compile `file` for as many threads as PyTorch would use; in bfloat16 if the CPU computes it in hardware."""
        super().__init__()
        core = _core()
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if cpu_computes_bfloat16() else "f32",
        }
        self._compiled = core.compile_model(core.read_model(file), "CPU", hints)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, I, J, K) to (B, channels, I, J, K); the next call overwrites the result."""
        values = np.ascontiguousarray(image.numpy(), np.float32)
        return torch.from_numpy(self._compiled(values, share_inputs=True, share_outputs=True)[0])


@cache
def _core() -> Any:
    """OpenVINO's core, kept until the process ends.

    Its CPU plugin gives the main thread another signal stack and frees it when it is unloaded, even by another thread;
    the next signal that Python handles (the end of a loader process, Ctrl-C) would then crash the process.
    """
    return _import_openvino().Core()


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    `import openvino` runs its converter's package, which reports the import to a server, from a process of its own.
    Without the package `openvino_telemetry` it reports nothing: so that package is hidden meanwhile.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _TELEMETRY}
    for name in (_TELEMETRY, *hidden):
        sys.modules[name] = None  # type: ignore[assignment]  # Python then says that there is no such module
    try:
        return importlib.import_module("openvino")
    finally:
        for name in (_TELEMETRY, *hidden):
            del sys.modules[name]
        sys.modules.update(hidden)


def as_openvino(config: ModelConfig, sha256: str, build: Callable[[], torch.nn.Module]) -> OpenVinoNetwork:
    """Return the network whose weights have this `sha256` from the cache, or convert the one that `build` returns.

    The converted network is cached if the cache can be written. Raises VertebralError if it cannot be converted, or
    differs from PyTorch's (see `check_agreement`).
    """
    folder = cache_folder() / _key(config, sha256)
    if (folder / _FILE).is_file():
        try:
            return OpenVinoNetwork(folder / _FILE)
        except RuntimeError:
            shutil.rmtree(folder, ignore_errors=True)  # damaged: convert again
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    except OSError:
        staging = Path(tempfile.mkdtemp(prefix="vertebral-"))
    try:
        network = _converted(config, build().float().cpu().eval(), staging / _FILE)
        if staging.parent == folder.parent and not folder.exists():
            staging.replace(folder)
        return network
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _key(config: ModelConfig, sha256: str) -> str:
    facts = (sha256, config.network.model_dump_json(), config.inference.window, version("openvino"), _FORM)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _converted(config: ModelConfig, network: torch.nn.Module, file: Path) -> OpenVinoNetwork:
    openvino = _import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, config.network.input_count, *config.inference.window)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for developers of PyTorch and OpenVINO
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
