import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tiny_run import CONFIG, SPACING_MM, perfect_inference, stub_preview
from vertebral.cli import app
from vertebral.core.about import __version__
from vertebral.core.anatomy import BY_NAME, parse_levels
from vertebral.core.config import PreprocessConfig
from vertebral.core.errors import (
    ConfigError,
    InputError,
    ModelError,
    OutputExistsError,
    ReadError,
    RenderError,
    VertebralError,
)
from vertebral.core.records import Evidence, Prepared
from vertebral.core.volume import Volume
from vertebral.data.phantom import Phantom, make_phantom
from vertebral.evaluation.evaluate import evaluate
from vertebral.evaluation.metrics import dice
from vertebral.io import result_folder
from vertebral.io.ct.read import read_labels
from vertebral.io.write import atomic_write, read_centroids, write_image, write_labels
from vertebral.models.config import InferenceConfig, ModelConfig
from vertebral.models.mirrored import Mirrored
from vertebral.models.networks import UNetConfig, build_network
from vertebral.models.weights import save_model
from vertebral.runtime.forked_tasks import ForkedTasks
from vertebral.stages.reconstruct import ReconstructRules
from vertebral.stages.rules import StageRules
from vertebral.workflows import run as workflow
from vertebral.workflows import write_result as writer
from vertebral.workflows.config import RunConfig
from vertebral.workflows.run import run

STAGES = [
    "load model",
    "read",
    "prepare",
    "infer",
    "instances",
    "identify",
    "restore",
    "reconstruct",
    "measure",
    "write",
    "preview",
    "report",
]
OUTPUTS = ["L1.stl", "L2.stl", "T12.stl", "measurements.csv", "measurements.json", "occupancy.npz", "preview.png"]
OUTPUTS += ["seg-subreg_ctd.json", "seg-vert_msk.nii.gz", "spine.glb"]
PAGE = "report.html"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    save_model(folder, CONFIG, build_network(CONFIG.network).state_dict(), {"licence": "CC0-1.0"})
    return str(folder)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(parse_levels("T12,L1,L2"), SPACING_MM)


