"""How near the networks come to the machine's matrix-product peak, by PyTorch and by OpenVINO.

    python benchmarks/network.py [--model default] [--threads 1] [--repeats 7]

Operations are counted by PyTorch's flop counter (a multiplication and an addition are two). The peak is that of a
float32 product of two 2048 x 2048 matrices. All are measured in turns, in seconds of processor time divided by the
threads, which what else the machine does disturbs least; medians, and ranges in brackets.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from vertebral.models.load import load_models
from vertebral.workflows.config import RunConfig

SIDE = 2048


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    matrix = torch.rand(SIDE, SIDE)
    work: dict[str, tuple[float, Callable[[], object]]] = {"matrix product": (2 * SIDE**3, lambda: matrix @ matrix)}
    for backend in ("torch", "openvino"):
        models = load_models(RunConfig(model=arguments.model, device="cpu", backend=backend))
        for part in (models.coarse, models.refiner):
            if part is None:
                continue
            image = torch.rand(1, part.config.network.input_count, *part.config.inference.window)
            name = f"{part.config.name}, {'x'.join(map(str, part.config.inference.window))}"
            if backend == "torch":
                with FlopCounterMode(display=False) as counter, torch.inference_mode():
                    part.network(image)
                operations = float(counter.get_total_flops())
            else:
                operations = work[f"{name}, torch"][0]
            work[f"{name}, {backend}"] = (operations, lambda network=part.network, image=image: network(image))
    seconds: dict[str, list[float]] = {name: [] for name in work}
    with torch.inference_mode():
        for turn in range(arguments.repeats + 1):
            for name, (_, call) in work.items():
                start = time.process_time()
                call()
                if turn:  # the first warms up
                    seconds[name].append((time.process_time() - start) / arguments.threads)
    peak = work["matrix product"][0] / statistics.median(seconds["matrix product"])
    print("| work | GFLOP | seconds | GFLOP/s | of the peak |")
    print("|---|---|---|---|---|")
    for name, (operations, _) in work.items():
        found = seconds[name]
        middle = statistics.median(found)
        spread = f"{middle:.3f} ({min(found):.3f}-{max(found):.3f})"
        rate = operations / middle
        print(f"| {name} | {operations / 1e9:.1f} | {spread} | {rate / 1e9:.0f} | {rate / peak:.0%} |")


if __name__ == "__main__":
    main()
