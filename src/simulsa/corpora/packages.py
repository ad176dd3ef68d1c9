"""Optional packages that some corpora need."""

from __future__ import annotations

import importlib
from typing import Any


def optional(name: str, extra: str) -> Any:
    """Import the package `name`. Raises `RuntimeError` with the pip extra to install when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(f"this corpus needs the package {name}: pip install 'simulsa[{extra}]' ({error})") from error
