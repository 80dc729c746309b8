import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli_result import assert_one_line
from vertebral.cli import app
from vertebral.core.about import __version__
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.io.write import write_labels
from vertebral.models.config import ModelConfig
from vertebral.models.networks import UNetConfig

COMMANDS = ("run", "mesh", "sample", "phantom", "train", "evaluate", "report", "data", "models")
GROUPED = ("data download", "data index", "data split", "data prepare")
GROUPED += ("models list", "models info", "models import", "models export")
DISCLAIMER = "Research use only. Not for diagnosis."
MANIFEST = {
    "levels": [{"level": "L1", "confidence": 0.987, "volume_ml": 41.23, "touches_border": True}],
    "warnings": ["no vertebra was found between L1 and [L3]"],
    "seconds": {"read": 1.25, "infer": 2.5},
    "peak_memory_gb": 1.5,
    "outputs": [{"file": "a_L1.stl"}, {"file": "a_seg-vert_msk.nii.gz"}],
}


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def block(path: Path, level_id: int = 20) -> Path:
    array = np.zeros((8, 8, 8), np.uint8)
    array[2:6, 2:6, 2:6] = level_id
    write_labels(Volume(array, np.eye(4)), path)
    return path


@pytest.fixture
def finished_run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Put a finished run in the place of the work; what it was asked for is noted."""
    from vertebral.workflows import run as workflow

    calls: list[tuple[Any, ...]] = []

    def run(source: Path, out: Path, config: Any, progress: Any, tasks: Any) -> dict[str, Any]:
        calls.append((source, out, config))
        for share in (0.0, 0.5, 1.0):
            progress("infer", share)
        return MANIFEST

    monkeypatch.setattr(workflow, "run", run)
    return calls


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"vertebral {__version__}\n")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(words: tuple[str, ...]) -> None:
    text = " ".join(invoke(*words).output.split())
    assert DISCLAIMER in text
    assert "Example: vertebral" in text
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", (*COMMANDS, *GROUPED))
def test_help_of_each_command_has_an_example(command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"vertebral {command} " in result.stdout.split("Example")[1]


def test_run_passes_on_what_it_was_asked_for(finished_run: list[tuple[Any, ...]], tmp_path: Path) -> None:
    words = ["--levels", "T12-L1", "--device", "cpu", "--spacing-mm", 2, "--series", "1.2", "--max-memory-gb", 8]
    assert invoke("run", "a.nii", "--out", tmp_path, *words, "--overwrite").exit_code == 0
    source, out, config = finished_run[0]
    assert (source, out) == (Path("a.nii"), tmp_path)
    assert config.levels == ("T12", "T13", "L1")
    assert (config.model, config.device, config.spacing_mm) == ("default", "cpu", 2)
    assert (config.series, config.max_memory_gb, config.overwrite) == ("1.2", 8, True)


def test_run_tells_what_was_found(finished_run: list[tuple[Any, ...]]) -> None:
    result = invoke("run", "a.nii", "--out", "result")
    assert result.exit_code == 0
    for part in ("L1", "0.99", "41.2", "yes", "warning: no vertebra was found between L1 and [L3]"):
        assert part in result.stdout
    last = result.stdout.splitlines()[-4:]
    assert last == [
        f"4 s, 1.5 GB peak memory. {DISCLAIMER}",
        str(Path("result") / "a_seg-vert_msk.nii.gz"),
        str(Path("result") / "manifest.json"),
        f"{Path('result') / '*.stl'} (meshes: 1)",
    ]
    assert "infer" in result.stderr


def test_quiet_prints_nothing(finished_run: list[tuple[Any, ...]]) -> None:
    result = invoke("run", "a.nii", "--out", "result", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_json_is_one_document(finished_run: list[tuple[Any, ...]]) -> None:
    result = invoke("run", "a.nii", "--out", "result", "--json")
    assert json.loads(result.stdout) == {"out": "result", **MANIFEST}
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--levels", "L9"], ["'L9'", "use one of C1"]),
        (["--levels", "L5-L1"], ["'L5-L1'", "from head to tail"]),
        (["--levels", ""], ["''", "use one of C1"]),
        (["--device", "tpu"], ["--device tpu", "use auto, cpu or cuda"]),
        (["--spacing-mm", -1], ["spacing_mm", "greater than 0"]),
        (["--max-memory-gb", 0], ["max_memory_gb", "greater than 0"]),
        (["--model", "nowhere"], ["'nowhere'", "model.json"]),
    ],
)
def test_run_refuses_bad_options_in_one_line(words: list[str], parts: list[str], tmp_path: Path) -> None:
    assert_one_line(invoke("run", "a.nii", "--out", tmp_path / "out", "--quiet", *words), *parts)
    assert list(tmp_path.iterdir()) == []
    result = invoke("run", "a.nii", "--out", tmp_path / "out", "--json", *words)
    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, document["exit_code"]) == (2, "", 2)
    assert all(part in document["error"] for part in parts)


def test_run_names_a_missing_file(tmp_path: Path) -> None:
    from vertebral.models.networks import build_network
    from vertebral.models.weights import save_model

    config = ModelConfig(name="tiny", network=UNetConfig(levels=("L1",), channels=(2, 4), strides=(2,)))
    save_model(tmp_path / "tiny", config, build_network(config.network).state_dict(), {})
    missing = tmp_path / "none.nii.gz"
    result = invoke("run", missing, "--out", tmp_path / "out", "--model", tmp_path / "tiny", "--quiet")
    assert_one_line(result, str(missing), "check the path")
    result = invoke("run", missing, "--out", tmp_path / "tiny" / "model.json", "--model", tmp_path / "tiny", "--quiet")
    assert_one_line(result, "model.json: is a file", "give a folder")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (OSError(28, "No space left on device", "/tmp/a"), 1, "/tmp/a: No space left on device"),
        (OSError("odd"), 1, "odd"),
    ],
)
def test_trouble_on_the_way_is_one_line(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vertebral.workflows import run as workflow

    def run(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(workflow, "run", run)
    assert_one_line(invoke("run", "a.nii", "--out", "out", "--quiet"), text, code=code)
    result = invoke("run", "a.nii", "--out", "out", "--json")
    assert json.loads(result.stdout)["exit_code"] == result.exit_code == code


def test_a_terminated_job_tidies_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from vertebral.workflows import run as workflow

    def run(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(workflow, "run", run)
    assert_one_line(invoke("run", "a.nii", "--out", "out", "--quiet"), "interrupted", code=130)
    assert signal.getsignal(signal.SIGTERM) == before


def test_phantom_makes_a_scan_and_its_labels(tmp_path: Path) -> None:
    words = ["phantom", "--out", tmp_path / "a", "--levels", "T12-L2", "--spacing-mm", 5]
    result = invoke(*words)
    ct, labels = (tmp_path / "a" / f"phantom_{ending}.nii.gz" for ending in ("ct", "seg-vert_msk"))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [str(ct), str(labels)]
    assert read_scan(ct).volume.spacing_mm == pytest.approx((5, 5, 5))
    assert set(np.unique(read_labels(labels).array)) == {0, 19, 20, 21}
    assert_one_line(invoke(*words, "--quiet"), str(ct), "--overwrite")
    result = invoke(*words, "--overwrite", "--json")
    assert json.loads(result.stdout) == {"ct": str(ct), "labels": str(labels)}
    assert invoke(*words, "--overwrite", "--quiet").output == ""


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--spacing-mm", 9], "9.0 mm: use 0.3 to 6 mm"),
        (["--levels", "T13"], "name at least one"),
        (["--levels", "x"], "'x'"),
    ],
)
def test_phantom_refuses_in_one_line(words: list[str], part: str, tmp_path: Path) -> None:
    assert_one_line(invoke("phantom", "--out", tmp_path / "a", "--quiet", *words), part)
    assert list(tmp_path.iterdir()) == []


def test_phantom_wants_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(invoke("phantom", "--out", tmp_path / "file", "--quiet"), "file: is a file", "--out")
    below = invoke("phantom", "--out", tmp_path / "file" / "a", "--levels", "L1", "--spacing-mm", 6, "--quiet")
    assert_one_line(below, "Not a directory", code=1)


def test_train_names_what_is_wrong_in_a_config(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("modle: {name: a}\n")
    words = ["--data", tmp_path, "--out", tmp_path / "out", "--quiet"]
    assert_one_line(invoke("train", "--config", config, *words), str(config), "modle", "not permitted")
    config.write_text("model: [\n")
    assert_one_line(invoke("train", "--config", config, *words), str(config), "not a readable YAML file")
    assert_one_line(invoke("train", "--config", "nothing", *words), "nothing: no such config file")
    assert_one_line(
        invoke("train", "--config", "default", *words, "--device", "tpu"), "--device tpu", "auto, cpu or cuda"
    )
    words[1] = tmp_path / "none"
    assert_one_line(invoke("train", "--config", "default", *words), str(tmp_path / "none"), "--data")


def test_evaluate_prints_a_table_or_json(tmp_path: Path) -> None:
    prediction, reference = block(tmp_path / "p.nii.gz", 21), block(tmp_path / "r.nii.gz", 20)
    result = invoke("evaluate", "--pred", prediction, "--ref", reference)
    assert result.exit_code == 0
    assert "L1" in result.stdout
    assert "predicted, but not in the reference: L2" in result.stdout
    result = invoke("evaluate", "--pred", prediction, "--ref", reference, "--json")
    document = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    (level,) = document["levels"]
    assert {key: level[key] for key in ("name", "dice", "hd95_mm", "any_level_dice", "cut")} == {
        "name": "L1",
        "dice": 0,
        "hd95_mm": None,
        "any_level_dice": 1,
        "cut": False,
    }
    assert document["mean_hd95_mm"] is None


def test_evaluate_names_a_missing_file(tmp_path: Path) -> None:
    words = ["evaluate", "--pred", tmp_path / "none.nii.gz", "--ref", block(tmp_path / "r.nii.gz")]
    assert_one_line(invoke(*words), "none.nii.gz", "check the path")
    assert "none.nii.gz" in json.loads(invoke(*words, "--json").stdout)["error"]


def test_light_commands_start_without_torch(tmp_path: Path) -> None:
    """One process that does them all; what is imported at the start, such as by `--help`, is told apart."""
    reference = block(tmp_path / "r.nii.gz")
    code = f"""
import sys
from vertebral.cli import app

def loaded(*names):
    return [name for name in names if name in sys.modules]

def call(*words):
    try:
        app(list(words))
    except SystemExit as done:
        assert done.code == 0, words

call("--help")
assert not loaded("torch", "monai", "numpy", "scipy", "vtkmodules", "nibabel", "SimpleITK"), "--help"
call("phantom", "--out", {str(tmp_path / "a")!r}, "--levels", "L1", "--spacing-mm", "6", "--quiet")
call("evaluate", "--pred", {str(reference)!r}, "--ref", {str(reference)!r})
assert not loaded("torch", "monai", "lightning_fabric"), "phantom, evaluate"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
