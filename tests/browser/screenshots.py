"""Take the README's pictures anew: python -m tests.browser.screenshots http://localhost:8000"""

from __future__ import annotations

import base64
import contextlib
import io
import sys
from pathlib import Path

from PIL import Image

from tests.browser import chromiums
from tests.browser.page import Page

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
DESKTOP = (1280, 900)
PHONE = (390, 960)


def main(base_url: str) -> None:
    """Write the three pictures to docs/images."""
    with contextlib.contextmanager(chromiums.start)() as driver:
        page = Page(driver, base_url)
        take(page, "try-image", DESKTOP, "light", samples=1)
        take(page, "try-image-dark", DESKTOP, "dark", samples=3)
        take(page, "try-image-phone", PHONE, "light", samples=1)


def take(page: Page, name: str, size: tuple[int, int], scheme: str, samples: int) -> None:
    """One picture of the page after so many samples were pressed."""
    page.resize(*size)
    page.prefer(scheme)
    page.open()
    for number in range(samples):
        page.all(".sample")[number].click()
        page.until(lambda: page.all("#answer .timing dt"), "an answer")
        page.see_boxes()
    page.until(lambda: not page.all(".badge.is-waiting:not([hidden])") or samples == 1, "all answers")
    page.script("document.activeElement.blur()")
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 1, "y": 1})
    height = size[1] if size == PHONE else page.script("return document.querySelector('.footer').offsetTop - 20")
    save(page, FOLDER / f"{name}.png", size[0], height, scale=2 if size == PHONE else 1)


def save(page: Page, path: Path, width: int, height: int, scale: int) -> None:
    """A PNG of 256 colours: a third of the size, and nobody sees the difference."""
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
    shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
