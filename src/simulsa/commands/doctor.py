"""`simulsa doctor`: what an issue report needs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement  # transformers brings it

from simulsa._version import __version__
from simulsa.commands.parsing import parse

PACKAGES = ("torch", "transformers", "tokenizers", "huggingface_hub", "numpy", "soundfile")
EMBEDDED = "tiny-en-de-simul"


@dataclass(frozen=True)
class Doctor:
    """Check this installation: versions, devices, memory, extras, the hub, and the bundled model's preflight."""


def main(arguments: Sequence[str]) -> None:
    """Run the command. Raises `LALMError` if the bundled model fails."""
    parse(Doctor, arguments, "doctor")
    print(f"simulsa {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print("packages   " + ", ".join(f"{name} {_version(name) or 'missing'}" for name in PACKAGES))
    for label, line in (*_machine(), *_extras(), ("hub", _hub())):
        print(f"{label:<11}{line}", flush=True)
    print(f"{'model':<11}{_preflight()}")


def _machine() -> Iterator[tuple[str, str]]:
    import torch

    yield "processor", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of PyTorch, {platform.machine()}"
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        total, free = (os.sysconf(f"SC_{kind}_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 for kind in ("PHYS", "AVPHYS"))
        yield "memory", f"{total:.1f} GiB, {free:.1f} GiB of it unused"
    if not torch.cuda.is_available():
        yield "GPU", f"none that PyTorch can use (built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'})"
    for number in range(torch.cuda.device_count()):
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(number))
        yield "GPU", f"cuda:{number}, {torch.cuda.get_device_name(number)}, {total:.1f} GiB, {free:.1f} GiB of it free"


def _extras() -> Iterator[tuple[str, str]]:
    """Which extras are complete, and which lack what."""
    try:
        about = metadata.metadata("simulsa")
    except metadata.PackageNotFoundError:
        yield "extras", "unknown: simulsa runs from a folder and is not installed"
        return
    needs = [Requirement(line) for line in metadata.requires("simulsa") or []]
    complete, lines = [], []
    for extra in sorted(set(about.get_all("Provides-Extra") or []) - {"all", "dev"}):
        own = [need for need in needs if need.marker and need.marker.evaluate({"extra": extra})]
        lacking = [need.name for need in own if not _fits(need)]
        if lacking:
            lines.append(f"{extra} (lacks {', '.join(lacking)})")
        else:
            complete.append(extra)
    yield "extras", ", ".join(complete) or "none"
    yield "", "not there: " + ", ".join(lines) if lines else "all of them"


def _fits(need: Requirement) -> bool:
    """Whether a package is there in a version that fits, with what its own extras ask for (`sacrebleu[ja]`)."""
    version = _version(need.name)
    if version is None or not need.specifier.contains(version, prereleases=True):
        return False
    inner = [Requirement(line) for line in metadata.requires(need.name) or [] if need.extras]
    asked = [one for one in inner if one.marker and any(one.marker.evaluate({"extra": extra}) for extra in need.extras)]
    return all(_fits(one) for one in asked)


def _hub() -> str:
    from huggingface_hub import constants

    from simulsa.lalm.hub import answer_s

    if constants.HF_HUB_OFFLINE:
        return "not asked: HF_HUB_OFFLINE is set"
    try:
        return f"{constants.ENDPOINT} answers after {answer_s():.2f} s"
    except ConnectionError as error:
        return str(error)


def _preflight() -> str:
    from simulsa.lalm.load import load
    from simulsa.lalm.preflight import preflight

    started = time.perf_counter()
    lalm = load(EMBEDDED)
    preflight(lalm)
    return f"{EMBEDDED} on {lalm.device.type} passes its preflight, {time.perf_counter() - started:.1f} s"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
