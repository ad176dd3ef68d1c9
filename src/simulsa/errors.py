"""What other packages raise, in one line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type, if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
