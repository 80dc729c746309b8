import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli_result import assert_one_line
from vertebral.cli import app
from vertebral.core.errors import DownloadError
from vertebral.data.verse import download
from vertebral.data.verse.catalogue import load_catalogue
from vertebral.data.verse.download import BASE_URL, FetchedArchive
from vertebral.data.verse.split import load_split

COMMANDS = ("download", "index", "split")


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["data", *(str(word) for word in words)], env={"COLUMNS": "200"})


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Put a finished download in the place of the network; what it was asked for is noted."""
    calls: list[tuple[Any, ...]] = []

    def fetch(archives: Any, out: Path, base_url: str, jobs: int, progress: Any) -> list[FetchedArchive]:
        names = [archive.name for archive in archives]
        calls.append((names, out, base_url, jobs))
        for name in names:
            progress(name, "download", 5, 10)
            progress(name, "download", 10, 10)
            progress(name, "unpack", 10, 10)
        return [FetchedArchive(name, out / name, "abc", index == 1) for index, name in enumerate(names)]

    monkeypatch.setattr(download, "download", fetch)
    return calls


@pytest.fixture
def data(verse_root: Path, tmp_path: Path) -> Path:
    """A copy of VerSe 2020's layout in which one label map is missing."""
    shutil.copytree(verse_root, tmp_path / "verse")
    next((tmp_path / "verse" / "dataset-03test").rglob("sub-gl*_msk.nii.gz")).unlink()
    return tmp_path / "verse"


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(words: tuple[str, ...]) -> None:
    text = " ".join(invoke(*words).output.split())
    assert "Example: vertebral data" in text
    assert all(command in text for command in COMMANDS)


