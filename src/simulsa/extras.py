"""Optional dependencies: packages that pip installs as extras."""

from __future__ import annotations

import importlib
from typing import Any


def optional(name: str, extra: str, what: str) -> Any:
    """Import the package `name`, which `what` needs. Raises `RuntimeError` with the pip extra when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(f"{what} needs the package {name}: pip install 'simulsa[{extra}]' ({error})") from error
