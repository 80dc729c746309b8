"""Time and memory of one training step of the three recipes: measured on a GPU, estimated without one.

    python benchmarks/step.py [--batch 1 2 8] [--patch 160]

Measured: median step of 10 after 3, in bf16, with AdamW, and the peak of `torch.cuda.max_memory_allocated`.
Estimated: operations of forward and backward (PyTorch's flop counter) and the bytes kept for the backward
pass (saved tensors), counted at 64^3 voxels under bf16 autocast and scaled by the number of voxels, plus weights,
gradients and AdamW's two moments in float32. Time is operations over a share of the GPU's peak (`GPUS`).
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import vertebral
from vertebral.core.config import load_config
from vertebral.models.networks import build_network
from vertebral.training.config import TrainConfig
from vertebral.training.losses import supervised_loss

CONFIGS = Path(vertebral.__file__).parent / "training" / "configs"
NAMES = ("unet", "resunet", "swinunetr")
COUNTED = 64
# Name: memory (GB), dense half-precision peak (TFLOP/s, vendor's data sheet), share of it that 3D convolutions reach.
GPUS = {"T4": (16, 65, 0.2), "A100 80 GB": (80, 312, 0.2), "H200": (141, 989, 0.15)}


def one_step(config: TrainConfig, network: torch.nn.Module, patch: int, batch: int, device: str) -> torch.Tensor:
    """Forward, loss and backward on noise."""
    image = torch.rand((batch, 1, patch, patch, patch), device=device)
    classes = torch.randint(0, config.model.network.class_count, (batch, patch, patch, patch), device=device)
    with torch.autocast(device, torch.bfloat16):
        outputs = network(image)
    loss = supervised_loss(outputs, classes.to(torch.uint8), config.model.network.class_count, config.loss)
    loss.backward()
    return loss


def estimate(config: TrainConfig) -> tuple[float, float, float]:
    """TFLOP a step and a patch of 64^3, GB kept for its backward pass, GB of weights, gradients and moments."""
    network = build_network(config.model.network).train()
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        one_step(config, network, COUNTED, 1, "cpu")
    weights = sum(parameter.numel() * 4 for parameter in network.parameters())
    return counter.get_total_flops() / 1e12, (sum(kept.values()) - weights) / 1e9, 4 * weights / 1e9


def measure(config: TrainConfig, patch: int, batch: int) -> tuple[float, float]:
    """Median seconds a step, peak GB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    network = build_network(config.model.network).cuda().to(memory_format=torch.channels_last_3d).train()
    optimizer = torch.optim.AdamW(network.parameters())
    seconds = []
    for _ in range(13):
        torch.cuda.synchronize()
        start = time.perf_counter()
        one_step(config, network, patch, batch, "cuda")
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:]), torch.cuda.max_memory_allocated() / 1e9


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--patch", type=int, default=160)
    arguments = parser.parse_args()
    configs = {name: load_config(TrainConfig, CONFIGS / f"{name}.yaml") for name in NAMES}
    if torch.cuda.is_available():
        print(f"Measured on {torch.cuda.get_device_name()}\n\n| network | batch | s a step | GB |\n|---|---|---|---|")
        for name, config in configs.items():
            for batch in arguments.batch:
                try:
                    seconds, gigabytes = measure(config, arguments.patch, batch)
                    print(f"| {name} | {batch} | {seconds:.3f} | {gigabytes:.1f} |", flush=True)
                except torch.OutOfMemoryError:
                    print(f"| {name} | {batch} | - | out of memory |", flush=True)
        return
    header = " | ".join(f"{gpu}: s a step" for gpu in GPUS)
    print(f"Estimated\n\n| network | batch | TFLOP a step | GB | {header} |\n|---|---|---|---|{'---|' * len(GPUS)}")
    for name, config in configs.items():
        tflop, kept, fixed = estimate(config)
        for batch in arguments.batch:
            share = batch * (arguments.patch / COUNTED) ** 3
            gigabytes = kept * share + fixed
            cells = [
                f"{tflop * share / (peak * part):.2f}" if gigabytes < 0.95 * memory else "does not fit"
                for memory, peak, part in GPUS.values()
            ]
            print(f"| {name} | {batch} | {tflop * share:.1f} | {gigabytes:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
