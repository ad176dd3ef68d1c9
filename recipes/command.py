"""How every recipe's command parses its flags and reports what is wrong: in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

Config = TypeVar("Config")


def run(main: Callable[[Config], object], config: type[Config], description: str | None) -> None:
    """Parse a `config` from the command line and run `main` on it; a mistake of the user's ends it with one line and code 1.

    What a mistake looks like: a file that is not there, a voice or a value that does not exist.
    """
    parsed = tyro.cli(config, description=description, config=(tyro.conf.OmitArgPrefixes,))
    try:
        main(parsed)
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
    except KeyboardInterrupt:
        sys.exit(130)
