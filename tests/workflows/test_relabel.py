"""`relabel` on cuboid spines with known answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli_result import assert_one_line
from label_spines import changed, cuboid_spine, ids
from vertebral.cli import app
from vertebral.core.anatomy import LEVELS, level_named
from vertebral.core.errors import ConfigError, GeometryError, InputError, OutputExistsError
from vertebral.core.label_schemes import from_verse
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels
from vertebral.io.write import read_centroids, write_image, write_labels
from vertebral.stages.instances.by_labels import instances_from_labels
from vertebral.workflows.relabel import Pin, RelabelRequest, pinned, relabel, renumbered

NAMES = ("T11", "T12", "L1", "L2", "L3", "L4", "L5")
RIGHT = cuboid_spine(*NAMES)


def broken() -> Volume:
    """The right half of L1 called T12, all of L3 called L2."""
    array = RIGHT.array.copy()
    own = np.argwhere(array == ids("L1"))
    array[tuple(own[own[:, 0] >= 20].T)] = ids("T12")[0]
    array[array == ids("L3")[0]] = ids("L2")[0]
    return changed(RIGHT, array)


def centre_of(name: str) -> tuple[float, float, float]:
    x, y, z = RIGHT.grid.to_world(np.argwhere(RIGHT.array == ids(name)[0]).mean(0))
    return float(x), float(y), float(z)


def saved(volume: Volume, path: Path) -> Path:
    write_labels(volume, path)
    return path


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR"])
def test_a_broken_map_is_mended_on_its_own_grid(axcodes: str, tmp_path: Path) -> None:
    source = saved(broken().reoriented(axcodes), tmp_path / "case_seg-vert_msk.nii.gz")
    manifest = relabel(source, tmp_path / "out", RelabelRequest())
    result = read_labels(tmp_path / "out" / "case_seg-vert_msk.nii.gz")
    assert result.grid.matches(read_labels(source).grid)
    assert np.array_equal(result.to_ras().array, RIGHT.array)
    rows = {row["level"]: row for row in manifest["levels"]}
    assert list(rows) == list(NAMES)
    l1, l3 = (np.count_nonzero(RIGHT.array == ids(name)[0]) for name in ("L1", "L3"))
    assert rows["L1"]["was"]["L1"] + rows["L1"]["was"]["T12"] == l1
    assert rows["L1"]["voxels_changed"] == rows["L1"]["was"]["T12"]
    assert rows["L3"]["was"] == {"L2": l3}
    assert rows["L3"]["voxels_changed"] == l3
    assert rows["L5"]["voxels_changed"] == 0
    assert manifest["voxels_changed"] == l3 + rows["L1"]["was"]["T12"]
    assert manifest["voxels_dropped"] == 0
    assert manifest["dropped"] == []
    assert (
        json.loads((tmp_path / "out" / "manifest.json").read_text())["levels"]
        == json.loads(json.dumps(manifest))["levels"]
    )
    centroids = read_centroids(tmp_path / "out" / "case_seg-subreg_ctd.json", result.grid)
    assert [label for label, _ in centroids] == ids(*NAMES)
    assert centroids[2][1] == pytest.approx(centre_of("L1"), abs=1e-3)


def test_a_right_map_of_another_tool_stays_as_it_is(tmp_path: Path) -> None:
    theirs = from_verse(RIGHT.array, "totalsegmentator")
    theirs[0, 0, :5] = 52  # aorta
    source = saved(changed(RIGHT, theirs), tmp_path / "total.nii.gz")
    manifest = relabel(source, tmp_path / "out", RelabelRequest("totalsegmentator", "totalsegmentator"))
    assert manifest["voxels_changed"] == 0
    assert manifest["input"]["ignored_ids"] == {"52": 5}
    result = read_labels(tmp_path / "out" / "total_seg-vert_msk.nii.gz")
    assert np.array_equal(result.array, np.where(theirs == 52, 0, theirs))


def test_levels_by_hand(tmp_path: Path) -> None:
    source = saved(RIGHT, tmp_path / "case.nii.gz")
    by_point = relabel(source, tmp_path / "a", RelabelRequest(pins=(Pin(level_named("L2"), centre_of("L1")),)))
    by_end = relabel(source, tmp_path / "b", RelabelRequest(first=level_named("T12")))
    for manifest in (by_point, by_end):
        assert [row["level"] for row in manifest["levels"]] == ["T12", "L1", "L2", "L3", "L4", "L5", "L6"]
        assert manifest["voxels_changed"] == np.count_nonzero(RIGHT.array)
    by_last = relabel(source, tmp_path / "c", RelabelRequest(last=level_named("L4")))
    assert [row["level"] for row in by_last["levels"]] == ["T10", "T11", "T12", "L1", "L2", "L3", "L4"]
    assert by_last["options"]["last"] == "L4"


def test_the_last_vertebra_is_no_sacrum(tmp_path: Path) -> None:
    array = np.pad(RIGHT.array, ((0, 0), (0, 0), (12, 0)))
    array[14:26, 26:36, 2:13] = ids("sacrum")[0]
    instances = instances_from_labels(changed(RIGHT, array), LEVELS)
    assert pinned(instances, RelabelRequest(last=level_named("L5"))) == {6: level_named("L5")}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            RelabelRequest(pins=(Pin(level_named("L1"), (500.0, 0.0, 0.0)),)),
            r"L1=500,0,0: no vertebra within 20 mm.*\d+ mm away",
        ),
        (
            RelabelRequest(pins=(Pin(level_named("L1"), centre_of("L2")), Pin(level_named("L3"), centre_of("L2")))),
            "--set L1=.* and --set L3=.* name the same vertebra",
        ),
        (
            RelabelRequest(pins=(Pin(level_named("L1"), centre_of("L2")), Pin(level_named("L1"), centre_of("L3")))),
            "--set L1=.* and --set L1=.* contradict",
        ),
        (
            RelabelRequest(pins=(Pin(level_named("T10"), centre_of("L2")),), first=level_named("T12")),
            "--first T12 and --set T10=.* contradict",
        ),
        (RelabelRequest(first=level_named("T11"), last=level_named("T11")), "--first T11 and --last T11 contradict"),
    ],
)
def test_contradicting_levels_are_refused(request_: RelabelRequest, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pinned(instances_from_labels(RIGHT, LEVELS), request_)


def test_a_vertebra_without_a_level_is_dropped_and_reported(tmp_path: Path) -> None:
    source = saved(RIGHT, tmp_path / "case.nii.gz")
    manifest = relabel(source, tmp_path / "out", RelabelRequest(first=level_named("L4")))
    assert [row["level"] for row in manifest["levels"]] == ["L4", "L5", "L6"]
    assert len(manifest["dropped"]) == 4
    assert sum("was left out" in warning for warning in manifest["warnings"]) == 4
    assert manifest["voxels_dropped"] == sum(sum(row["was"].values()) for row in manifest["dropped"])


def test_claims_count_on_from_the_nearest_level_given_by_hand() -> None:
    instances = instances_from_labels(RIGHT, LEVELS)

    def claims(**pins: str) -> list[str]:
        moved = renumbered(instances, {int(n[1:]): level_named(name) for n, name in pins.items()})
        return [LEVELS[int(item.class_mass[1:].argmax())].name for item in moved.items]

    assert claims(_3="L2") == list(NAMES)
    assert claims(_3="L1")[:3] == ["T10", "T11", "T12"]
    assert claims(_3="L1")[4:] == ["L2", "L3", "L4"]
    # The third, L1, is T13: what lies above stays, what lies below moves up by one.
    assert claims(_2="T13")[:2] == ["T11", "T12"]
    assert claims(_2="T13")[3:] == ["L1", "L2", "L3", "L4"]
    # The second, T12, is T13: what lies above moves down by one, what lies below stays.
    assert claims(_1="T13")[:1] == ["T12"]
    assert claims(_1="T13")[2:] == ["L1", "L2", "L3", "L4", "L5"]
    # Two that differ: each moves those around it.
    assert claims(_1="T11", _5="L4")[0] == "T10"
    assert claims(_1="T11", _5="L4")[6] == "L5"
    assert renumbered(instances, {}) is instances


def test_a_level_without_a_vertebra_is_refused() -> None:
    nothing = instances_from_labels(changed(RIGHT, np.zeros_like(RIGHT.array)), LEVELS)
    with pytest.raises(ConfigError, match="--first L1: the label map contains no vertebra"):
        pinned(nothing, RelabelRequest(first=level_named("L1")))
    with pytest.raises(ConfigError, match="contains none"):
        pinned(nothing, RelabelRequest(pins=(Pin(level_named("L1"), (0.0, 0.0, 0.0)),)))


def test_an_empty_map_gives_an_empty_map_and_a_warning(tmp_path: Path) -> None:
    source = saved(changed(RIGHT, np.zeros_like(RIGHT.array)), tmp_path / "case.nii.gz")
    manifest = relabel(source, tmp_path / "out", RelabelRequest("cads"))
    assert manifest["levels"] == []
    assert "no vertebra under the ids of scheme cads" in manifest["warnings"][0]
    assert not read_labels(tmp_path / "out" / "case_seg-vert_msk.nii.gz").array.any()


def ct_of(volume: Volume, bone_hu: int, path: Path) -> Path:
    array = np.where(volume.array > 0, bone_hu, 40).astype(np.int16)
    array[:3], array[3:5], array[-3:] = -1000, 400, -100
    write_image(Volume(array, volume.affine), path)
    return path


def test_the_ct_is_there_to_check(tmp_path: Path) -> None:
    source = saved(RIGHT, tmp_path / "case_seg.nii.gz")
    bone, soft = ct_of(RIGHT, 400, tmp_path / "bone.nii.gz"), ct_of(RIGHT, 45, tmp_path / "soft.nii.gz")
    assert relabel(source, tmp_path / "a", RelabelRequest(), bone)["warnings"] == []
    assert "is 45 HU, too low for bone" in relabel(source, tmp_path / "b", RelabelRequest(), soft)["warnings"][0]
    other = ct_of(Volume(RIGHT.array[:, :, 1:], RIGHT.affine), 400, tmp_path / "other.nii.gz")
    with pytest.raises(GeometryError, match=r"other.nii.gz: its grid differs"):
        relabel(source, tmp_path / "c", RelabelRequest(), other)
    assert not (tmp_path / "c").exists()


def test_results_are_never_replaced_unasked(tmp_path: Path) -> None:
    source = saved(RIGHT, tmp_path / "case_seg-vert_msk.nii.gz")
    out = tmp_path / "out"
    relabel(source, out, RelabelRequest())
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(OutputExistsError, match="--overwrite"):
        relabel(source, out, RelabelRequest())
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    relabel(source, out, RelabelRequest(overwrite=True))
    with pytest.raises(InputError, match="overwrite the input"):
        relabel(source, tmp_path, RelabelRequest(overwrite=True))
    with pytest.raises(OutputExistsError, match="is a file"):
        relabel(source, source, RelabelRequest())


def test_a_scheme_that_cannot_hold_the_result_writes_nothing(tmp_path: Path) -> None:
    source = saved(RIGHT, tmp_path / "case.nii.gz")
    with pytest.raises(ConfigError, match="has no id for L6"):
        relabel(source, tmp_path / "out", RelabelRequest(out_scheme="monailabel", first=level_named("T12")))
    assert not (tmp_path / "out").exists()


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_the_command_says_what_it_changed(tmp_path: Path) -> None:
    source = saved(broken(), tmp_path / "case_seg-vert_msk.nii.gz")
    result = invoke("relabel", source, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "voxels changed in 2 of 7 vertebrae" in result.stdout
    assert "L2 (" in result.stdout
    assert str(tmp_path / "out" / "manifest.json") in result.stdout
    again = invoke("relabel", tmp_path / "out" / "case_seg-vert_msk.nii.gz", "--out", tmp_path / "again")
    assert "Nothing changed: 7 vertebrae." in again.stdout
    quiet = invoke("relabel", source, "--out", tmp_path / "out", "--overwrite", "--quiet")
    assert quiet.stdout == ""
    as_json = invoke("relabel", source, "--out", tmp_path / "out", "--overwrite", "--json", "--last", "L5")
    assert [row["level"] for row in json.loads(as_json.stdout)["levels"]] == list(NAMES)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--set", "L3"), "--set L3: write a level and a point"),
        (("--set", "L3=1,2"), "--set L3=1,2: write"),
        (("--set", "L3=1,2,x"), "--set L3=1,2,x: write"),
        (("--set", "L9=1,2,3"), "unknown level 'L9'"),
        (("--first", "X1"), "unknown level 'X1'"),
        (("--scheme", "mine"), "unknown scheme 'mine'"),
        (("--out-scheme", "mine"), "unknown scheme 'mine'"),
        (("--set", "L3=900,0,0"), "no vertebra within 20 mm"),
    ],
)
def test_the_command_refuses_in_one_line(words: tuple[str, ...], part: str, tmp_path: Path) -> None:
    source = saved(RIGHT, tmp_path / "case.nii.gz")
    assert_one_line(invoke("relabel", source, "--out", tmp_path / "out", *words), part)
    assert not (tmp_path / "out").exists()


def test_what_is_no_label_map_is_refused(tmp_path: Path) -> None:
    assert_one_line(invoke("relabel", tmp_path / "none.nii.gz", "--out", tmp_path / "out"), "no such file")
