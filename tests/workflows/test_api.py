"""The public API: what a notebook sees."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import vertebral
from tiny_run import CONFIG, perfect_inference, stub_preview
from vertebral.core.anatomy import parse_levels
from vertebral.core.errors import ConfigError, InputError, OutputExistsError, ReadError
from vertebral.core.records import Scan
from vertebral.core.volume import Volume
from vertebral.data.phantom import Phantom, make_phantom
from vertebral.io.ct.in_memory import scan_of, to_nibabel, to_sitk
from vertebral.io.write import write_image, write_labels
from vertebral.models.load import Models
from vertebral.models.networks import build_network
from vertebral.models.weights import save_model
from vertebral.workflows import run as workflow
from vertebral.workflows import write_result as writer

LEVELS = ["T12", "L1", "L2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(folder, CONFIG, build_network(CONFIG.network).state_dict(), {"licence": "CC0-1.0"})
    return vertebral.load_models(model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(parse_levels("T12,L1,L2"), 4.0)


@pytest.fixture(autouse=True)
def without_networks(phantom: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "infer", perfect_inference(phantom.labels))
    monkeypatch.setattr(writer, "preview", stub_preview)


def test_every_public_name_can_be_used() -> None:
    for name in vertebral.__all__:
        assert getattr(vertebral, name) is not None
    assert dir(vertebral) == vertebral.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vertebral.nothing  # noqa: B018


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, vertebral; print([n for n in ('torch', 'numpy', 'nibabel', 'typer') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_result_in_memory(
    phantom: Phantom, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    threads, running = torch.get_num_threads(), threading.active_count()
    result = vertebral.segment(phantom.ct, models=models)
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")
    assert (torch.get_num_threads(), threading.active_count()) == (threads, running)
    assert isinstance(result, vertebral.Result)
    assert [row.level for row in result.vertebrae] == LEVELS
    assert result.labels.grid.matches(phantom.ct.grid) and result.labels.array.dtype == np.uint8
    assert [surface.level.name for surface in result.surfaces] == LEVELS
    assert all(surface.to_trimesh().is_watertight for surface in result.surfaces)
    assert [row.name for row in result.measurements.vertebrae] == LEVELS
    table = result.to_pandas()
    assert list(table["level"]) == LEVELS and {"volume_ml", "height_anterior_mm", "confidence"} <= {*table.columns}
    assert list(table["volume_ml"]) == [row.volume_ml for row in result.vertebrae]
    assert {"measured_volume_ml", "measured_quality"} <= {*table.columns} and "name" not in table.columns
    np.testing.assert_array_equal(np.asarray(result.to_nibabel().dataobj), result.labels.array)
    np.testing.assert_allclose(result.to_nibabel().affine, result.labels.affine)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR"])
def test_images_of_other_libraries_are_the_same_scan(axcodes: str, phantom: Phantom) -> None:
    volume = phantom.ct.reoriented(axcodes)
    for image in (volume, to_nibabel(volume), to_sitk(volume)):
        scan = scan_of(image)
        assert scan.volume.grid.matches(volume.grid)
        np.testing.assert_array_equal(scan.volume.array, volume.array)
    assert scan_of(scan) is scan


def test_saving_is_what_run_writes(phantom: Phantom, models: Models, tmp_path: Path) -> None:
    path = tmp_path / "case_ct.nii.gz"
    write_image(phantom.ct, path)
    saved = vertebral.segment(path, models=models, levels=("L1",)).save(tmp_path / "saved")
    ran = vertebral.run(path, tmp_path / "ran", models=models, levels=("L1",))
    kept = [{row["file"]: row["sha256"] for row in made["outputs"]} for made in (saved, ran)]
    for files in kept:
        del files["report.html"]  # it tells how long it took
    assert kept[0] == kept[1] and "case_L1.stl" in kept[0]
    with pytest.raises(OutputExistsError, match="add --overwrite"):
        vertebral.run(path, tmp_path / "ran", models=models)


def test_meshes_measurements_and_scores_of_a_label_map(phantom: Phantom, tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    write_labels(phantom.labels, path)
    assert [surface.level.name for surface in vertebral.mesh(path, levels=["L1"], smooth=0)] == ["L1"]
    assert [row.name for row in vertebral.measure(to_sitk(phantom.labels), phantom.ct).vertebrae] == LEVELS
    score = vertebral.evaluate(phantom.labels, path)
    assert score.spine.dice == 1
    assert np.array_equal(vertebral.read_ct(phantom.ct).array, phantom.ct.array)


def test_a_label_map_is_renamed(phantom: Phantom) -> None:
    mended = vertebral.relabel(phantom.labels, first="L1")
    assert [vertebra.level.name for vertebra in mended.spine.vertebrae] == ["L1", "L2", "L3"]
    assert mended.labels.grid.matches(phantom.labels.grid)


def test_what_cannot_be_used_is_refused(phantom: Phantom, models: Models) -> None:
    with pytest.raises(InputError, match="type list is not an image"):
        vertebral.segment([1, 2], models=models)
    with pytest.raises(ReadError):
        vertebral.segment(phantom.labels, models=models)
    with pytest.raises(ConfigError, match="unknown level 'X1'"):
        vertebral.segment(phantom.ct, models=models, levels=("X1",))
    with pytest.raises(ConfigError, match="DICOM series"):
        vertebral.run(phantom.ct, "out", models=models, formats=("seg",))
    with pytest.raises(ConfigError, match="three finite numbers"):
        vertebral.relabel(phantom.labels, levels_at={"L1": (float("nan"), 0, 0)})
    with pytest.raises(ReadError, match="complex"):
        vertebral.read_ct(Volume(phantom.ct.array.astype(np.complex64), phantom.ct.affine))
    with pytest.raises(ConfigError, match="levls"):
        vertebral.segment(phantom.ct, models=models, levls=("L1",))
    flat: Any = nib.Nifti1Image(np.zeros((2, 2, 2, 3), np.int16), np.eye(4))  # type: ignore[no-untyped-call]
    with pytest.raises(InputError):
        vertebral.read_ct(flat)


def test_a_scan_in_memory_is_not_changed(phantom: Phantom) -> None:
    padded = phantom.ct.array.copy()
    padded[0] = -2000
    scan: Scan = scan_of(Volume(padded, phantom.ct.affine))
    assert padded[0].min() == -2000 and scan.volume.array[0].min() == -1024
