import base64
import gzip
import hashlib
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from results import Made, add_page, manifest_of, phantom_parts, read_manifest, write_result
from vertebral.cli import app
from vertebral.core.errors import InputError, ReadError
from vertebral.core.volume import Grid, Volume
from vertebral.io.meshes import read_glb
from vertebral.io.result_folder import REPORT, open_complete_result
from vertebral.io.write import plain
from vertebral.stages.report import page_volumes
from vertebral.stages.report.contents import Contents
from vertebral.stages.report.html import page_html, read_page, write_page
from vertebral.stages.report.result import read_ct_of, stored_contents
from vertebral.stages.report.volumes import CT, LABELS, around_spine, as_bytes, averaged, factors_for, picked


@pytest.fixture(scope="module")
def made() -> Made:
    return phantom_parts()


def loaded(data: bytes) -> Any:
    return nib.Nifti1Image.from_bytes(gzip.decompress(data))


def test_the_box_holds_all_labels_and_a_margin() -> None:
    labels = np.zeros((40, 30, 20), np.uint8)
    labels[20, 10, 5] = 20
    labels[22, 12, 18] = 21
    volume = Volume(labels, np.diag((2.0, 1.0, 3.0, 1.0)))
    assert around_spine(volume, 5.0) == (slice(17, 26), slice(5, 18), slice(3, 20))
    empty = Volume(np.zeros_like(labels), volume.affine)
    assert around_spine(empty) == (slice(0, 40), slice(0, 30), slice(0, 20))


def test_the_finest_axis_gives_way_first() -> None:
    grid = Grid((100, 100, 50), np.diag((0.5, 0.6, 2.0, 1.0)))
    assert factors_for(grid, 500_000) == (1, 1, 1)
    assert factors_for(grid, 499_999) == (2, 1, 1)
    assert factors_for(grid, 249_999) == (2, 2, 1)
    assert factors_for(Grid((1, 1, 9), np.eye(4)), 4) == (1, 1, 2)
    assert factors_for(Grid((1, 1, 9), np.eye(4)), 3) == (1, 1, 3)


@given(st.tuples(*[st.integers(1, 3)] * 3))
def test_blocks_keep_their_place_in_the_world(factors: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[-0.7, 0, 0, 10], [0, 0.9, 0, -5], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])
    volume = Volume(rng.normal(size=(7, 8, 9)), affine)
    small = averaged(volume, factors)
    i, j, k = factors
    np.testing.assert_allclose(small.array[1, 1, 1], volume.array[i : 2 * i, j : 2 * j, k : 2 * k].mean(), rtol=1e-5)
    middle = volume.grid.to_world(np.array([i, j, k]) + (np.array(factors) - 1) / 2)
    np.testing.assert_allclose(small.grid.to_world(np.array([1, 1, 1])), middle)
    labels = picked(Volume(np.arange(7 * 8 * 9).reshape(7, 8, 9), affine), factors)
    assert labels.grid.matches(small.grid)
    assert labels.array[0, 0, 0] == (i // 2) * 72 + (j // 2) * 9 + k // 2


def test_hu_come_back_to_half_a_step() -> None:
    hu = np.array([-3000, -400, -397, 0, 41, 1385, 9000], np.float32).reshape(1, 1, 7)
    stored, slope, intercept = as_bytes(Volume(hu, np.eye(4)))
    back = stored.array.astype(float) * slope + intercept
    np.testing.assert_allclose(back.ravel(), np.clip(hu, -400, 1385).ravel(), atol=slope / 2)


def test_volumes_of_the_page_lie_where_the_scan_lies(made: Made) -> None:
    blobs = page_volumes(made.ct.reoriented("LPS"), made.labels.reoriented("LPS"))
    ct, labels = (loaded(blobs[name]) for name in (CT, LABELS))
    np.testing.assert_allclose(ct.affine, labels.affine)
    assert int(labels.header["intent_code"]) == 1002  # labels: drawn without a mix of colours between them
    values = np.asarray(labels.dataobj)
    for surface in made.surfaces:
        middle = nib.affines.apply_affine(labels.affine, np.argwhere(values == surface.level.verse_id).mean(0))
        voxels = np.argwhere(made.labels.array == surface.level.verse_id)
        np.testing.assert_allclose(middle, made.labels.grid.to_world(voxels.mean(0)), atol=0.1)
    place = np.argwhere(made.labels.array == 20)[0]
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(ct.affine), made.ct.grid.to_world(place))).astype(int)
    assert ct.dataobj[tuple(voxel)] == pytest.approx(float(made.ct.array[tuple(place)]), abs=3.6)


def test_what_json_has_no_word_for_becomes_null() -> None:
    value = {"a": [math.nan, math.inf, 1.5, np.float64("nan")], 3: (np.int64(2), np.array([1, 2]))}
    assert plain(value, finite=True) == {"a": [None, None, 1.5, None], "3": [2, [1, 2]]}


