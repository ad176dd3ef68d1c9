"""What the page says of a bundled model before anybody speaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pages
from tests.pages import choose, finished, serving, visit

# first: it skips where there is no browser
# isort: split
from playwright.sync_api import Page, expect

from simulsa.testing import FakeLALM, growing_script
from tests.servers import TEXT

browser, page, speech, troubles = pages.browser, pages.page, pages.speech, pages.troubles
HINT = "This demo model knows one kind of sentence: what a picture shows, in English. Try:"


@pytest.mark.parametrize("name", ["tiny-en-de", "tiny-en-de-simul"])
def test_an_embedded_model_says_what_it_knows(page: Page, speech: Path, name: str) -> None:
    lalm = FakeLALM(growing_script(TEXT))
    lalm.name = name
    with serving(lalm) as server:
        visit(page, server)
        expect(page.locator("#hint")).to_be_visible()
        expect(page.locator("#hint p")).to_have_text(HINT)
        assert page.locator("#hint li").count() == 3
        choose(page, speech)
        finished(page)
        expect(page.locator("#hint")).to_be_hidden()
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#hint")).to_be_visible()


@pytest.mark.parametrize("name", ["fake", "Qwen/Qwen2-Audio-7B-Instruct", "tiny-en-de-of-mine"])
def test_another_model_does_not(page: Page, name: str) -> None:
    lalm = FakeLALM(growing_script(TEXT))
    lalm.name = name
    with serving(lalm) as server:
        visit(page, server)
        expect(page.locator("#placeholder")).to_be_visible()
        expect(page.locator("#hint")).to_be_hidden()
