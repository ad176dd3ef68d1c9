"""What is installed decides what can be done: a missing extra is named before any work is done."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from simulsa import extras
from simulsa.cli import main
from simulsa.extras import JOBS, require

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


@pytest.mark.parametrize(
    ("arguments", "extra", "packages"),
    [
        (["train", "--offline", "none.jsonl", "--out", "run"], "train", "accelerate, matplotlib, peft"),
        (["augment", "--manifest", "none.jsonl", "--out", "rows.jsonl", "--num", "3"], "train", "accelerate, "),
        (["evaluate", "--manifest", "none.jsonl", "--out", "scores"], "evaluate", "matplotlib, omnisteval, sacrebleu"),
        (["compare", "none"], "evaluate", "matplotlib, omnisteval, sacrebleu"),
        (["score", "none.log"], "evaluate", "omnisteval, sacrebleu"),
        (["demo"], "evaluate,train", "accelerate, matplotlib, omnisteval, peft, sacrebleu"),
    ],
)
def test_a_missing_extra_is_named_first(
    arguments: list[str],
    extra: str,
    packages: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name, *_: None)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert f"needs the packages {packages}" in said
    assert f"pip install 'simulsa[{extra}]'" in said
    assert said.count("\n") == 1


def test_what_is_installed_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    require("this test", "train", "evaluate")
    monkeypatch.setattr(extras, "find_spec", lambda name, *_: None if name == "peft" else find_spec(name))
    require("this test", "evaluate")
    with pytest.raises(RuntimeError, match=r"^this test needs the package peft: pip install 'simulsa\[train\]'$"):
        require("this test", "train", "evaluate")


def test_the_extras_bring_what_their_jobs_need() -> None:
    declared = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for extra, names in JOBS.items():
        lines = declared["optional-dependencies"][extra]
        assert {line.split(">")[0].split("=")[0].lower() for line in lines} == set(names)
    core = {line.split(">")[0].lower() for line in declared["dependencies"]}
    assert not core & {name for names in JOBS.values() for name in names}


def test_translating_imports_nothing_of_the_other_jobs(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "clip.wav", np.zeros(8000, np.float32), 16000)
    script = (
        "import sys\n"
        "from simulsa.cli import main\n"
        f"assert main(['translate', {str(tmp_path / 'clip.wav')!r}]) == 0\n"
        "print(sorted({'peft', 'matplotlib', 'sacrebleu', 'omnisteval', 'starlette'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
