import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.identification.__main__ import main
from benchmarks.identification.cases import SPACING_MM, Case
from benchmarks.identification.report import markdown, summarise, write_report
from benchmarks.identification.run import Outcome, run_benchmark, true_instances
from benchmarks.identification.scores import NameScore, score

from benchmarks.identification import run
from vertebral.core.anatomy import parse_levels
from vertebral.core.records import Spine, Vertebra
from vertebral.core.volume import Volume
from vertebral.io.write import write_labels
from vertebral.stages.identify import identify


@pytest.fixture(scope="module")
def case() -> Case:
    """T11-L3 as blocks of about the usual size and distance."""
    levels = [level for level in parse_levels("T11-L3") if level.name != "T13"]
    array = np.zeros((40, 44, 22 * len(levels) + 8), np.uint8)
    for n, level in enumerate(levels):
        top = array.shape[2] - 4 - 22 * n
        array[6:34, 6:38, top - 18 : top] = level.verse_id
    return Case("blocks", array, array, np.diag([SPACING_MM] * 3 + [1.0]), True, True)


def test_true_instances_are_named_right(case: Case) -> None:
    parts = true_instances(case)
    assert [int(item.class_mass.argmax()) for item in parts.items] == [18, 19, 20, 21, 22]
    found = score(identify(parts), case)
    assert (found.expected, found.right, found.found, found.named, found.true) == (5, 5, 5, 5, 5)
    assert found.all_right and found.vote_all_right and found.count_all_right and found.shifts == {0: 5}
    assert [right for _, right in found.probabilities] == [True] * 5


def test_a_shifted_spine_is_counted_as_such(case: Case) -> None:
    """Every vertebra is named one too far down, by model and claims alike."""
    claims = np.where(case.truth > 0, case.truth + 1, 0).astype(np.uint8)
    wrong = replace(case, claims=claims)
    found = score(identify(true_instances(wrong)), wrong)
    assert (found.right, found.all_right, found.vote_right, found.count_right) == (0, False, 0, 0)
    assert found.shifts == {1: 5}
    assert found.found == found.true == 5


def test_a_lost_vertebra_is_not_expected(case: Case) -> None:
    gone = replace(case, claims=np.where(case.truth == 20, 0, case.claims).astype(np.uint8))
    found = score(identify(true_instances(gone)), gone)
    assert (found.expected, found.right, found.all_right) == (4, 4, True)
    assert found.vote_all_right
    assert (found.count_right, found.count_all_right) == (2, False)


def test_nothing_named_is_nothing_right(case: Case) -> None:
    found = score(Spine((), true_instances(case).grid), case)
    assert (found.right, found.all_right, found.found, found.named, found.true) == (0, False, 0, 0, 0)


def test_two_in_one_may_carry_either_name(case: Case) -> None:
    parts = true_instances(case)
    upper, lower = parts.items[1], parts.items[2]
    box = (upper.box[0], upper.box[1], slice(lower.box[2].start, upper.box[2].stop))
    own = np.isin(case.truth[box], (19, 20)).astype(np.float32)
    both = replace(upper, occupancy=own, box=box)
    for name in ("T12", "L1"):
        items = [(parts.items[0], "T11"), (both, name), (parts.items[3], "L2"), (parts.items[4], "L3")]
        spine = Spine(tuple(Vertebra(parse_levels(x)[0], 0.9, item) for item, x in items), parts.grid)
        found = score(spine, case)
        assert found.all_right and (found.right, found.expected, found.true) == (4, 5, 4)


def row(kind: str, strength: float, right: bool, repeat: int = 0) -> Outcome:
    found = NameScore(4, 4 if right else 2, right, 4, 5, 4, {0: 2, 1: 2}, ((0.75, right),), 3, False, 1, False)
    return Outcome("one", kind, strength, repeat, 1.0, 0.25, found, found)


def test_sums_by_hand() -> None:
    first, second = summarise([row("noise", 0.2, True), row("mixture", 0.2, True), row("noise", 0.2, False, 1)])
    assert (first["kind"], first["scans"], first["vertebrae"]) == ("noise", 2, 8)
    assert (first["all_right"], first["id_rate"], first["vote_id_rate"], first["count_id_rate"]) == (
        0.5,
        0.75,
        0.75,
        0.25,
    )
    assert (first["recall"], first["precision"], first["seconds_per_spine"]) == (1.0, 0.8, 1.25)
    assert first["shifts"] == {"+0": 4, "+1": 4}
    assert first["expected_calibration_error"] == pytest.approx(0.25)
    assert second["all_right"] == 1.0


def test_files_of_a_report(tmp_path: Path) -> None:
    files = write_report([row("as it is", 0.0, True), row("noise", 0.2, False), row("mixture", 0.2, True)], tmp_path)
    assert sorted(path.name for path in files.values()) == sorted(path.name for path in tmp_path.iterdir())
    with files["rows"].open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[1]["kind"] == "noise" and rows[1]["right"] == "2" and rows[1]["given_right"] == "2"
    assert rows[1]["shifts"] == "+0:2 +1:2"
    assert files["curve"].read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(files["summary"].read_text())["rows"]) == 3
    table = markdown(summarise([row("noise", 0.2, False)])).splitlines()
    assert table[-1].startswith("| noise | 0.2 | 1 | 0.0 % | 0.0 % | 0.0 % | 0.0 % | 0.500 | 0.500 | 0.750 | 0.250 |")
    assert len({line.count("|") for line in table}) == 1


@pytest.fixture
def labels(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "_plan", lambda: [("noise", 0.2), ("lost", 0.6)])
    (tmp_path / "maps").mkdir()
    write_labels(Volume(case.truth, case.affine), tmp_path / "maps" / "blocks_seg-vert_msk.nii.gz")
    return tmp_path / "maps"


def test_the_same_seed_gives_the_same_rows(labels: Path) -> None:
    one, other = (run_benchmark([labels], 1, 3) for _ in range(2))
    assert [(r.kind, r.strength) for r in one] == [("as it is", 0.0), ("noise", 0.2), ("lost", 0.6)]
    assert [r.score for r in one] == [r.score for r in other]
    assert one[0].score.all_right


def test_the_command_writes_and_does_not_replace(
    labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(labels), "--out", str(tmp_path / "out")]
    main(command)
    groups = json.loads((tmp_path / "out" / "identify.json").read_text())["groups"]
    assert [group["kind"] for group in groups] == ["as it is", "noise", "lost"]
    assert "lost" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2 and "already exists; add --overwrite" in capsys.readouterr().err
    main([*command, "--overwrite"])


def test_no_label_maps_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(
        "none: no such file or folder; give label maps with VerSe ids, or folders of them\n"
    )
    assert not (tmp_path / "out").exists()
