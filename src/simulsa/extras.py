"""Optional dependencies: packages that pip installs as extras."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

JOBS = {  # extra -> the packages it must install before the job can start
    "train": ("accelerate", "matplotlib", "peft"),
    "evaluate": ("matplotlib", "omnisteval", "sacrebleu"),
}


def optional(name: str, extra: str, what: str) -> Any:
    """Import the package `name`, which `what` needs. Raises `RuntimeError` with the pip extra when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(f"{what} needs the package {name}: pip install 'simulsa[{extra}]' ({error})") from error


def require(what: str, *extras: str, without: str = "") -> None:
    """Check that the packages of these `JOBS` are installed, without importing them; `what` needs all of them except `without`.

    Raises `RuntimeError` with the missing packages and the pip extras that install them.
    """
    missing = {extra: [name for name in JOBS[extra] if name != without and find_spec(name) is None] for extra in extras}
    lacking = sorted({name for names in missing.values() for name in names})
    if lacking:
        packages = f"the package{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
        needed = ",".join(extra for extra, names in missing.items() if names)
        raise RuntimeError(f"{what} needs {packages}: pip install 'simulsa[{needed}]'")
