"""README and tutorials: every command block runs, in order, in an empty folder, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs simulsa[serve]")

import simulsa
from docs.pages import python_markdown
from tests.docs_blocks import Block, Reader, blocks, prints, stale

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = list(stale(page, tmp_path))
    assert not found, "\n".join(found)


def test_a_page_says_what_runs_what_it_prints_and_what_does_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\necho a  # b\n```\nprints\n```text\nc\n```\n\n```sh\necho d \\\n  e\n```\n\n```text\nd ...\n```\n"
        "<!-- not run: needs a hub -->\n```sh\nexit 1\n```\n1. Then\n   ```python\n   print(1)\n   ```\n"
        "<!-- run with: 100 => 1; b.wav => a.wav -->\n```sh\necho 100 b.wav Qwen/Qwen2-Audio-7B-Instruct\n```\n"
        "```text\n100 b.wav\n```\n"
    )
    found = blocks(page)
    assert found == [
        Block("sh", "echo a  # b\n", 1),
        Block("sh", "echo d \\\n  e\n", 9, "d ...\n"),
        Block("python", "print(1)\n", 22),
        Block("sh", "echo 1 a.wav tiny-en-de\n", 26),
    ]
    reader = Reader(tmp_path)
    assert [reader.run(block) for block in found] == ["a\n", "d e\n", "1\n", "1 a.wav tiny-en-de\n"]
    with pytest.raises(AssertionError, match="line 3"):
        reader.run(Block("sh", "echo line 3; false\n", 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\nsimulsa\n```\n", "page.md:1: a block without a language"),
        ("a\n<!-- run with: 8 => 1 -->\n```sh\necho 7\n```\n", "page.md:3: '8' is not in the block"),
    ],
)
def test_no_command_goes_unnoticed(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=message):
        blocks(tmp_path / "page.md")


def test_output_is_compared_but_for_what_varies() -> None:
    assert prints("3.8 s, ... s computed\n", "3.8 s,\n0.44 s computed\n")
    assert not prints("3.8 s, ... s computed\n", "3.9 s, 0.44 s computed\n")


def test_pages_are_copied_for_the_parser_of_the_site() -> None:
    page = "Text:\n- a\n  more\n  - b\n- c\n\n1. d\n   ```sh\n   - e\n   ```\nText\n```text\n- f\n```\n<details>g\n"
    assert python_markdown(page) == (
        "Text:\n\n- a\n    more\n    - b\n- c\n\n1. d\n    ```sh\n    - e\n    ```\nText\n```text\n- f\n```\n"
        "<details markdown>g\n"
    )


def test_the_reference_has_every_public_name() -> None:
    named = re.findall(r"^::: simulsa\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted(set(simulsa.__all__) - {"__version__"})
