"""Settings in the form that JSON and form fields can carry."""

from __future__ import annotations

import math
from typing import Any

from simulsa import strict_json
from simulsa.settings import to_mapping


def plain(settings: Any) -> dict[str, Any]:
    """The values of a settings dataclass for JSON, which has no infinity."""
    return {
        name: "inf" if isinstance(value, float) and math.isinf(value) else value for name, value in to_mapping(settings).items()
    }


def from_text(text: str) -> Any:
    """The number, boolean or text in a form field: `3`, `true`, `de`."""
    try:
        value = strict_json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, bool)) else text
