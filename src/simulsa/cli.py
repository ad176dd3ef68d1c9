"""The command line: one thin module per command, flags generated from settings dataclasses by tyro.

Exit codes: 0 success, 1 failure (one line gives the cause and the fix; `--debug` shows the traceback), 2 wrong usage, 130
interrupted.
"""

from __future__ import annotations

import codecs
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from simulsa._version import __version__

VERBS = {  # what each does; its module in `commands` has the same name
    "demo": "run the whole method on the bundled model and speech, in minutes",
    "augment": "make simultaneous training rows from offline ones",
    "train": "fine-tune a model on offline and simultaneous rows",
    "translate": "translate audio files or a microphone live",
    "evaluate": "measure quality and latency over chunk sizes and policies",
    "score": "score the log of any system run with SimulEval or simulstream",
    "serve": "run the live server: a web page and an API",
    "compare": "compare several evaluations in one table and one plot",
    "manifest": "create, check and filter manifests",
    "merge": "write an adapter and its base as one model, for other engines",
    "export": "export rows for ms-swift, LLaMA-Factory or Hugging Face datasets",
    "doctor": "check this installation: versions, devices, extras, hub, the bundled model",
    "models": "list the supported families of audio-language models and their requirements",
}
REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EFBIG: "a file is larger than this disk or a limit (ulimit -f) allows; raise the limit or choose another path",
    errno.EEXIST: "a file is in the place of a folder; choose another path",
    errno.ENOTDIR: "a file is in the place of a folder; choose another path",
    errno.EACCES: "permission denied; choose another path or change the permissions",
}
USAGE = 2
INTERRUPTED = 130


def process() -> int:
    """Run `main` in a process that exits afterwards.

    On exit, the interpreter searches all remaining objects, mostly those of PyTorch and transformers, for garbage: 1.3 s for
    nothing. It skips frozen objects.
    """
    code = main()
    gc.freeze()
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run `simulsa VERB ...`; returns the exit code."""
    _replace_unencodable()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"simulsa {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        return _wrong_usage(f"unknown command {verb!r}{_nearest(verb)}; see simulsa --help")
    debug = "--debug" in rest
    rest = [argument for argument in rest if argument != "--debug"]
    try:
        return _run(verb, rest, debug)
    except KeyboardInterrupt:  # while the command is imported, too: for the first second or more
        print("\nsimulsa: interrupted; run the same command again to resume", file=sys.stderr)
        return INTERRUPTED


def _replace_unencodable() -> None:
    """Replace characters missing from the terminal's encoding instead of failing, and say so once."""
    told = False

    def replace(error: UnicodeError) -> tuple[str | bytes, int]:
        nonlocal told
        if not told and isinstance(error, UnicodeEncodeError):
            told = True
            lacking = ascii(error.object[error.start : error.end])
            print(
                f"simulsa: the output's encoding, {sys.stdout.encoding}, has no {lacking}; missing characters become '?': "
                "set PYTHONIOENCODING=utf-8 to keep them",
                file=sys.stderr,
            )
        return codecs.replace_errors(error)

    codecs.register_error("simulsa-replace", replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="simulsa-replace")


def _run(verb: str, arguments: list[str], debug: bool) -> int:
    from simulsa.commands.parsing import UsageError

    command = importlib.import_module(f"simulsa.commands.{verb}")
    try:
        command.main(arguments)
    except UsageError as error:
        return _wrong_usage(str(error))
    except BrokenPipeError:
        sys.stderr.close()  # the reader is gone; nothing more can be printed
        return 1
    except SystemExit as exit_:  # tyro: 0 after --help, 2 after wrong flags
        return _exit_code(exit_.code)
    except Exception as error:  # libraries raise bare subclasses of Exception, even for a full disk
        if debug:
            raise
        print(f"simulsa {verb}: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _exit_code(code: Any) -> int:
    return code if isinstance(code, int) else 0 if code is None else 1


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in REMEDIES:
        return f"{error.filename or 'while writing'}: {REMEDIES[error.errno]}"
    if os.strerror(errno.ENOSPC) in str(error):  # safetensors reports it in its own words
        return f"while writing: {REMEDIES[errno.ENOSPC]}"
    message = " ".join(str(error).split())
    if isinstance(error, (ValueError, RuntimeError, OSError)):
        return message or type(error).__name__
    return f"{type(error).__name__}: {message} (unexpected; --debug shows where)"


def _wrong_usage(message: str) -> int:
    print(f"simulsa: {message}", file=sys.stderr)
    return USAGE


def _nearest(verb: str) -> str:
    import difflib

    near = difflib.get_close_matches(verb, VERBS, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _overview() -> str:
    lines = [f"  {verb:<10} {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            f"simulsa {__version__}: translate while the speaker talks, with any audio-language model",
            "",
            "usage: simulsa COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "simulsa COMMAND --help shows a command's options; --debug shows the traceback of an error.",
        ]
    )


if __name__ == "__main__":
    sys.exit(process())
