"""Debian's Chromium, without a screen, with WebGL in software, and with no other business on the network."""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright. Skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = os.environ.get("VERTEBRAL_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium, or its path in VERTEBRAL_CHROMIUM")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=FLAGS, headless=True)
        yield browser
        browser.close()


class Watched:
    """A page whose trouble is noted: errors of scripts, complaints on the console, requests to anywhere else."""

    def __init__(self, browser: Any, width: int = 1280, height: int = 720, locale: str = "en-US", touch: bool = False):
        context = browser.new_context(
            viewport={"width": width, "height": height}, locale=locale, has_touch=touch, accept_downloads=True
        )
        self.page, self.trouble = context.new_page(), list[str]()
        self.requests: list[str] = []
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("console", self._listen)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _listen(self, line: Any) -> None:
        # An answer of 400 is what a refused upload gets; the page tells the reason.
        if line.type == "error" and "status of 400" not in line.text:
            self.trouble.append(line.text)

    def open(self, url: str) -> Any:
        """Go to a page of a result and wait for its pictures."""
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]", state="attached")
        assert self.page.get_attribute("html", "data-ready") == "yes", self.trouble
        return self.page

    def close(self) -> None:
        """Close the page and forget what it stored."""
        self.page.context.close()


def picture(page: Any, selector: str) -> NDArray[np.uint8]:
    """What is seen of an element: (rows, columns, RGB)."""
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB"))


def count_hue(pixels: NDArray[np.uint8], rgb: tuple[int, int, int], least_saturation: float = 0.38) -> int:
    """How many pixels have nearly the hue of `rgb`, however the light falls on them, and are no paler than told."""
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(pixels).convert("HSV"), int), 2, 0)
    wanted = Image.new("RGB", (1, 1), rgb).convert("HSV").getpixel((0, 0))[0]
    apart = np.abs((hue - wanted + 128) % 256 - 128)
    return int(np.count_nonzero((apart <= 6) & (saturation > 255 * least_saturation) & (value > 40)))


def wait_until(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_MS / 1000) -> None:
    """Ask again and again; a page's policy lets playwright not evaluate a condition by itself."""
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.1)
