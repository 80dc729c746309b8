"""The device that runs a network, and the precision that it computes in."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from vertebral.core.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str) -> torch.device:
    """Return the device called `name` (auto, cpu or cuda). Raises ConfigError if it is missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: PyTorch finds no CUDA GPU on this machine; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def place_network(network: torch.nn.Module, device: torch.device) -> None:
    """Move `network` to `device`, in eval mode; on a GPU in channels last, on a CPU in its present memory format.

    A network in training must keep its format: its next steps would be rounded differently.
    """
    network.to(device).eval()
    if device.type == "cuda":
        network.to(memory_format=memory_format(device))  # type: ignore[call-overload]


def memory_format(device: torch.device) -> torch.memory_format:
    """Channels last on a GPU, where half-precision convolutions are faster so; PyTorch's usual order on a CPU."""
    return torch.channels_last_3d if device.type == "cuda" else torch.contiguous_format


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which to run a network."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    if precision == "auto" and device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
    if precision == "auto" and device.type == "cpu" and cpu_computes_bfloat16():
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def computes_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes bfloat16 in hardware, where training in it is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_computes_bfloat16()


def cpu_computes_bfloat16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX; without them bfloat16 is emulated and slower than float32."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(check()) for check in checks if check is not None)