@pytest.fixture
def scan(tmp_path: Path, phantom: Phantom, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CT whose vertebrae the network finds without fault, and a picture that takes no time."""
    monkeypatch.setattr(workflow, "infer", perfect_inference(phantom.labels))
    monkeypatch.setattr(writer, "preview", stub_preview)
    path = tmp_path / "case_ct.nii.gz"
    write_image(phantom.ct, path)
    return path


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_everything_is_written_and_listed(scan: Path, model: str, phantom: Phantom, tmp_path: Path) -> None:
    out = tmp_path / "new" / "result"
    manifest = run(scan, out, RunConfig(model=model))
    stem = "case"
    listed = {row["file"]: row["sha256"] for row in manifest["outputs"]}
    assert sorted(listed) == sorted([PAGE, *(f"{stem}_{ending}" for ending in OUTPUTS)])
    on_disk = files_in(out)
    del on_disk["manifest.json"]
    assert on_disk == listed
    assert all((out / row["file"]).stat().st_size == row["bytes"] for row in manifest["outputs"])
    labels = read_labels(out / f"{stem}_seg-vert_msk.nii.gz")
    assert labels.array.dtype == np.uint8
    assert dice(labels.array > 0, phantom.labels.array > 0) > 0.98
    centroids = dict(read_centroids(out / f"{stem}_seg-subreg_ctd.json", phantom.ct.grid))
    for level in parse_levels("T12,L1,L2"):
        voxels = np.argwhere(phantom.labels.array == level.verse_id)
        assert centroids[level.verse_id] == pytest.approx(phantom.ct.grid.to_world(voxels.mean(0)), abs=2)


def test_the_manifest_tells_all(scan: Path, model: str, tmp_path: Path) -> None:
    manifest = run(scan, tmp_path / "out", RunConfig(model=model, device="cpu"))
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(manifest))
    assert str(tmp_path) not in json.dumps({key: manifest[key] for key in manifest if key != "options"})
    assert manifest["disclaimer"] == "Research use only. Not for diagnosis."
    assert manifest["input"]["name"] == "case"
    assert manifest["input"]["sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert manifest["input"]["orientation"] == "RAS"
    assert manifest["input"]["spacing_mm"] == pytest.approx((SPACING_MM,) * 3)
    assert manifest["versions"]["vertebral"] == __version__
    assert {"python", "torch", "monai", "numpy"} <= set(manifest["versions"])
    weights = Path(model) / "weights.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert manifest["model"] == {"name": "tiny", "sha256": digest, "licence": "CC0-1.0"}
    assert manifest["preprocess"] == CONFIG.preprocess.model_dump(mode="json")
    assert manifest["options"] == RunConfig(model=model, device="cpu").model_dump(mode="json")
    assert manifest["device"] == "cpu"
    assert list(manifest["seconds"]) == STAGES
    assert manifest["warnings"] == []
    rows = manifest["levels"]
    assert [row["level"] for row in rows] == ["T12", "L1", "L2"]
    assert [row["verse_id"] for row in rows] == [19, 20, 21]
    for row in rows:
        assert 0.8 < row["confidence"] <= 1
        assert 0 <= row["quality"] <= 1 and isinstance(row["needs_review"], (list, tuple))
        assert 10 < row["volume_ml"] < 100
        assert row["mesh"]["watertight"]
        assert row["mesh"]["manifold"]
        assert row["mesh"]["volume_ml"] == pytest.approx(row["volume_ml"], rel=0.05)


def test_progress_follows_the_stages(scan: Path, model: str, tmp_path: Path) -> None:
    calls: list[tuple[str, float]] = []
    run(scan, tmp_path / "out", RunConfig(model=model), progress=lambda name, share: calls.append((name, share)))
    assert list(dict.fromkeys(name for name, _ in calls)) == STAGES
    assert [share for name, share in calls if name == "infer"] == [0.0, 0.5, 1.0]
    assert all([share for other, share in calls if other == name][-1] == 1.0 for name in STAGES)


@pytest.mark.parametrize(
    ("axcodes", "spacing_mm"), [("LPS", 4.0), ("SAR", 4.0), ("IRP", (3.0, 3.5, 5.0)), ("PLI", (4.0, 4.0, 6.0))]
)
def test_labels_lie_on_the_grid_of_the_input(
    axcodes: str, spacing_mm: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_phantom(parse_levels("T12,L1"), spacing_mm)
    ct, labels = made.ct.reoriented(axcodes), made.labels.reoriented(axcodes)
    monkeypatch.setattr(workflow, "infer", perfect_inference(labels))
    monkeypatch.setattr(writer, "preview", stub_preview)
    write_image(ct, tmp_path / "case.nii")
    manifest = run(tmp_path / "case.nii", tmp_path / "out", RunConfig(model=model))
    assert manifest["input"]["orientation"] == axcodes
    found = read_labels(tmp_path / "out" / "case_seg-vert_msk.nii.gz")
    assert found.array.shape == ct.array.shape
    np.testing.assert_allclose(found.affine, ct.affine, atol=1e-4)
    limit = 0.97 if spacing_mm == SPACING_MM else 0.8
    for level in parse_levels("T12,L1"):
        assert dice(found.array == level.verse_id, labels.array == level.verse_id) > limit
    records = json.loads((tmp_path / "out" / "case_seg-subreg_ctd.json").read_text())
    assert records[0]["direction"] == list(axcodes)
    for record in records[1:]:
        expected = np.argwhere(labels.array == record["label"]).mean(0)
        assert [record[axis] for axis in "XYZ"] == pytest.approx(expected, abs=1)


def test_results_are_not_replaced_unless_asked(scan: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(scan, out, RunConfig(model=model))
    (out / "notes.txt").write_text("mine")
    before = files_in(out)
    with pytest.raises(OutputExistsError, match=r"out: already holds results; add --overwrite"):
        run(scan, out, RunConfig(model=model))
    assert files_in(out) == before
    manifest = run(scan, out, RunConfig(model=model, overwrite=True, levels=("L1",)))
    expected = {row["file"] for row in manifest["outputs"]} | {"manifest.json", "notes.txt"}
    assert set(files_in(out)) == expected  # the meshes of T12 and L2 are gone
    assert not any("T12" in name or "L2" in name for name in expected)


@pytest.mark.parametrize("content", ["no json", "[]", '{"outputs": [{"file": ".."}, {"file": "../case_ct.nii.gz"}]}'])
def test_overwriting_a_strange_manifest_removes_nothing_else(
    content: str, scan: Path, model: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(content)
    (out / "notes.txt").write_text("mine")
    run(scan, out, RunConfig(model=model, overwrite=True))
    assert scan.exists()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_reference_beside_the_scan_is_not_replaced(
    scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "case_seg-vert_msk.nii.gz"
    reference.write_text("reference")
    monkeypatch.setattr(workflow, "infer", None)  # refused before the work starts
    with pytest.raises(OutputExistsError, match=r"case_seg-vert_msk\.nii\.gz: already exists; add --overwrite"):
        run(scan, tmp_path, RunConfig(model=model))
    assert set(files_in(tmp_path)) == {"case_ct.nii.gz", reference.name}


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (workflow, "load_models", VertebralError("broken")),
        (workflow, "infer", KeyboardInterrupt()),
        (workflow, "reconstruct", RuntimeError("broken")),
        (workflow, "measure", RuntimeError("broken")),
        (writer, "write_glb", KeyboardInterrupt()),
        (result_folder, "write_json", VertebralError("broken")),
    ],
)
def test_a_failed_run_leaves_no_trace(
    module: Any,
    name: str,
    error: BaseException,
    scan: Path,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(type(error)):
        run(scan, tmp_path / "new" / "out", RunConfig(model=model))
    assert set(files_in(tmp_path)) == {scan.name}


def test_a_failed_run_leaves_earlier_results(
    scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(scan, out, RunConfig(model=model))
    before = files_in(out)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device", str(out / "case_spine.glb"))

    monkeypatch.setattr(writer, "write_glb", full_disk)
    with pytest.raises(VertebralError, match=r"out: .*No space left on device.*choose another --out") as caught:
        run(scan, out, RunConfig(model=model, overwrite=True))
    assert caught.value.exit_code == 1
    assert files_in(out) == before


def test_out_must_be_a_folder_that_can_be_made(scan: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="file: is a file; give a folder as --out"):
        run(scan, tmp_path / "file", RunConfig(model=model))
    with pytest.raises(InputError, match=r"cannot be written to .*choose another --out"):
        run(scan, tmp_path / "file" / "out", RunConfig(model="none"))  # told before the model is looked for


def test_unreadable_input_is_named(model: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"none\.nii\.gz"):
        run(tmp_path / "none.nii.gz", tmp_path / "out", RunConfig(model=model))
    assert list(tmp_path.iterdir()) == []


def test_with_two_processors_the_results_are_the_same(
    scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for processors in (1, 2):
        with ForkedTasks(processors) as tasks:
            run(scan, tmp_path / str(processors), RunConfig(model=model), tasks=tasks)
        made.append(files_in(tmp_path / str(processors)))
    for files in made:
        del files["manifest.json"], files[PAGE]  # these tell how long it took
    assert made[0] == made[1]
    assert len(made[0]) > 5


@pytest.mark.skipif(sys.platform != "linux", reason="copies are forked on Linux only")
def test_what_a_killed_copy_left_is_no_result(
    scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.getpid()

    def killed(labels: Volume, path: Path) -> None:
        if os.getpid() != here:
            with atomic_write(path) as draft:
                draft.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        write_labels(labels, path)

    monkeypatch.setattr(writer, "write_labels", killed)
    with ForkedTasks(2) as tasks:
        manifest = run(scan, tmp_path / "out", RunConfig(model=model), tasks=tasks)
    assert {row["file"] for row in manifest["outputs"]} | {"manifest.json"} == {*files_in(tmp_path / "out")}
    assert not [name for name in files_in(tmp_path / "out") if name.startswith(".")]
    assert read_labels(tmp_path / "out" / "case_seg-vert_msk.nii.gz").array.any()


def test_overlap_and_mirror_are_heeded(scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    perfect = workflow.infer

    def watched(
        prepared: Prepared, network: torch.nn.Module, config: InferenceConfig, *rest: Any, **more: Any
    ) -> Evidence:
        seen.append((config.overlap, isinstance(network, Mirrored)))
        return perfect(prepared, network, config, *rest, **more)

    monkeypatch.setattr(workflow, "infer", watched)
    run(scan, tmp_path / "as the model says", RunConfig(model=model))
    run(scan, tmp_path / "as asked", RunConfig(model=model, overlap=0.6, mirror=True))
    assert seen == [(InferenceConfig().overlap, False), (0.6, True)]


def test_what_is_too_large_for_a_vertebra_has_no_surface(
    scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(scan, tmp_path / "whole", RunConfig(model=model))
    sizes = {row["level"]: row["volume_ml"] for row in whole["levels"]}
    largest = max(sizes, key=lambda name: sizes[name])
    segment, least = workflow.segment, ReconstructRules(max_vertebra_ml=sizes[largest] - 0.001)
    strict = StageRules(reconstruct=least)
    monkeypatch.setattr(workflow, "segment", lambda *args: segment(*args, rules=strict))
    manifest = run(scan, tmp_path / "out", RunConfig(model=model))
    assert manifest["rules"]["reconstruct"]["changed"] == {"max_vertebra_ml": least.max_vertebra_ml}
    assert whole["rules"]["reconstruct"]["changed"] == manifest["rules"]["identify"]["changed"] == {}
    assert [row["level"] for row in manifest["levels"] if row["mesh"] is None] == [largest]
    assert manifest["warnings"] == [
        f"{largest}: {sizes[largest]:.0f} ml is too large for a vertebra: no surface was made; do not trust this result"
    ]
    assert {*files_in(tmp_path / "whole")} - {*files_in(tmp_path / "out")} == {f"case_{largest}.stl"}


@pytest.mark.parametrize(
    ("levels", "found", "note"),
    [
        (("L1", "L5"), ["L1"], ["requested levels not found: L5"]),
        (("T12", "T13", "L1"), ["T12", "L1"], []),  # a range passes T13, which most people lack
        (("T13", "C7"), [], ["requested levels not found: T13, C7"]),
    ],
)
def test_only_the_levels_that_were_asked_for(
    levels: tuple[str, ...], found: list[str], note: list[str], scan: Path, model: str, tmp_path: Path
) -> None:
    manifest = run(scan, tmp_path / "out", RunConfig(model=model, levels=levels))
    assert [row["level"] for row in manifest["levels"]] == found
    assert manifest["warnings"] == note
    labels = read_labels(tmp_path / "out" / "case_seg-vert_msk.nii.gz")
    assert set(np.unique(labels.array)) == {0, *(BY_NAME[name].verse_id for name in found)}
    assert (tmp_path / "out" / "case_spine.glb").exists() == bool(found)


@pytest.mark.parametrize("error", [RenderError("broken"), ValueError("broken"), OSError("broken")])
def test_without_a_picture_the_results_are_still_there(
    error: Exception, scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(scan: Volume, labels: Volume, surfaces: object, path: Path, title: str) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(writer, "preview", fail)
    manifest = run(scan, tmp_path / "out", RunConfig(model=model))
    assert manifest["warnings"] == [
        f"case_preview.png was not written ({type(error).__name__}: broken); the other results are complete"
    ]
    assert len(manifest["levels"]) == 3
    assert not (tmp_path / "out" / "case_preview.png").exists()


def test_without_a_page_the_results_are_still_there(
    scan: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(writer, "page_volumes", fail)
    manifest = run(scan, tmp_path / "out", RunConfig(model=model))
    assert manifest["warnings"] == [
        "report.html was not written (RuntimeError: broken); the other results are complete"
    ]
    assert len(manifest["levels"]) == 3
    assert not (tmp_path / "out" / PAGE).exists()


def test_another_spacing_is_warned_of(scan: Path, model: str, tmp_path: Path) -> None:
    manifest = run(scan, tmp_path / "out", RunConfig(model=model, spacing_mm=5))
    assert manifest["warnings"] == ["run at 5 mm, but model tiny was trained at 4 mm: results may be worse"]
    assert manifest["preprocess"]["spacing_mm"] == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_is_not_replaced_in_silence(scan: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device cuda.*use --device cpu or auto"):
        run(scan, tmp_path / "out", RunConfig(model=model, device="cuda"))


def test_a_scan_without_a_spine(scan: Path, model: str, phantom: Phantom, tmp_path: Path, monkeypatch: Any) -> None:
    nothing = Volume(np.zeros_like(phantom.labels.array), phantom.labels.affine)
    monkeypatch.setattr(workflow, "infer", perfect_inference(nothing))
    done = CliRunner().invoke(app, ["run", str(scan), "--out", str(tmp_path / "out"), "--model", model, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["levels"] == []
    assert json.loads(done.stdout)["warnings"] == ["no vertebrae were found"]
    labels = read_labels(tmp_path / "out" / "case_seg-vert_msk.nii.gz")
    assert labels.array.shape == phantom.ct.array.shape
    assert not labels.array.any()
    assert read_centroids(tmp_path / "out" / "case_seg-subreg_ctd.json", phantom.ct.grid) == []
    assert sorted(files_in(tmp_path / "out")) == [
        "case_measurements.csv",
        "case_measurements.json",
        "case_preview.png",
        "case_seg-subreg_ctd.json",
        "case_seg-vert_msk.nii.gz",
        "manifest.json",
        PAGE,
    ]


def test_noise_as_evidence_gives_results(
    model: str, phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained network: all stages with their own code but the picture."""
    monkeypatch.setattr(writer, "preview", stub_preview)
    part = (slice(28, 52), slice(4, 36), slice(0, 24))
    write_image(phantom.ct.cropped(part), tmp_path / "part.nii.gz")
    manifest = run(tmp_path / "part.nii.gz", tmp_path / "out", RunConfig(model=model))
    large = [row["level"] for row in manifest["levels"] if row["volume_ml"] > 200]
    assert [warning.split(":")[0] for warning in manifest["warnings"] if "too large" in warning] == large != []
    labels = read_labels(tmp_path / "out" / "part_seg-vert_msk.nii.gz")
    assert {BY_NAME[row["level"]].verse_id for row in manifest["levels"]} >= set(np.unique(labels.array)) - {0}


def test_a_model_of_two_classes_gives_the_spine_as_a_whole(scan: Path, phantom: Phantom, tmp_path: Path) -> None:
    network = CONFIG.network.model_copy(update={"levels": ("spine",)})
    config = CONFIG.model_copy(update={"network": network})
    save_model(tmp_path / "binary", config, build_network(network).state_dict(), {})
    manifest = run(scan, tmp_path / "out", RunConfig(model=str(tmp_path / "binary")))
    (row,) = manifest["levels"]
    assert row["level"] == "spine" and row["mesh"]["watertight"]
    assert (tmp_path / "out" / "case_spine.stl").exists()
    write_labels(phantom.labels, tmp_path / "truth.nii.gz")
    scores = evaluate(tmp_path / "out" / "case_seg-vert_msk.nii.gz", tmp_path / "truth.nii.gz")
    assert scores.spine.dice is not None and scores.spine.dice > 0.98
    assert scores.levels == () and scores.extra == ()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and, beside it, its refiner of 2 mm; weights at random."""
    root = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    coarse = CONFIG.model_copy(update={"refiner": "tiny-refiner"})
    save_model(root / "tiny", coarse, build_network(coarse.network).state_dict(), {"licence": "CC0-1.0"})
    network = UNetConfig(levels=("spine",), guided=True, channels=(2, 4), strides=(2,), residual_units=1)
    fine = ModelConfig(
        name="tiny-refiner",
        network=network,
        preprocess=PreprocessConfig(spacing_mm=2.0),
        inference=InferenceConfig(window=(48, 48, 32)),
    )
    save_model(root / "tiny-refiner", fine, build_network(network).state_dict(), {"licence": "CC0-1.0"})
    return root


def test_a_model_with_a_refiner_is_refined(scan: Path, pair: Path, tmp_path: Path) -> None:
    manifest = run(scan, tmp_path / "out", RunConfig(model=str(pair / "tiny")))
    assert list(manifest["seconds"]) == [*STAGES[:5], "refine", *STAGES[5:]]
    digest = hashlib.sha256((pair / "tiny-refiner" / "weights.safetensors").read_bytes()).hexdigest()
    assert manifest["refiner"] == {"name": "tiny-refiner", "sha256": digest, "licence": "CC0-1.0"}
    assert [row["level"] for row in manifest["levels"]] == ["T12", "L1", "L2"]


def test_refining_can_be_left_out(scan: Path, pair: Path, model: str, tmp_path: Path) -> None:
    coarse = run(scan, tmp_path / "out", RunConfig(model=str(pair / "tiny"), refine=False))
    assert coarse["refiner"] is None and list(coarse["seconds"]) == STAGES
    assert run(scan, tmp_path / "other", RunConfig(model=model))["refiner"] is None
    words = ["run", str(scan), "--out", str(tmp_path / "cli"), "--model", str(pair / "tiny"), "--no-refine", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["refiner"] is None


def test_a_refiner_does_not_run_alone(scan: Path, pair: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tiny-refiner: is a refiner, which cannot find"):
        run(scan, tmp_path / "out", RunConfig(model=str(pair / "tiny-refiner")))
