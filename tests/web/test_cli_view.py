import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli_result import assert_one_line
from vertebral.cli import app


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_progress_as_json_is_a_document_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vertebral.workflows import run as workflow

    def run(source: Path, out: Path, config: object, progress: Any, tasks: object) -> dict[str, Any]:
        progress("infer", 0.33333333)
        return {"levels": []}

    monkeypatch.setattr(workflow, "run", run)
    done = invoke("run", "a.nii", "--out", tmp_path / "out", "--json", "--progress-json")
    assert done.exit_code == 0 and json.loads(done.stdout)["levels"] == []
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines == [
        {"stage": "start", "share": 0.0},
        {"stage": "start", "share": 1.0},
        {"stage": "infer", "share": 0.3333},
    ]


@pytest.mark.parametrize("words", [("view", "result"), ("app", "--data", "jobs")])
def test_without_the_server_it_says_what_to_install(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert_one_line(invoke(*words, "--no-browser"), "pip install 'vertebral[app]'")
    assert list(tmp_path.iterdir()) == []


def test_app_refuses_bad_options(tmp_path: Path) -> None:
    assert_one_line(invoke("app", "--data", tmp_path / "jobs", "--device", "tpu"), "--device tpu", "auto, cpu or cuda")
    (tmp_path / "file").write_text("")
    assert_one_line(invoke("app", "--data", tmp_path / "file"), "cannot be written to", "choose another --data")


def test_view_and_app_start_without_torch() -> None:
    code = (
        "import sys, vertebral.web.view, vertebral.web.app\n"
        "assert not {'torch', 'monai', 'lightning_fabric'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
