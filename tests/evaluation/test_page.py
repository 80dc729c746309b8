"""The report: tables by hand, a page that needs nothing else, and pictures of what they show."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blocks import AFFINE, SHAPE, save_blocks
from vertebral.core.volume import Volume
from vertebral.evaluation.page import tables
from vertebral.evaluation.settings import Settings
from vertebral.io.write import write_image
from vertebral.workflows.evaluate_folder import EvaluationRequest, evaluate_folders

TRUTH = {"T12": (24, 28), "L1": (17, 22), "L2": (10, 15)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Path]]:
    """Two models, two scans with their CT; `one` calls everything by the next name in the second scan."""
    root = tmp_path_factory.mktemp("report")
    for case in ("a<b", "c"):
        save_blocks(root / "ref" / f"{case}_seg-vert_msk.nii.gz", **TRUTH)
        write_image(Volume(np.full(SHAPE, 40, np.int16), AFFINE), root / "ref" / f"{case}_ct.nii.gz")
        shifted = {"L1": (24, 28), "L2": (17, 22), "L3": (10, 15)} if case == "c" else TRUTH
        save_blocks(root / "one" / f"{case}.nii.gz", **shifted)
        save_blocks(root / "two" / f"{case}.nii.gz", **TRUTH)
    request = EvaluationRequest(((None, root / "one"), ("a & b_2", root / "two")), root / "ref", jobs=1, worst=1)
    _, collected, files = evaluate_folders(request, Settings(), root / "out")
    return collected, files


class Page(HTMLParser):
    """What a browser would fetch, and the tags that stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("src", "href") and tag != "use"]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(report: tuple[dict[str, Any], dict[str, Path]]) -> None:
    text = report[1]["report"].read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "Research use only" in text and "a&lt;b" in text and "a<b" not in text
    assert text.count("<svg") == 3  # no manifest, so no confidences
    assert "Means over patients" in text and "does not label partly visible vertebrae" in text


def test_pictures_lie_beside_the_markdown(report: tuple[dict[str, Any], dict[str, Path]]) -> None:
    files = report[1]
    text = files["markdown"].read_text()
    links = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(links) == 4  # an example and the worst case of each model
    for link in links:
        with Image.open(files["markdown"].parent / link) as picture:
            assert picture.width == 1340
    worst = next(link for link in links if link.startswith("figures/worst_1_1"))
    with Image.open(files["markdown"].parent / worst) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    # Wrong names everywhere: the yellow of "wrong level", not the blue of "missing".
    yellow, blue = ((np.abs(colours - rgb).sum(1) < 120).sum() for rgb in ((240, 228, 66), (86, 180, 233)))
    assert yellow > 5000 and yellow > 3 * blue


def test_tables_by_hand(report: tuple[dict[str, Any], dict[str, Path]]) -> None:
    collected, files = report
    head, rows = tables.overview(collected)
    assert head[:4] == ["model", "scans", "Dice, spine", "HD95, spine (mm)"]
    assert rows[0][:6] == ["one", "2", "1.000", "0.00", "0.500", "10.50"]
    assert rows[1][1:6] == ["2", "1.000", "0.00", "1.000", "0.00"]
    # VerSe's rate: the first name of the shifted scan is 19.5 mm off and nearest to its own of those in both: a hit.
    assert rows[0][6:] == ["0.667", "0.500", "1.000", "-", "-"]
    head, rows = tables.comparison(collected["comparisons"][0])
    dice = next(row for row in rows if row[0] == "Dice, mean of levels")
    assert dice == ["Dice, mean of levels", "2", "+0.500", "0.000 to 1.000", "1.000", "1 / 0 / 1"]
    error = next(row for row in rows if row[0] == "localisation error (VerSe) (mm)")
    assert error[2].startswith("-") and error[5] == "1 / 0 / 1"  # less is better
    assert [row[0] for row in tables.cases(collected["cases"]["one"])[1]] == ["c", "a<b"]
    latex = files["latex"].read_text()
    assert r"a \& b\_2 & 2 &" in latex and r"\begin{tabular}{lrrrrrrrrrr}" in latex


def test_cells_are_escaped() -> None:
    table = (["a|b", "c"], [["50 %", "{x}_1 \\ $"]])
    assert tables.markdown(table).splitlines() == ["| a\\|b | c |", "| --- | --- |", "| 50 % | {x}_1 \\ $ |"]
    assert r"50 \% & \{x\}\_1 \textbackslash{} \$ \\" in tables.latex(table)


def test_without_matplotlib_there_are_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    reference = save_blocks(tmp_path / "ref.nii.gz", **TRUTH)
    request = EvaluationRequest(((None, reference),), reference, jobs=1)
    _, _, files = evaluate_folders(request, Settings(), tmp_path / "out")
    text = files["report"].read_text()
    assert "which need matplotlib" in text and "<svg" not in text
    assert not (tmp_path / "out" / "figures").exists()


def test_pictures_do_without_a_ct_and_without_vertebrae(tmp_path: Path) -> None:
    """A CT on another grid, none at all, and a prediction of nothing."""
    save_blocks(tmp_path / "ref" / "a.nii.gz", **TRUTH)
    save_blocks(tmp_path / "ref" / "b.nii.gz", **TRUTH)
    other = np.linspace(-900, 900, 729).astype(np.int16).reshape(9, 9, 9)
    write_image(Volume(other, np.diag([3.0, 3, 3, 1])), tmp_path / "ref" / "a_ct.nii.gz")
    for case in "ab":
        save_blocks(tmp_path / "pred" / f"{case}.nii.gz")
    request = EvaluationRequest(((None, tmp_path / "pred"),), tmp_path / "ref", jobs=1, worst=2)
    _, _, files = evaluate_folders(request, Settings(), tmp_path / "out")
    text = files["markdown"].read_text()
    assert "a_ct.nii.gz is not on the grid of the reference" in text and "no CT given" in text
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == 3
