"""The app in Chromium with the real run behind it: a bad file, then a phantom from drop to download."""

import base64
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import Watched, chromium, wait_until
from vertebral.core.anatomy import parse_levels
from vertebral.data.phantom import make_phantom
from vertebral.io.write import write_image
from vertebral.stages.report.volumes import around_spine

DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))
    const transfer = new DataTransfer()
    transfer.items.add(new File([bytes], name))
    document.getElementById('drop').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true }))
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("app") / "jobs"
    words = ["app", "--data", str(data), "--no-browser", "--no-refine", "--device", "cpu"]
    with subprocess.Popen([sys.executable, "-m", "vertebral", *words], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with chromium() as browser:
        watched = Watched(browser)
        watched.page.goto(address)
        yield watched.page
        assert watched.trouble == []
        assert all(url.startswith((address.rpartition("/")[0], "data:", "blob:")) for url in watched.requests)


def drop(page: Any, name: str, data: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(data).decode()])


def test_it_says_what_to_do_first(page: Any) -> None:
    wait_until(lambda: "Drop a CT above" in page.locator("#jobs").inner_text(), "the empty state")
    assert page.locator("text=Drop a CT here").is_visible()
    assert page.locator("text=For research, not for diagnosis.").is_visible()


def test_a_bad_file_shows_its_error_and_goes(page: Any) -> None:
    drop(page, "Doe^Jane.mhd", b"x")
    wait_until(lambda: "upload both in one zip" in page.locator("#notice").inner_text(), "the refusal")
    drop(page, "Doe^Jane.nii.gz", b"this is no image")
    wait_until(lambda: "not gzip-compressed" in page.locator("#notice").inner_text(), "the other refusal")
    text = page.locator("#notice").inner_text()
    assert "copy or export it again" in text and "Doe" not in text and "/jobs/" not in text
    wait_until(lambda: page.locator("article").count() == 0, "the deletion")


def test_a_phantom_from_drop_to_download(page: Any, tmp_path: Path) -> None:
    phantom = make_phantom(parse_levels("T12-L2"), 4.0)
    write_image(phantom.ct.cropped(around_spine(phantom.labels, 30.0)), tmp_path / "Doe^Jane_ct.nii.gz")
    drop(page, "Doe^Jane_ct.nii.gz", (tmp_path / "Doe^Jane_ct.nii.gz").read_bytes())
    page.wait_for_selector("article[data-state=running]")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("article[data-state=cancelled]")
    page.get_by_role("button", name="Run again").click()
    page.wait_for_selector("article[data-state=done]", timeout=240_000)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "all.zip")
    names = zipfile.ZipFile(tmp_path / "all.zip").namelist()
    assert {"manifest.json", "report.html", "scan_spine.glb", "scan_seg-vert_msk.nii.gz"} <= set(names)
    page.get_by_role("link", name="View").click()
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    found = [row.get_attribute("data-level") for row in page.locator("tr[data-level]").all()]
    assert {"L1", "L2"} <= set(found)
    page.locator("tr[data-level=L1]").click()
    page.select_option("#correct-to", "L2")
    page.locator("#correct").click()
    page.wait_for_selector(".corrections")
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    after = [row.get_attribute("data-level") for row in page.locator("tr[data-level]").all()]
    assert "L2" in after and after != found
    page.get_by_role("link", name="All scans").click()
    wait_until(lambda: "corrected by hand" in page.locator("article").inner_text(), "the list")
    _check_that_deleting_asks_first(page)
    page.select_option("#language", "es")
    wait_until(lambda: page.get_by_role("link", name="Ver").count() == 1, "the list in Spanish")
    assert page.get_attribute("html", "lang") == "es"


def _check_that_deleting_asks_first(page: Any) -> None:
    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Delete").click()
    assert asked == ["Delete this CT and its results permanently?"]
    assert page.locator("article").count() == 1
