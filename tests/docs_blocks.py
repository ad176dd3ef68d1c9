"""The command blocks of a page, run in order in one folder, as a reader would.

- ```` ```sh ```` and ```` ```python ```` blocks run; a ```` ```text ```` block right behind one is what it prints, with `...` for
  anything.
- `<!-- not run: REASON -->` before a block leaves it out. `<!-- run with: OLD => NEW; OLD => NEW -->` makes it smaller for the
  test, and its output is then not compared. Readers see neither.
- Other blocks name their language (json, yaml, ...). A block without one is an error, so that no command goes unnoticed.

`python -m tests.docs_blocks README.md docs/tutorials/*.md` shows every block that prints something else by now, as after a new
bundled model.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import simulsa.serving.server
from simulsa.cli import main

FENCE = re.compile(r"(?:<!-- (not run|run with): ([^>]*(?:=>[^>]*)*) -->\n)?^( *)```(.*)\n((?:.*\n)*?)\3```$", re.M)
STAND_INS = {"Qwen/Qwen2-Audio-7B-Instruct": "tiny-en-de"}  # what has no weights here
RUN = ("sh", "python")


@dataclass(frozen=True)
class Block:
    """A fenced block that runs."""

    language: str
    code: str
    line: int
    prints: str | None = None
    """what it should print; None: not compared"""


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that run. Raises `ValueError` for a block without a language or a marker without a reason."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = -1  # of a block that ran, if nothing but space follows
    for match in FENCE.finditer(text):
        marker, argument, indent, language, code = match.groups()
        line = text.count("\n", 0, match.start(3)) + 1
        code = re.sub(f"^{indent}", "", code, flags=re.M)
        if not language:
            raise ValueError(f"{page.name}:{line}: a block without a language; sh and python run, text is what they print")
        if marker == "not run" and not argument.strip():
            raise ValueError(f"{page.name}:{line}: say why the block is not run")
        if language == "text" and end >= 0 and not text[end : match.start()].strip():
            found[-1] = Block(found[-1].language, found[-1].code, found[-1].line, code)
        end = -1
        if language in RUN and marker != "not run":
            smaller = _smaller(code, argument if marker else "", f"{page.name}:{line}")
            found.append(Block(language, smaller, line))
            end = match.end() if smaller == code else -1
    return found


def _smaller(code: str, pairs: str, where: str) -> str:
    """The code with the marker's replacements and the stand-ins."""
    for pair in filter(None, map(str.strip, pairs.split(";"))):
        old, _, new = (part.strip() for part in pair.partition("=>"))
        if old not in code:
            raise ValueError(f"{where}: {old!r} is not in the block")
        code = code.replace(old, new)
    for old, new in STAND_INS.items():
        code = code.replace(old, new)
    return code


@dataclass
class Reader:
    """Runs blocks in a folder; `simulsa` in this process, because each start would take seconds, and everything else in bash."""

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    server: tuple[Any, threading.Thread] | None = None

    def run(self, block: Block) -> str:
        """What the block prints, errors and notes included. Raises `AssertionError` with the command that failed."""
        printed = io.StringIO()
        with _inside(self.folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if block.language == "python":
                exec(compile(self._here(block.code), f"line {block.line}", "exec"), self.names)
            else:
                for command in commands(block.code):
                    self._command(command)
        return printed.getvalue()

    def _command(self, command: str) -> None:
        command = self._here(command)
        words = shlex.split(command, comments=True)
        if words[:2] == ["simulsa", "serve"]:
            self._serve(words[2:])
        elif words[0] == "simulsa":
            code = main(words[1:])
            assert code == 0, f"{command}\n{sys.stderr.getvalue()}"  # type: ignore[attr-defined]
        else:
            done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout}"
            print(done.stdout, end="")

    def _here(self, code: str) -> str:
        """The code with the server's port instead of the usual one."""
        return code.replace(":8000", f":{self.port}") if self.server else code

    def _serve(self, flags: list[str]) -> None:
        """Start the server on a free port and wait until it is ready; `close` ends it, as a signal would."""
        self.close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        made: list[Any] = []

        def make_server(service: Any) -> Any:
            made.append(make(service))
            return made[0]

        make = simulsa.serving.server.make_server
        thread = threading.Thread(target=main, args=(["serve", "--port", str(self.port), *flags],))
        with mock.patch("simulsa.serving.server.make_server", make_server):
            thread.start()
            while not made or not made[0].started:
                assert thread.is_alive(), f"the server stopped\n{sys.stderr.getvalue()}"  # type: ignore[attr-defined]
                time.sleep(0.05)
        self.server = made[0], thread

    def close(self) -> None:
        """End the server, if there is one."""
        if self.server:
            server, thread = self.server
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
            self.server = None


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def commands(code: str) -> list[str]:
    """The commands of a shell block, one a line; a backslash continues a line."""
    lines = (line.strip() for line in code.replace("\\\n", " ").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def stale(page: Path, folder: Path) -> Iterator[str]:
    """Runs the page's blocks in a folder; yields line and output of each that does not print what the page says."""
    reader = Reader(folder)
    try:
        for block in blocks(page):
            printed = reader.run(block)
            if block.prints is not None and not prints(block.prints, printed):
                yield f"{page.name}:{block.line} prints\n{printed}"
    finally:
        reader.close()


def prints(wanted: str, got: str) -> bool:
    """Whether `got` is `wanted`, whose `...` stands for anything; runs of white space are equal."""
    return doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            for found in stale(Path(name).resolve(), Path(folder)):
                print(found)
