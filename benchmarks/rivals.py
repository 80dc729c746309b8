"""One CT through the coarse network, from the file to a label map on its own grid: ours beside MONAI's and nnU-Net's.

    python benchmarks/rivals.py CT.nii.gz [--methods ours exact torch monai nnunet] [--repeats 3] [--threads 2]

`ours` is what `vertebral run --no-refine` does before instances are found (OpenVINO where installed, windows follow
the spine), `exact` looks at all windows, `torch` is `exact` with PyTorch, `monai` is LoadImaged, Orientationd, Spacingd
(third-order spline), ScaleIntensityRanged, sliding_window_inference (Gaussian, the same window and overlap) and
Invertd, with the same network. `nnunet` is nnU-Net v2's own predictor (where installed) with its usual resampling, at
the same spacing, window and step and without mirroring; it gets a network of the same kind and size without training,
so only its time and memory count. The others name a voxel by the network's best class. Each runs in a process of its
own; imports and weights are loaded before the clock starts. Memory is the peak of the process less what it held then.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
Work = Callable[[], Labels]


def ours(ct: Path, backend: str, exact: bool) -> Work:
    """Our path; nearest voxel on the way back, as MONAI's."""
    from vertebral.core.anatomy import level_named
    from vertebral.core.volume import Volume
    from vertebral.io.ct.read import read_scan
    from vertebral.models.load import load_models
    from vertebral.stages.inference import infer
    from vertebral.stages.preprocess import prepare
    from vertebral.workflows.config import RunConfig

    models = load_models(RunConfig(device="cpu", backend=backend, refine=False))
    config = models.coarse.config
    levels = tuple(level_named(name) for name in config.network.levels)

    def work() -> Labels:
        scan = read_scan(ct)
        prepared = prepare(scan.volume, config.preprocess)
        evidence = infer(
            prepared,
            models.coarse.network,
            config.inference,
            levels,
            models.device,
            offsets=config.network.offsets,
            follow=not exact,
        )
        ids = np.array([0, *(level.verse_id for level in levels)], np.uint8)
        found, ras = ids[evidence.first], scan.volume.to_ras().grid
        for axis in range(3):
            positions = np.arange(ras.shape[axis]) * ras.spacing_mm[axis] / config.preprocess.spacing_mm
            found = found.take(np.minimum(np.rint(positions).astype(int), found.shape[axis] - 1), axis=axis)
        return Volume(found, ras.affine).reoriented(scan.volume.grid.axcodes).array

    return work


def monai(ct: Path) -> Work:
    """MONAI's dictionary transforms around its sliding window."""
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.inferers.utils import sliding_window_inference
    from monai.transforms import (
        Compose,
        EnsureChannelFirstd,
        Invertd,
        LoadImaged,
        Orientationd,
        ScaleIntensityRanged,
        Spacingd,
    )

    from vertebral.core.anatomy import level_named
    from vertebral.models.weights import load_model

    model = load_model("default")
    config = model.config
    low, high = config.preprocess.window_hu
    before = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS"),
            Spacingd("image", pixdim=(config.preprocess.spacing_mm,) * 3, mode=3, padding_mode="nearest"),
            ScaleIntensityRanged("image", low, high, 0.0, 1.0, clip=True),
        ]
    )
    after = Invertd("found", before, orig_keys="image", nearest_interp=True, to_tensor=True)
    count = config.network.class_count
    ids = np.array([0, *(level_named(name).verse_id for name in config.network.levels)], np.uint8)

    def work() -> Labels:
        data = before({"image": str(ct)})
        with torch.inference_mode():
            logits = sliding_window_inference(
                data["image"].as_tensor()[None],
                config.inference.window,
                1,
                lambda values: model.network(values)[:, :count],
                overlap=config.inference.overlap,
                mode="gaussian",
            )
        data["found"] = MetaTensor(logits.argmax(1).float())
        return ids[after(data)["found"][0].numpy().round().astype(int)]

    return work


def nnunet(ct: Path) -> Work:
    """nnU-Net's predictor on plans of our spacing and window; its axes are z, y, x."""
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from vertebral.core.config import changed
    from vertebral.models.cards import find_model, read_card
    from vertebral.models.networks import build_network

    config = read_card(find_model("default")[0]).config
    network = build_network(changed(config.network, offsets=False)).eval()
    probabilities = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    resample = "resample_data_or_seg_to_shape"
    plan = {
        "data_identifier": "plans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 1,
        "patch_size": list(config.inference.window[::-1]),
        "spacing": [config.preprocess.spacing_mm] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resample,
        "resampling_fn_data_kwargs": {**probabilities, "order": 3},
        "resampling_fn_seg": resample,
        "resampling_fn_seg_kwargs": {**probabilities, "is_seg": True},
        "resampling_fn_probabilities": resample,
        "resampling_fn_probabilities_kwargs": probabilities,
        "batch_dice": False,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    plans = {
        "dataset_name": "Dataset001",
        "plans_name": "plans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": plan},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 200.0, "std": 200.0, "percentile_00_5": -100.0, "percentile_99_5": 1000.0}
        },
    }
    labels = {"background": 0, **{name: n for n, name in enumerate(config.network.levels, start=1)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    manager = PlansManager(plans)
    predictor = nnUNetPredictor(
        tile_step_size=1 - config.inference.overlap,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        network,
        manager,
        manager.get_configuration("3d_fullres"),
        [network.state_dict()],
        dataset,
        "nnUNetTrainer",
        None,
    )

    def work() -> Labels:
        image, properties = SimpleITKIO().read_images([str(ct)])
        found: Labels = predictor.predict_single_npy_array(image, properties)
        return found.transpose().astype(np.uint8)

    return work


METHODS: dict[str, Callable[[Path], Work]] = {
    "ours": lambda ct: ours(ct, "auto", False),
    "exact": lambda ct: ours(ct, "auto", True),
    "torch": lambda ct: ours(ct, "torch", True),
    "monai": monai,
    "nnunet": nnunet,
}


def measure(name: str, ct: Path, threads: int) -> tuple[float, float, float, Labels]:
    """Seconds of wall and of processor, GB more than before, labels."""
    import torch

    from vertebral.runtime.memory import peak_memory_gb, reset_peak

    torch.set_num_threads(threads)
    work = METHODS[name](ct)
    reset_peak()
    before = peak_memory_gb() or 0.0
    wall, processor = time.perf_counter(), time.process_time()
    labels = work()
    return time.perf_counter() - wall, time.process_time() - processor, (peak_memory_gb() or 0.0) - before, labels


def main() -> None:
    """Print a table: medians and ranges of all repeats, and the share of voxels with the label of the first method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:-1], choices=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    found: dict[str, list[Any]] = {name: [] for name in arguments.methods}
    for _ in range(arguments.repeats):  # in turns, so that what else the machine does is shared out
        for name in arguments.methods:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                found[name].append(pool.submit(measure, name, arguments.ct, arguments.threads).result())
    print("| method | wall (s) | processor (s) | memory (GB) | same voxels | Dice, label or none |")
    print("|---|---|---|---|---|---|")
    first = found[arguments.methods[0]][0][3]
    for name, runs in found.items():
        wall, processor, memory = (
            f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"
            for values in ([run[n] for run in runs] for n in range(3))
        )
        other = runs[0][3]
        dice = 2 * float(((first > 0) & (first == other)).sum()) / float((first > 0).sum() + (other > 0).sum())
        print(f"| {name} | {wall} | {processor} | {memory} | {(first == other).mean():.4%} | {dice:.3f} |", flush=True)


if __name__ == "__main__":
    main()
