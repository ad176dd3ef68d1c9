"""The picture of the page in the README: a half-translated sample, at double resolution.

apt-get install chromium fonts-inter && pip install '.[serve,dev]'
python -m recipes.screenshot
"""

from __future__ import annotations

import io
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import simulsa
from recipes import command
from simulsa.serving import samples
from simulsa.serving.config import ServeConfig
from simulsa.serving.server import bind, make_server
from simulsa.serving.service import Service
from simulsa.streaming.config import StreamConfig

WIDTH, HEIGHT = 1160, 860


@dataclass(frozen=True)
class Screenshot:
    """Play samples one after the other, and take a picture in the middle of the last."""

    out: Path = Path("docs/images/live.png")
    """the picture"""
    model: str = "tiny-en-de-simul"
    """the model that translates"""
    samples: tuple[str, ...] = ("demo-test-001", "demo-test-024", "demo-test-021")
    """what is played; the last is not over"""
    words: int = 3
    """how many of its words are final when the picture is taken"""
    dark: bool = False
    """as the page looks where the system is dark"""


def main(config: Screenshot) -> None:
    """Serve, play, and take the picture."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("there is no chromium; apt-get install chromium")
    service = Service(simulsa.load(config.model), ServeConfig(port=0), StreamConfig())
    server = make_server(service)
    with bind(service.config) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            photograph(config, f"http://127.0.0.1:{listening.getsockname()[1]}", chromium)
        finally:
            server.should_exit = True
            thread.join()


def photograph(config: Screenshot, url: str, chromium: str) -> None:
    """Play the samples on the page at `url` and save the picture."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
        page.emulate_media(color_scheme="dark" if config.dark else "light", reduced_motion="reduce")
        page.goto(url)
        for name in config.samples:
            button = page.get_by_role("button", name=str(samples.clips()[name].source_text))
            page.locator("#clips button").first.wait_for()
            while not button.is_visible():
                page.get_by_role("button", name="Show others").click()
            page.locator('#state[data-state="ready"]').wait_for()
            button.click()
            page.mouse.move(0, 0)
            page.locator('#state[data-state="live"]').wait_for()
        final = page.locator("#text p").nth(len(config.samples) - 1).locator("span:not(.tentative)")
        while len("".join(final.all_inner_texts()).split()) < config.words or not page.locator(".tentative").inner_text():
            if page.locator("#state").get_attribute("data-state") == "ready":
                raise RuntimeError("the sample was over before the picture; try again when the machine is less busy")
            page.wait_for_timeout(10)
        pixels = page.screenshot()
        browser.close()
    picture = Image.open(io.BytesIO(pixels)).convert("RGB")
    colours = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # halves the file size
    colours.save(config.out, optimize=True)


if __name__ == "__main__":
    command.run(main, Screenshot, __doc__)
