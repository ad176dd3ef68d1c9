"""Another process that writes the same output."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from simulsa.files import sole_writer
with sole_writer(Path(sys.argv[1]), RuntimeError()):
    print(flush=True)
    input()
"""


@contextlib.contextmanager
def written_elsewhere(out: Path) -> Iterator[None]:
    """Another process is the sole writer of `out`."""
    command = [sys.executable, "-c", CODE, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.communicate(b"\n")
