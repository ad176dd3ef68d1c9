"""How every recipe's command parses its flags and reports errors: in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

Config = TypeVar("Config")


def run(main: Callable[[Config], object], config: type[Config], description: str | None) -> None:
    """Parse a `config` from the command line and run `main` on it; a user error ends it with one line and code 1.

    User errors are, for example, a missing file, or a voice or value that does not exist.
    """
    parsed = tyro.cli(config, description=description, config=(tyro.conf.OmitArgPrefixes,))
    try:
        main(parsed)
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except KeyboardInterrupt:
        sys.exit(130)