class Elements(HTMLParser):
    """Counts what a browser makes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Counter[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names[tag] += 1


EVIL = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>&\u2028'\""


def test_no_name_ends_the_script(made: Made, tmp_path: Path) -> None:
    manifest = {**manifest_of(made, EVIL, "0"), "warnings": [EVIL]}
    add_page(tmp_path, manifest, made)
    parser = Elements()
    parser.feed((tmp_path / REPORT).read_text(encoding="utf-8"))
    assert parser.names["script"] == 2 + len(read_page(tmp_path / REPORT).blobs)
    assert parser.names["img"] == 0
    assert read_page(tmp_path / REPORT).facts["name"] == EVIL


def test_the_policy_allows_the_page_and_nothing_else(made: Made, tmp_path: Path) -> None:
    out, _ = write_result(made, tmp_path)
    text = (out / REPORT).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in rules
    assert "default-src 'none'" in rules and "connect-src 'none'" in rules and "unsafe" not in rules
    assert not re.search(r'(src|href)="https?:', text)
    assert "Copyright (c) 2021, Niivue" in text  # who passes the page on passes the scripts on


def test_a_page_can_be_read_back(made: Made, tmp_path: Path) -> None:
    contents = Contents({"name": "a", "disclaimer": "b"}, {"x.mz3": b"\0\1\2", CT: bytes(range(256))})
    write_page(contents, tmp_path / REPORT)
    assert read_page(tmp_path / REPORT) == contents
    served = page_html(contents, {CT: "volumes/ct.nii"}, {"files_at": "files/"})
    assert (
        f'data-name="{CT}"' not in served
        and '"files_at":"files/"' in served
        and "connect-src 'self'" in served.replace("&#39;", "'")
    )
    (tmp_path / "other.html").write_text("<html></html>")
    with pytest.raises(ReadError, match=r"other\.html: not a report.html of `vertebral run`"):
        read_page(tmp_path / "other.html")


def test_surfaces_come_back_from_glb(made: Made, tmp_path: Path) -> None:
    out, _ = write_result(made, tmp_path, page=False)
    for before, after in zip(made.surfaces, read_glb(out / "case_spine.glb"), strict=True):
        assert (after.level, after.part) == (before.level, "")
        np.testing.assert_allclose(after.vertices_mm, before.vertices_mm, atol=1e-3)
        np.testing.assert_array_equal(after.faces, before.faces)
    (tmp_path / "no.glb").write_bytes(b"glTF nothing")
    with pytest.raises(ReadError, match=r"no\.glb: not a GLB file of"):
        read_glb(tmp_path / "no.glb")


def test_a_page_that_fails_raises_and_leaves_no_file(made: Made, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        add_page(tmp_path, {"levels": []}, made)
    assert not (tmp_path / REPORT).exists()


def test_an_unchanged_page_is_used_again_and_a_changed_one_is_not(made: Made, tmp_path: Path) -> None:
    out, _ = write_result(made, tmp_path)
    stored = stored_contents(open_complete_result(out))
    assert stored is not None and [level["name"] for level in stored.facts["levels"]] == ["T12", "L1", "L2"]
    (out / REPORT).write_text((out / REPORT).read_text().replace("T12", "T11"))
    assert stored_contents(open_complete_result(out)) is None


def test_report_makes_the_page_again(made: Made, tmp_path: Path) -> None:
    out, ct = write_result(made, tmp_path, page=False)
    done = CliRunner().invoke(app, ["report", str(out), "--quiet"])
    assert done.exit_code == 0, done.output
    bare = read_page(out / REPORT)
    assert CT not in bare.blobs and set(bare.blobs) == {"T12.mz3", "L1.mz3", "L2.mz3"}
    again = CliRunner().invoke(app, ["report", str(out), "--ct", str(ct), "--quiet"])
    assert again.exit_code == 2 and "add --overwrite" in again.stderr
    done = CliRunner().invoke(app, ["report", str(out), "--ct", str(ct), "--overwrite", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout) == {"report": str(out / REPORT)}
    assert CT in read_page(out / REPORT).blobs
    assert stored_contents(open_complete_result(out)) is not None  # the manifest lists the new page
    done = CliRunner().invoke(app, ["report", str(out), "--out", str(tmp_path / "new"), "--quiet"])
    assert done.exit_code == 0 and (tmp_path / "new" / REPORT).exists()


def test_another_ct_is_refused(made: Made, tmp_path: Path) -> None:
    out, _ = write_result(made, tmp_path / "a")
    _, other = write_result(phantom_parts("L1,L2"), tmp_path / "b", page=False)
    with pytest.raises(InputError, match="not the CT that"):
        read_ct_of(open_complete_result(out), other)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"outputs": [{"file": "../case_seg-vert_msk.nii.gz"}]}, "not a manifest"),
        ({"outputs": [{"file": "gone_seg-vert_msk.nii.gz"}]}, "but missing"),
        ({"outputs": 3}, "not a manifest"),
        ({"levels": None, "outputs": []}, "not a manifest"),
    ],
)
def test_strange_manifests_are_refused(change: dict[str, Any], part: str, made: Made, tmp_path: Path) -> None:
    out, _ = write_result(made, tmp_path, page=False)
    (out / "manifest.json").write_text(json.dumps({**read_manifest(out), **change}))
    with pytest.raises(InputError, match=part):
        open_complete_result(out)
    with pytest.raises(InputError, match=r"contains no manifest\.json"):
        open_complete_result(tmp_path)