def test_help_is_light() -> None:
    code = """
import sys
from vertebral.cli import app
try:
    app(["data", "split", "--help"])
except SystemExit as done:
    assert done.code == 0
print([name for name in ("torch", "monai", "numpy", "scipy", "nibabel", "rich.progress") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_download_shows_the_licence_and_passes_on_what_was_asked(fetched: list[Any], tmp_path: Path) -> None:
    result = invoke("download", "all", "--out", tmp_path, "--subset", "training, test", "--jobs", 3)
    names = [f"dataset-verse{year}{subset}" for year in (19, 20) for subset in ("training", "test")]
    assert fetched == [(names, tmp_path, BASE_URL, 3)]
    licence, _, rest = result.stderr.partition("Liebl H")
    assert "CC BY-SA 4.0" in licence and "Sekuboyina A" in licence and "Löffler MT" in licence
    assert "dataset-verse19training download" in rest
    assert result.stdout.splitlines() == [
        str(tmp_path / names[0]),
        f"{tmp_path / names[1]} (already complete)",
        str(tmp_path / names[2]),
        str(tmp_path / names[3]),
    ]


def test_download_as_json_and_in_silence(fetched: list[Any], tmp_path: Path) -> None:
    words = ("download", "verse20", "--out", tmp_path, "--subset", "test", "--base-url", "http://here")
    result = invoke(*words, "--json")
    folder = str(tmp_path / "dataset-verse20test")
    rows = [{"archive": "dataset-verse20test", "folder": folder, "sha256": "abc"}]
    assert json.loads(result.stdout) == {"out": str(tmp_path), "archives": rows}
    assert "CC BY-SA 4.0" in result.stderr
    assert invoke(*words, "--quiet").output == ""
    assert fetched[0][2] == "http://here"


def test_download_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ("--out", tmp_path, "--quiet")
    assert_one_line(invoke("download", "verse21", *words), "'verse21'", "use verse19, verse20 or all")
    assert_one_line(invoke("download", "all", *words, "--subset", "x"), "--subset 'x'", "training,validation,test")
    assert_one_line(invoke("download", "all", *words, "--base-url", "here"), "--base-url here", "https://")

    def fail(*_: object) -> None:
        raise DownloadError("no\nserver")

    monkeypatch.setattr(download, "download", fail)
    assert_one_line(invoke("download", "all", *words), "no server", code=1)


def test_index_and_split(data: Path) -> None:
    result = invoke("index", data, "--jobs", 1)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "scans: 11 (test 3, training 5, validation 3), usable: 10; subjects: 8" in lines
    assert "problems: 1" in lines
    gl062 = "dataset-03test/rawdata/sub-gl062/sub-gl062_dir-ax_ct.nii.gz"
    assert f"  {gl062}: no label map was found" in lines
    assert lines[-1] == str(data / "catalog.json")
    assert "indexing" in result.stderr
    catalogue = load_catalogue(data / "catalog.json")

    result = invoke("split", data / "catalog.json", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "left out: 1" in result.stdout
    assert result.stdout.splitlines()[-1] == str(data / "split.json")
    split = load_split(data / "split.json", catalogue)
    assert (split.seed, len(split.test)) == (3, 2)

    result = invoke("split", data / "catalog.json", "--mode", "challenge", "--out", data / "c.json", "--json")
    document = json.loads(result.stdout)
    assert [(row["set"], row["subjects"], row["scans"]) for row in document["sets"]] == [
        ("train", 4, 5),
        ("validation", 2, 3),
        ("test", 1, 2),
    ]
    assert document["left_out"] == [{"ct": gl062, "why": "no label map was found"}]
    result = invoke("split", data / "catalog.json", "--mode", "folds", "--folds", 3, "--out", data / "f.json")
    assert "validation 3" in result.stdout
    assert len(load_split(data / "f.json", catalogue).folds) == 3


def test_index_as_json_and_in_silence(data: Path, tmp_path: Path) -> None:
    result = invoke("index", data, "--out", tmp_path / "c.json", "--jobs", 1, "--json")
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert (document["out"], document["scans"], document["usable"]) == (str(tmp_path / "c.json"), 11, 10)
    assert document["sha256"] == load_catalogue(tmp_path / "c.json").sha256
    assert invoke("index", data, "--out", tmp_path / "d.json", "--jobs", 1, "--quiet").output == ""


def test_long_lists_are_cut_short(tmp_path: Path) -> None:
    from vertebral.core.volume import Volume
    from vertebral.io.write import write_image

    (tmp_path / "images").mkdir()
    import numpy as np

    for number in range(23):
        volume = Volume(np.full((2, 2, 2), number, np.int16), np.eye(4))
        write_image(volume, tmp_path / "images" / f"s{number:02d}.nii.gz")
    write_image(volume, tmp_path / "other.nii.gz")
    lines = invoke("index", tmp_path, "--jobs", 1).stdout.splitlines()
    assert "  and 3 more" in lines
    assert lines[-3:-1] == ["images that belong to no scan: 1", "  other.nii.gz"]


def test_index_and_split_refuse_in_one_line(data: Path, tmp_path: Path) -> None:
    assert_one_line(invoke("index", tmp_path / "none", "--quiet"), "none: is not a folder", "give the folder")
    (tmp_path / "empty").mkdir()
    assert_one_line(invoke("index", tmp_path / "empty", "--quiet"), "no scan found", "images/ and labels/")
    assert_one_line(invoke("split", tmp_path / "c.json"), "c.json: no such file", "vertebral data index")
    invoke("index", data, "--jobs", 1)
    assert_one_line(invoke("index", data, "--quiet"), "catalog.json: already exists", "--overwrite")
    assert invoke("index", data, "--jobs", 1, "--overwrite", "--quiet").exit_code == 0
    catalogue = data / "catalog.json"
    assert_one_line(invoke("split", catalogue, "--mode", "best"), "--mode best", "random, challenge, folds")
    assert invoke("split", catalogue, "--quiet").output == ""
    assert_one_line(invoke("split", catalogue, "--seed", 1), "split.json: already exists", "--overwrite")
    assert invoke("split", catalogue, "--seed", 1, "--overwrite").exit_code == 0
    result = invoke("split", catalogue, "--validation", 2, "--overwrite", "--json")
    assert json.loads(result.stdout)["exit_code"] == 2
