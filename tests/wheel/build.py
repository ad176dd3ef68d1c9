"""Build sdist and wheel twice into `dist/`, and check them (`make dist`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# the only files that may be there, besides Python modules
WHEEL = (
    r"simulsa/py\.typed",
    r"simulsa/demo/data/(report\.html|(test|train)\.(jsonl|ogg))",
    r"simulsa/models/tiny-en-de(-simul)?/([\w.]+\.(json|safetensors|jinja|md)|LICENSE-WHISPER\.txt)",
    r"simulsa/serving/page/[\w./-]+\.(html|css|js|svg|ogg|json)",
    r"simulsa-[\d.]+\.dist-info/(METADATA|RECORD|WHEEL|entry_points\.txt|licenses/(LICENSE|src/simulsa/models/tiny-en-de/LICENSE-WHISPER\.txt))",
)
SDIST = ("CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "constraints.txt", "pyproject.toml", ".gitignore")
NEEDED = {"LICENSE", "LICENSE-WHISPER.txt", "METADATA", "model.safetensors", "adapter_model.safetensors", "test.ogg", "py.typed"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        builds = [built(Path(folder) / number) for number in ("first", "second")]
        for first, second in zip(*builds, strict=True):
            if first.read_bytes() != second.read_bytes():
                sys.exit(f"{first.name}: two builds differ")
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, builds[0])], check=True)
        for archive in builds[0]:
            check_content(archive)
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        (ROOT / "dist").mkdir()
        for archive in builds[0]:
            shutil.copy(archive, ROOT / "dist")
            print(f"dist/{archive.name}: {archive.stat().st_size / 1e6:.1f} MB")


def built(out: Path) -> list[Path]:
    """The wheel and the sdist, made at the date of the last commit."""
    date = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": date.strip()})
    return sorted(out.iterdir())


def check_content(archive: Path) -> None:
    """Exit with the names of files that should not be in the archive, or are missing."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            names = wheel.namelist()
    else:
        with tarfile.open(archive) as sdist:
            names = [member.name.partition("/")[2].removeprefix("src/") for member in sdist if member.isfile()]
            names = [name for name in names if name not in SDIST]
    stray = [name for name in names if not is_ours(name)]
    if stray:
        sys.exit(f"{archive.name}: stray files: {', '.join(stray)}")
    if archive.suffix == ".whl" and (missing := NEEDED - {name.rpartition("/")[2] for name in names}):
        sys.exit(f"{archive.name}: lacks {', '.join(sorted(missing))}")
    print(f"{archive.name}: {len(names)} files, none stray")


def is_ours(name: str) -> bool:
    """Whether a file of the wheel is one that belongs there."""
    return bool(re.fullmatch(r"simulsa/([\w]+/)*\w+\.py", name)) or any(re.fullmatch(rule, name) for rule in WHEEL)


if __name__ == "__main__":
    main()
