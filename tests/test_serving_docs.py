"""docs/serving.md lists every option with its default and its text."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from simulsa.serving.config import ServeConfig

DOCS = Path(__file__).parent.parent / "docs" / "serving.md"


def options_table() -> str:
    """The options of `ServeConfig` as a table, from the class itself."""
    texts = dict(re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(ServeConfig), re.M | re.S))
    rows = ["| flag | default | |", "|---|---|---|"]
    for spec in dataclasses.fields(ServeConfig):
        default: Any = spec.default
        if isinstance(default, bool):
            default = "on" if default else "off"
        elif isinstance(default, float):
            default = f"{default:g}"
        text = " ".join(texts[spec.name].split())
        rows.append(f"| `--{spec.name.replace('_', '-')}` | {default or ''} | {text} |")
    return "\n".join(rows)


def test_every_option_is_in_the_documentation() -> None:
    if not DOCS.exists():
        pytest.skip("the documentation is not beside the tests")
    shown = re.search(r"<!-- options -->\n(.*?)\n<!-- end -->", DOCS.read_text(encoding="utf-8"), re.S)
    assert shown is not None
    assert shown[1] == options_table(), f"docs/serving.md should have:\n{options_table()}"
