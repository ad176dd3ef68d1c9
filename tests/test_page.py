"""The page in a real browser: speeches, settings, trouble, and what it looks like (tests/pages.py has the browser)."""

from __future__ import annotations

import base64
import itertools
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import soundfile

from tests import pages
from tests.pages import STREAM, by_stream, choose, downloaded, finished, serving, visit

# first: it skips where there is no browser
# isort: split
from playwright.sync_api import Browser, Page, expect

import simulsa
from simulsa.audio import SAMPLE_RATE
from simulsa.serving import samples
from simulsa.streaming.config import StreamConfig
from simulsa.testing import FakeHeard, FakeLALM, growing_script
from tests.conftest import noise
from tests.servers import TEXT, Running, until
from tests.subtitles import parse_srt, parse_vtt

browser, page, server, speech, troubles = pages.browser, pages.page, pages.server, pages.speech, pages.troubles
DROP = """([name, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


class Listener(FakeLALM):
    """Remembers the longest audio that it heard."""

    heard = np.zeros(0, dtype=np.float32)

    def hear(self, audios: Any, directions: Any) -> list[FakeHeard]:
        self.heard = max([self.heard, *audios], key=len)
        return super().hear(audios, directions)


@pytest.mark.parametrize("segmentation", [None, simulsa.SegmentationConfig()])
def test_a_sample_gives_the_text_of_stream(page: Page, tmp_path: Path, segmentation: Any) -> None:
    path = tmp_path / "sample.wav"
    row = samples.clips()["demo-test-001"]
    path.write_bytes(samples.wav(row))
    lalm = simulsa.load("tiny-en-de-simul")
    with serving(lalm, StreamConfig(), longform=segmentation is not None) as server:
        visit(page, server)
        assert page.locator("#source").inner_text() == "English"
        assert page.locator("#target").inner_text() == "German"
        page.get_by_role("button", name=row.source_text).click()
        expect(page.locator("#spoken")).to_have_text(str(row.source_text))
        expect(page.locator("#lag")).to_contain_text(" s")
        text = finished(page)
    assert text == by_stream(lalm, path, StreamConfig(), segmentation)
    assert any(page.evaluate("seen.tentative"))
    assert page.locator(".tentative").get_attribute("aria-hidden") == "true"
    assert page.evaluate("document.querySelector('#text p').lang") == "de"


def test_the_microphone_is_heard(page: Page) -> None:
    lalm = Listener(growing_script(TEXT))
    with serving(lalm) as server:
        visit(page, server)
        page.get_by_role("button", name="Microphone").click()
        expect(page.locator("#state")).to_have_text("Listening")
        until(lambda: page.evaluate("committed().split(' ').length > 10"))
        page.get_by_role("button", name="Microphone").click()
        assert finished(page).startswith(" ".join(TEXT.split(" ")[:11]))
    spoken = samples.clips()["demo-test-000"].load()[
        SAMPLE_RATE // 2 : 2 * SAMPLE_RATE
    ]  # the beginning comes before the page listens
    # the browser's fake microphone may slip by some 20 ms, so each quarter of a second is looked for on its own
    assert np.median([likeness(lalm.heard, piece) for piece in np.split(spoken, 6)]) > 0.7


def likeness(heard: np.ndarray, piece: np.ndarray) -> float:
    """The largest normalized correlation of a piece with any part of what was heard."""
    energy = np.convolve(heard**2, np.ones(len(piece)), "valid") * np.sum(piece**2)
    return float(np.max(np.correlate(heard, piece, "valid") / np.sqrt(energy)))


def test_a_file_that_is_dropped_anywhere(page: Page, server: Running, speech: Path) -> None:
    visit(page, server)
    page.evaluate(DROP, [speech.name, base64.b64encode(speech.read_bytes()).decode()])
    expect(page.locator("#state")).to_have_text("Playing")
    assert finished(page) == by_stream(server.service.lalm, speech, STREAM)


def test_where_nothing_may_play_yet_resume_plays(page: Page, server: Running, speech: Path) -> None:
    page.add_init_script(
        """const { play } = HTMLMediaElement.prototype;
        HTMLMediaElement.prototype.play = function () {
          HTMLMediaElement.prototype.play = play;
          return Promise.reject(new DOMException("no gesture", "NotAllowedError"));
        };"""
    )
    visit(page, server)
    choose(page, speech)
    expect(page.locator("#notice")).to_contain_text("Press Resume.")
    expect(page.locator("#state")).to_have_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_have_text("Playing")
    assert finished(page) == by_stream(server.service.lalm, speech, STREAM)


def test_a_file_that_is_no_audio(page: Page, server: Running, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no audio at all")
    visit(page, server)
    choose(page, tmp_path / "notes.wav")
    expect(page.locator("#notice")).to_have_text("This browser cannot decode notes.wav. Try WAV, MP3, M4A, OGG or FLAC.")
    expect(page.locator("#state")).to_have_text("Ready")


def test_settings_are_those_of_the_next_speech(page: Page, server: Running, speech: Path) -> None:
    visit(page, server)
    expect(page.locator("#chunk-value")).to_have_text("300 ms")
    page.locator("#chunk").press("ArrowLeft")
    page.locator("#rollback").press("Home")
    expect(page.locator("#rollback-value")).to_have_text("0 tokens")
    choose(page, speech)
    expect(page.locator("#state")).to_have_text("Playing")
    assert finished(page) == by_stream(server.service.lalm, speech, StreamConfig(chunk_ms=200, rollback=0))


def test_what_the_server_has_is_offered(page: Page) -> None:
    with serving(FakeLALM(growing_script(TEXT)), StreamConfig(), languages=("zh", "en"), min_chunk_ms=400.0) as server:
        visit(page, server)
        assert page.locator("#target option").all_inner_texts() == ["Chinese", "English", "German"]
        page.locator("#chunk").press("Home")
        expect(page.locator("#chunk-value")).to_have_text("500 ms")
        page.locator("#chunk").press("End")
        expect(page.locator("#chunk-value")).to_have_text("all of the speech")


def test_another_policy_of_the_server_stays(page: Page, speech: Path) -> None:
    stream = StreamConfig(chunk_ms=300, policy=simulsa.Policy.parse("local-agreement:2"))
    with serving(FakeLALM(growing_script(TEXT)), stream) as server:
        visit(page, server)
        expect(page.locator("#rollback")).to_be_disabled()
        expect(page.locator("#rollback-value")).to_have_text("local-agreement:2")
        choose(page, speech)
        assert finished(page) == by_stream(server.service.lalm, speech, stream)


def test_other_settings_in_the_middle_lose_nothing(page: Page, server: Running, speech: Path) -> None:
    visit(page, server)
    choose(page, speech)
    until(lambda: page.evaluate("committed() !== ''"))
    page.locator("#rollback").press("ArrowRight")
    first, second = finished(page).split("\n")
    assert TEXT.startswith(first)
    assert TEXT.startswith(second)
    assert 8 <= len(f"{first} {second}".split(" ")) <= 9  # a word for every quarter of a second; the cut costs one


def test_pause_resume_and_clear(page: Page, server: Running, speech: Path) -> None:
    with serving(server.service.lalm, idle_s=1.0) as impatient:
        visit(page, impatient)
        choose(page, speech)
        until(lambda: page.evaluate("committed() !== ''"))
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#state")).to_have_text("Paused")
        until(
            lambda: page.evaluate("document.querySelector('.tentative').textContent === ''")
        )  # the session was closed for being idle
        before = page.evaluate("committed()")
        page.get_by_role("button", name="Resume").click()
        text = finished(page)
        assert text.startswith(before + "\n")
    page.get_by_role("button", name="Clear").click()
    assert page.evaluate("committed()") == ""
    expect(page.locator("#placeholder")).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_be_disabled()


def test_stop_gives_the_last_words(page: Page, server: Running, speech: Path) -> None:
    visit(page, server)
    choose(page, speech)
    until(lambda: page.evaluate("committed() !== ''"))
    page.get_by_role("button", name="Stop").click()
    words = finished(page).split(" ")
    assert words == TEXT.split(" ")[: len(words)]
    assert len(words) < 9
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def test_a_microphone_that_is_stopped_gives_its_last_samples(page: Page, server: Running) -> None:
    visit(page, server)
    for paused in (False, True):
        rest = page.evaluate(
            """async (paused) => {
              const { Microphone } = await import("./sources.js");
              const pieces = [];
              const microphone = new Microphone((samples) => pieces.push(samples.length));
              await microphone.start();
              while (pieces.length < 3) await new Promise((resolve) => setTimeout(resolve, 5));
              if (paused) await microphone.pause();
              const before = pieces.length;
              await microphone.stop();
              return pieces.slice(before);
            }""",
            paused,
        )
        assert len(rest) >= 1
        assert rest[-1] < SAMPLE_RATE // 10


def test_a_clip_that_is_stopped_gives_what_was_played(page: Page, server: Running, speech: Path) -> None:
    visit(page, server)
    for wait_ms in (330, 360, 390):
        sent_s, played_s = page.evaluate(
            """async ([data, waitMs]) => {
              const { Clip } = await import("./sources.js");
              const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
              let sent = 0;
              const clip = new Clip(new Blob([bytes]), "a clip", (samples) => { sent += samples.length; }, () => {});
              await clip.start();
              await new Promise((resolve) => setTimeout(resolve, waitMs));
              await clip.stop();
              return [sent / 16000, clip.player.currentTime];
            }""",
            [base64.b64encode(speech.read_bytes()).decode(), wait_ms],
        )
        assert played_s > 0.1
        assert abs(sent_s - played_s) < 0.03  # up to 0.1 if the last frame is lost


def test_a_server_that_comes_back_is_found_again(page: Page, tmp_path: Path) -> None:
    speech = tmp_path / "long.wav"
    soundfile.write(speech, noise(3.5), SAMPLE_RATE, subtype="PCM_16")
    lalm = FakeLALM(growing_script(TEXT))
    with serving(lalm) as first:
        visit(page, first)
        choose(page, speech)
        until(lambda: page.evaluate("committed() !== ''"))
    expect(page.locator("#state")).to_have_text("Reconnecting")
    before = page.evaluate("committed()")
    with serving(lalm, port=first.port):
        expect(page.locator("#state")).to_have_text("Playing")
        text = finished(page)
    assert text.startswith(before + "\n")
    assert TEXT.startswith(text.split("\n")[1])
    cues = parse_srt(downloaded(page, "SRT"))
    assert cues[-1][1] == 3500


def test_a_full_server_says_so(page: Page, speech: Path) -> None:
    with serving(FakeLALM(growing_script(TEXT)), max_sessions=1) as server, server.connect():
        visit(page, server)
        choose(page, speech)
        expect(page.locator("#notice")).to_have_text("All 1 sessions are taken; try again later.")
        expect(page.locator("#state")).to_have_text("Ready")


@pytest.mark.parametrize("key", ["plain-key", "a key/with=signs"])  # as a subprotocol, and in the address
def test_a_key_is_asked_for_and_kept(page: Page, troubles: list[str], speech: Path, key: str) -> None:
    lalm = FakeLALM(growing_script(TEXT))
    with serving(lalm, api_key=key) as server:
        page.goto(server.url)
        expect(page.locator("#state")).to_have_text("Key needed")
        page.get_by_label("This server asks for a key").fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#notice")).to_have_text("The server does not know this key.")
        page.get_by_label("This server asks for a key").fill(key)
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#state")).to_have_text("Ready")
        page.reload()
        expect(page.locator("#state")).to_have_text("Ready")
        choose(page, speech)
        expect(page.locator("#state")).to_have_text("Playing")
        assert finished(page) == by_stream(lalm, speech, STREAM)
    assert all("401" in trouble for trouble in troubles)
    troubles.clear()


def test_downloads_hold_the_text_and_its_times(page: Page, server: Running, speech: Path) -> None:
    visit(page, server)
    for _ in range(2):
        choose(page, speech)
        expect(page.locator("#state")).to_have_text("Playing")
        text = finished(page)
    assert downloaded(page, "Download as text") == text + "\n"
    srt, vtt = parse_srt(downloaded(page, "SRT")), parse_vtt(downloaded(page, "VTT"))
    assert srt == vtt
    assert " ".join(text for _, _, text in srt) == text.replace("\n", " ")
    times = [time for start, end, _ in srt for time in (start, end)]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] == 4600
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == text


def test_captions_are_large_and_left_by_escape(page: Page, server: Running) -> None:
    visit(page, server)
    size = "parseFloat(getComputedStyle(document.getElementById('text')).fontSize)"
    before = page.evaluate(size)
    page.get_by_role("button", name="Captions").click()
    until(lambda: page.evaluate("document.fullscreenElement"))
    assert page.evaluate(size) > 2 * before
    expect(page.get_by_role("button", name="Microphone")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Microphone")).to_be_visible()
    assert page.evaluate(size) == before


def test_fits_a_phone_and_follows_the_dark(page: Page, server: Running) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        visit(page, server)
        for width in (340, 390, 800, 1200):
            page.set_viewport_size({"width": width, "height": 780})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for button in page.locator("#transport button").all():
                box = button.bounding_box()
                assert box is not None
                assert box["x"] + box["width"] <= width
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_everything_has_a_name_and_the_text_is_announced(page: Page, server: Running) -> None:
    visit(page, server)
    controls = page.locator("button, input:not([hidden]), select, canvas, [role=log]")
    nameless = [
        control.evaluate("node => node.outerHTML")
        for control in controls.all()
        if not control.evaluate("node => node.ariaLabel || node.labels?.length || node.textContent.trim()")
    ]
    assert nameless == []
    log = page.get_by_role("log", name="Translated text")
    assert log.get_attribute("aria-live") == "polite"
    assert (
        page.evaluate("new Set([...document.querySelectorAll('[id]')].map((node) => node.id)).size")
        == page.locator("[id]").count()
    )
    assert page.locator("h1").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"


def test_resampling_keeps_speech_and_nothing_above_it(page: Page, server: Running) -> None:
    visit(page, server)
    for rate in (48_000, 44_100, 16_000, 8_000):
        low, high, split = page.evaluate(
            """async (rate) => {
              const { Resampler, RATE } = await import("/pcm.js");
              const sine = (hertz, at) => (_, index) => Math.sin(2 * Math.PI * hertz * index / at);
              const tone = (hertz, at) => Float32Array.from({ length: at / 2 }, sine(hertz, at));
              const inner = (samples) => samples.slice(200, -200);
              const loudest = (samples) => inner(samples).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
              const low = new Resampler(rate, RATE).push(tone(1000, rate));
              const wanted = tone(1000, RATE);
              const pieces = new Resampler(rate, RATE);
              const joined = [...pieces.push(tone(1000, rate).slice(0, 777)), ...pieces.push(tone(1000, rate).slice(777))];
              return [
                loudest(low.map((value, index) => value - wanted[index])),
                rate > RATE ? loudest(new Resampler(rate, RATE).push(tone(9000, rate))) : 0,
                joined.every((value, index) => value === low[index]) && joined.length === low.length,
              ];
            }""",
            rate,
        )
        assert low < 2e-3, rate
        assert high < 1e-3, rate
        assert split


def test_pcm_is_little_endian_and_clipped(page: Page, server: Running) -> None:
    visit(page, server)
    encoded = page.evaluate(
        """async () => {
          const { toBase64, toPcm16 } = await import("/pcm.js");
          return toBase64(toPcm16(Float32Array.of(0, 1 / 32768, -1, 1, 0.5, -7)));
        }"""
    )
    assert np.frombuffer(base64.b64decode(encoded), dtype="<i2").tolist() == [0, 1, -32768, 32767, 16384, -32768]


def test_subtitles_of_hard_text(page: Page, server: Running) -> None:
    visit(page, server)
    pieces = [
        {"text": "Ja.", "start": 0.0, "end": 0.4, "opens": True},
        {"text": " A\n\n<b> & c", "start": 0.4, "end": 20.0, "opens": False},
        {"text": " wort" * 40, "start": 20.0, "end": 24.0, "opens": False},
        {"text": "字" * 100, "start": 24.0, "end": 24.0, "opens": True},
    ]
    srt, vtt = page.evaluate(
        """async (pieces) => {
          const { toSrt, toVtt } = await import("/subtitles.js");
          return [toSrt(pieces), toVtt(pieces)];
        }""",
        pieces,
    )
    cues = parse_srt(srt)
    assert cues == parse_vtt(vtt)
    assert cues[0] == (0, 1000, "Ja.")
    assert cues[1] == (13_000, 20_000, "A <b> & c")
    assert "A &lt;b&gt; &amp; c" in vtt
    assert " ".join(text for _, _, text in cues[2:-2]) == " ".join(["wort"] * 40)
    assert [text for _, _, text in cues[-2:]] == ["字" * 84, "字" * 16]
    assert all(len(text) <= 84 for _, _, text in cues)
    assert all(end <= start for (_, end, _), (start, _, _) in itertools.pairwise(cues))
    assert page.evaluate("import('/subtitles.js').then(({ toSrt }) => toSrt([]))") == ""


def test_the_script_of_simulstreams_web_demo(browser: Browser) -> None:
    folder = os.environ.get("SIMULSTREAM_WEBDEMO")  # `webdemo` of a checkout of hlt-mt/simulstream; its packages come without it
    if folder is None:
        pytest.skip("needs simulstream's webdemo folder in SIMULSTREAM_WEBDEMO")
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as demo:
        Thread(target=demo.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{demo.server_port}"
        with serving(FakeLALM(growing_script(TEXT)), allow_origins=(origin,)) as server:
            page = browser.new_page()
            page.goto(f"{origin}/style.css")  # a page of theirs without what it fetches from elsewhere
            page.evaluate(
                """async (url) => {
                  const { SimulStreamClient } = await import("/simulstream_client.js");
                  window.said = [];
                  window.client = new SimulStreamClient(url);
                  client.onservermessage = (message) => said.push(message);
                  await client.start("de", "en");
                }""",
                f"ws://127.0.0.1:{server.port}/",
            )
            until(lambda: page.evaluate("said.map((message) => message.new).join('').split(' ').length > 10"))
            page.evaluate("client.stop(); client.closeSocket()")
            assert TEXT.startswith(page.evaluate("said.map((message) => message.new).join('')"))
            assert {message["deleted"] for message in page.evaluate("said")} == {""}
            until(lambda: not server.service.scheduler.sessions)
            page.close()
        demo.shutdown()
