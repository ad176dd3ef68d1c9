"""docs/serving.md lists every option of the server and of its replicas with its default and its text."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from simulsa.integrations.ray_serve import ReplicasConfig
from simulsa.serving.config import ServeConfig

DOCS = Path(__file__).parent.parent / "docs" / "serving.md"


def options_table(kind: Any) -> str:
    """The options of a settings class as a table, from the class itself."""
    texts = dict(re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(kind), re.M | re.S))
    rows = ["| flag | default | |", "|---|---|---|"]
    for spec in dataclasses.fields(kind):
        default: Any = spec.default
        if isinstance(default, bool):
            default = "on" if default else "off"
        elif isinstance(default, float):
            default = f"{default:g}"
        text = " ".join(texts[spec.name].split())
        rows.append(f"| `--{spec.name.replace('_', '-')}` | {default or ''} | {text} |")
    return "\n".join(rows)


@pytest.mark.parametrize(("kind", "mark"), [(ServeConfig, "options"), (ReplicasConfig, "replicas")])
def test_every_option_is_in_the_documentation(kind: Any, mark: str) -> None:
    if not DOCS.exists():
        pytest.skip("the documentation is not beside the tests")
    shown = re.search(rf"<!-- {mark} -->\n(.*?)\n<!-- end -->", DOCS.read_text(encoding="utf-8"), re.S)
    assert shown is not None
    assert shown[1] == options_table(kind), f"docs/serving.md should have:\n{options_table(kind)}"
