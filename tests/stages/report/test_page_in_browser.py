"""`report.html` from disk in Chromium: it draws, its parts are linked, and it asks nobody for anything."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromium import Watched, chromium, count_hue, picture, wait_until
from results import Made, add_page, manifest_of, phantom_parts, without_vertebrae, write_result
from vertebral.core.anatomy import BY_NAME
from vertebral.core.volume import Volume
from vertebral.io.result_folder import REPORT

PLACE = "[...vertebral.state.slices.nv.frac2mm(vertebral.state.slices.nv.scene.crosshairPos, 0, true)].slice(0, 3)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def made() -> Made:
    return phantom_parts()


@pytest.fixture(scope="module")
def result(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_result(made, tmp_path_factory.mktemp("page"))[0]


@pytest.fixture(scope="module")
def opened(browser: Any, result: Path) -> Iterator[Watched]:
    opened = Watched(browser)
    opened.open((result / REPORT).as_uri())
    yield opened
    opened.close()


@pytest.fixture
def watched(opened: Watched) -> Iterator[Watched]:
    """The page as it was opened: nothing selected, nothing hidden."""
    for box in opened.page.locator("tr[data-level] input:not(:checked)").all():
        box.check()
    opened.page.locator("#only").uncheck()
    opened.page.evaluate("document.querySelector('.names').hidden = false")
    opened.page.evaluate("vertebral.select(null, false); vertebral.state.spine.look(110, 10)")
    yield opened
    assert opened.trouble == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.requests)


def hues(page: Any) -> dict[str, int]:
    page.evaluate("document.querySelector('.names').hidden = true")
    pixels = picture(page, "#spine")
    return {name: count_hue(pixels, BY_NAME[name].rgb) for name in ("T12", "L1", "L2")}


def test_the_spine_and_the_slices_are_drawn(watched: Watched) -> None:
    assert min(hues(watched.page).values()) > 500
    slices = picture(watched.page, "#slices")
    assert np.count_nonzero(slices.max(axis=2) > 60) > 5000  # tissue
    assert min(count_hue(slices, BY_NAME[name].rgb, 0.15) for name in ("T12", "L1", "L2")) > 100  # labels on top
    assert watched.page.locator("table.levels tbody tr").count() == 3
    assert watched.page.locator("text=For research, not for diagnosis.").is_visible()


def test_selecting_a_level_moves_the_views(watched: Watched) -> None:
    page = watched.page
    page.locator("tr[data-level=T12]").click()
    before = page.evaluate(PLACE)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.level") == "L2"
    assert page.get_attribute("tr[data-level=L2]", "aria-selected") == "true"
    assert page.get_attribute("tr[data-level=T12]", "aria-selected") == "false"
    after = page.evaluate(PLACE)
    facts = page.evaluate("JSON.parse(document.getElementById('facts').textContent).levels")
    np.testing.assert_allclose(after, facts[2]["at_mm"], atol=0.1)
    assert before[2] - after[2] > 40  # two levels further down
    assert page.locator("#place").inner_text().endswith("L2")
    assert page.locator("#selected").inner_text().startswith("Selected: L2")
    seen = hues(page)
    assert seen["L2"] > 500 and max(seen["T12"], seen["L1"]) < 100  # the others fade


def test_a_click_on_the_spine_selects(watched: Watched) -> None:
    page = watched.page
    box = page.locator(".names [data-level=L1]").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.get_attribute("tr[data-level=L1]", "aria-selected") == "true"


def test_a_vertebra_can_be_hidden_and_the_rest_too(watched: Watched) -> None:
    page = watched.page
    page.locator("tr[data-level=L1] input").click()
    assert hues(page)["L1"] == 0 and hues(page)["L2"] > 500
    page.locator("tr[data-level=L2]").click()
    page.locator("#only").check()
    assert hues(page)["T12"] == 0 and hues(page)["L2"] > 500


def test_keys_turn_the_spine_and_move_the_slices(watched: Watched) -> None:
    page = watched.page
    page.locator("#spine").focus()
    before = page.evaluate("vertebral.state.spine.nv.scene.renderAzimuth")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("vertebral.state.spine.nv.scene.renderAzimuth") == before + 10
    page.locator("#slices").focus()
    page.keyboard.press("PageUp")
    place = page.evaluate(PLACE)
    page.keyboard.press("PageUp")
    assert page.evaluate(PLACE)[2] - place[2] == pytest.approx(4, abs=0.1)  # a voxel of the phantom
    page.get_by_role("button", name="Soft tissue").click()
    assert page.evaluate(
        "[vertebral.state.slices.nv.volumes[0].cal_min, vertebral.state.slices.nv.volumes[0].cal_max]"
    ) == [
        -150,
        250,
    ]


def test_an_oblique_scan_is_shown_where_it_lies(made: Made, browser: Any, tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    turn[:3, 3] = (30, -20, 10)
    ct, labels = (Volume(volume.array, turn @ volume.affine).reoriented("LPS") for volume in (made.ct, made.labels))
    surfaces = [replace(s, vertices_mm=s.vertices_mm @ turn[:3, :3].T + turn[:3, 3]) for s in made.surfaces]
    oblique = Made(ct, labels, tuple(surfaces))
    add_page(tmp_path, manifest_of(oblique, "oblique", "0"), oblique)
    watched = Watched(browser)
    page = watched.open((tmp_path / REPORT).as_uri())
    for level in page.evaluate("JSON.parse(document.getElementById('facts').textContent).levels"):
        page.locator(f"tr[data-level={level['name']}]").click()
        np.testing.assert_allclose(page.evaluate(PLACE), level["at_mm"], atol=0.1)
        assert page.locator("#place").inner_text().endswith(level["name"])  # the label that is drawn there
    watched.close()


def test_it_speaks_spanish_and_switches(browser: Any, result: Path) -> None:
    watched = Watched(browser, locale="es-ES")
    page = watched.open((result / REPORT).as_uri())
    assert page.get_attribute("html", "lang") == "es"
    assert page.locator("text=Para investigación, no para diagnóstico.").is_visible()
    page.select_option("#language", "en")
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("text=Files").first.is_visible()
    assert watched.trouble == []
    watched.close()


def test_it_fits_a_tablet_and_a_telephone(browser: Any, result: Path) -> None:
    watched = Watched(browser, 820, 1180, touch=True)
    page = watched.open((result / REPORT).as_uri())
    for width, height in ((1024, 768), (390, 844), (820, 1180)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert min(hues(page).values()) > 300
    page.locator("tr[data-level=L1]").tap()
    assert page.get_attribute("tr[data-level=L1]", "aria-selected") == "true"
    watched.close()


def test_an_evil_name_is_only_text(made: Made, browser: Any, tmp_path: Path) -> None:
    evil = "</script><script>window.harmed=1</script><img src=x onerror='window.harmed=1'>"
    manifest = {**manifest_of(made, evil, "0"), "warnings": [evil]}
    add_page(tmp_path, manifest, made)
    watched = Watched(browser)
    page = watched.open((tmp_path / REPORT).as_uri())
    assert page.evaluate("window.harmed === undefined")
    assert page.locator("h1").inner_text() == evil
    assert page.locator(".warnings li").inner_text() == evil
    watched.close()


def test_without_vertebrae_it_says_what_to_do(made: Made, browser: Any, tmp_path: Path) -> None:
    out, _ = write_result(without_vertebrae(made), tmp_path)
    watched = Watched(browser)
    page = watched.open((out / REPORT).as_uri())
    assert "Does the CT show the spine" in page.locator(".empty").inner_text()
    wait_until(lambda: np.count_nonzero(picture(page, "#slices").max(axis=2) > 60) > 5000, "the slices")
    watched.close()
