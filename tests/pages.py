"""What tests of the page share: Debian's Chromium, headless, with a file for a microphone, and a server for it.

Tests that import it skip where it cannot run. Speech runs in real time here.
"""

# ruff: noqa: E402

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import soundfile

pytest.importorskip("playwright", reason="needs the package playwright, of simulsa[dev]")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)

from playwright.sync_api import Browser, Page, expect, sync_playwright

import simulsa
from simulsa.audio import SAMPLE_RATE, load_audio
from simulsa.serving import samples
from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeLALM, growing_script
from tests.conftest import noise
from tests.servers import TEXT, Running, running

STREAM = StreamConfig(chunk_ms=300, rollback=2)
WATCH = """
addEventListener("DOMContentLoaded", () => {
  const text = document.getElementById("text");
  const final = (paragraph) => [...paragraph.children].filter((piece) => piece.className !== "tentative");
  const said = (paragraph) => final(paragraph).map((piece) => piece.textContent).join("");
  window.committed = () => [...text.children].map(said).join("\\n");
  window.seen = { committed: [], tentative: [] };
  new MutationObserver(() => {
    seen.committed.push(committed());
    seen.tentative.push(text.querySelector(".tentative")?.textContent ?? "");
  }).observe(text, { childList: true, subtree: true, characterData: true });
});
"""


def serving(lalm: Any, stream: StreamConfig = STREAM, **limits: Any) -> AbstractContextManager[Running]:
    """A server that takes clients however slow the machine is."""
    return running(lalm, stream, max_lag_chunks=float("inf"), **limits)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip as the microphone and the tests of the file hear it: 2.3 s."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, 3 * noise(2.3), SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    row = samples.clips()["demo-test-000"]
    microphone = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    microphone.write_bytes(samples.wav(row))
    flags = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        "--no-sandbox",  # which root cannot have, and every test server is ours
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(FakeLALM(growing_script(TEXT))) as server:
        yield server


@pytest.fixture
def troubles() -> list[str]:
    """What the browser's console says; a test that expects it clears it."""
    return []


@pytest.fixture
def page(browser: Browser, troubles: list[str]) -> Iterator[Page]:
    context = browser.new_context(accept_downloads=True, viewport={"width": 1200, "height": 860})
    page = context.new_page()
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    page.on("console", lambda message: troubles.append(f"{message.text} {message.location}"))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.add_init_script(WATCH)
    yield page
    context.close()
    assert [trouble for trouble in troubles if "ERR_CONNECTION_REFUSED" not in trouble] == []  # servers come and go here


def visit(page: Page, server: Running) -> None:
    page.goto(server.url)
    expect(page.locator("#state")).to_have_text("Ready")


def choose(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)


def finished(page: Page) -> str:
    """The committed text when the speech is over; on the way there it only grew."""
    expect(page.locator("#state")).to_have_text("Ready")
    seen = page.evaluate("seen.committed")
    assert all(after.startswith(before) for before, after in itertools.pairwise(seen))
    return str(page.evaluate("committed()"))


def by_stream(lalm: Any, path: Path, config: StreamConfig, segmentation: Any = None) -> str:
    stream = simulsa.Stream(lalm, config, segmentation)
    stream.push(load_audio(path))
    return stream.finish()[-1].committed


def downloaded(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).read_text(encoding="utf-8")
