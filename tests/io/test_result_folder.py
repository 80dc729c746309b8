"""The owner of a result on disk: never replaces what it was not asked to, and publishes all or nothing."""

import json
from pathlib import Path

import pytest

from vertebral.core.errors import OutputExistsError, ReadError
from vertebral.io.result_folder import MANIFEST, ResultNames, open_complete_result, open_result, staging_in

LABELS = ResultNames("a").labels
FACTS = {"input": {"sha256": "1"}, "levels": [{"level": "L1"}], "warnings": [], "disclaimer": "x"}


def publish(out: Path, content: str = "new", overwrite: bool = False) -> None:
    with staging_in(out, overwrite) as staging:
        (staging.folder / LABELS).write_text(content)
        staging.publish_result(FACTS)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_result_is_published_once(tmp_path: Path) -> None:
    publish(tmp_path / "out")
    assert names(tmp_path / "out") == {LABELS, MANIFEST}
    assert open_complete_result(tmp_path / "out").is_unchanged(LABELS)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        publish(tmp_path / "out", "other")
    assert (tmp_path / "out" / LABELS).read_text() == "new"
    publish(tmp_path / "out", "other", overwrite=True)
    assert (tmp_path / "out" / LABELS).read_text() == "other"


def test_the_slower_of_two_does_not_replace_the_faster(tmp_path: Path) -> None:
    with staging_in(tmp_path) as first, staging_in(tmp_path) as second:
        for staging, content in ((first, "first"), (second, "second")):
            (staging.folder / LABELS).write_text(content)
        first.publish_result(FACTS)
        with pytest.raises(OutputExistsError):
            second.publish_result(FACTS)
    assert (tmp_path / LABELS).read_text() == "first" and names(tmp_path) == {LABELS, MANIFEST}


def test_a_folder_in_the_place_of_a_file_costs_nothing_of_an_earlier_result(tmp_path: Path) -> None:
    publish(tmp_path)
    with staging_in(tmp_path, overwrite=True) as staging:
        (staging.folder / LABELS).write_text("other")
        (staging.folder / "a_spine.glb").write_text("other")
        (tmp_path / "a_spine.glb").mkdir()
        with pytest.raises(OutputExistsError, match="is a folder"):
            staging.publish_result(FACTS)
    assert open_complete_result(tmp_path).is_unchanged(LABELS)


def test_a_foreign_manifest_removes_nothing(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"outputs": [{"file": "../elsewhere/thesis.docx"}]}))
    (tmp_path / "thesis.docx").write_text("mine")
    publish(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.docx").read_text() == "mine"


@pytest.mark.parametrize("change", [{"levels": None}, {"levels": [{"level": "Q"}]}, {"levels": [3]}, {"warnings": 5}])
def test_a_damaged_manifest_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    publish(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | change))
    assert open_result(tmp_path).labels_path == tmp_path / LABELS
    with pytest.raises(ReadError, match="missing or damaged"):
        open_complete_result(tmp_path)


def test_done_means_complete_and_made_from_the_same(tmp_path: Path) -> None:
    made_from = {"options": {"refine": True, "device": "cpu"}, "model": {"sha256": "c"}, "refiner": {"sha256": "r"}}
    with staging_in(tmp_path) as staging:
        (staging.folder / LABELS).write_text("labels")
        staging.publish_result(FACTS | made_from)
    result = open_result(tmp_path)
    assert result.is_made_from("1", {"refine": True, "device": "cuda"}, ["c", "r"])
    assert not result.is_made_from("2", {"refine": True}, ["c", "r"])
    assert not result.is_made_from("1", {"refine": False}, ["c", "r"])
    assert not result.is_made_from("1", {"refine": True}, ["c", None])
    (tmp_path / LABELS).unlink()
    assert not result.is_made_from("1", {"refine": True}, ["c", "r"])
