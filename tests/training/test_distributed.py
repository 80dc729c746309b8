"""Two processes on this machine (gloo), against one with the same batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from vertebral.training.config import TrainConfig
from vertebral.training.run_folder import RunFolder
from vertebral.training.train import make_fabric, train

BETA = 0.9  # AdamW's first momentum after one step is (1 - beta) times the gradient


def one_step(batch: int) -> TrainConfig:
    network = {"kind": "resunet", "levels": ["L1", "L2"], "channels": [4, 8], "strides": [2], "residual_units": 1}
    model = {
        "name": "micro",
        "network": network,
        "preprocess": {"spacing_mm": 4.0},
        "inference": {"window": [16, 16, 16]},
    }
    return TrainConfig.model_validate(
        {
            "model": model,
            "data": {"kind": "scans", "patches_per_scan": 2},
            "patch": [16, 16, 16],
            "batch": batch,
            "epochs": 1,
            "steps_per_epoch": 1,
            "workers": 0,
        }
    )


def gradients(run: RunFolder) -> list[torch.Tensor]:
    state = torch.load(run.last, weights_only=True)["optimizer"]["state"]
    return [state[n]["exp_avg"] / (1 - BETA) for n in sorted(state)]


def test_two_processes_have_the_gradient_of_one_with_both_batches(scans: Path, tmp_path: Path) -> None:
    alone = RunFolder(tmp_path / "alone")
    train(one_step(batch=4), scans, alone, fabric=make_fabric(one_step(batch=4), "cpu"))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(one_step(batch=2).model_dump(mode="json")))
    shared = RunFolder(tmp_path / "shared")
    words = ["train", "--config", config, "--data", scans, "--out", shared.root, "--device", "cpu", "--devices", "2"]
    script = Path(sys.executable).parent / "vertebral"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([script, *words, "--quiet"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for one, two in zip(gradients(alone), gradients(shared), strict=True):
        assert torch.allclose(one, two, atol=1e-5, rtol=1e-4)
    (row, other) = alone.rows() + shared.rows()
    assert abs(row.loss - other.loss) < 1e-5
    scores = [json.loads(run.validation(1, 1).read_text()) for run in (alone, shared)]
    assert [case["case"] for case in scores[0]["cases"]] == [case["case"] for case in scores[1]["cases"]]
    assert len(scores[1]["cases"]) == 2
