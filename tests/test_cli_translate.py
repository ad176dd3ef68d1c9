"""The command line: `translate` and `manifest validate` as a user runs them."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from simulsa import __version__
from simulsa.audio import SAMPLE_RATE, load_audio
from simulsa.cli import VERBS, main
from simulsa.commands.compare import Compare
from simulsa.commands.parsing import parse
from simulsa.commands.translate import Translate
from simulsa.lalm.load import ModelConfig
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import Policy
from simulsa.streaming.stream import Stream
from tests.conftest import noise
from tests.lalms import continue_

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM


@pytest.fixture
def wavs(tmp_path: Path) -> list[Path]:
    """Two clips: 1.2 s at 16 kHz, 0.9 s in stereo at 44.1 kHz."""
    one, two = tmp_path / "one.wav", tmp_path / "two.flac"
    soundfile.write(one, noise(1.2, 1), SAMPLE_RATE)
    soundfile.write(two, np.random.default_rng(2).normal(0, 0.1, (39_690, 2)), 44_100)
    return [one, two]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, random_lalm: HuggingFaceLALM, random_model_folder: Path) -> str:
    """The folder of the random model; loading it gives the one that is loaded already."""
    load = ModelConfig.load
    monkeypatch.setattr(
        ModelConfig, "load", lambda config: random_lalm if config.model == str(random_model_folder) else load(config)
    )
    return str(random_model_folder)


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on standard error; nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.strip()


def test_the_final_text_of_each_file(
    model: str,
    wavs: list[Path],
    random_lalm: HuggingFaceLALM,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # long paths are not broken
    assert run("translate", *wavs, "--model", model, "--chunk-ms", "inf") == 0
    out, err = capsys.readouterr()
    offline = [continue_(random_lalm, [load_audio(path)], [[]], [Direction("en", "de")])[0] for path in wavs]
    assert out == "".join(random_lalm.decode(tokens) + "\n" for tokens in offline)
    notes = " ".join(err.split())
    assert f"{wavs[0]}: 1.2 s of speech" in notes
    assert "0.9 s of speech" in notes
    assert "real-time factor" in notes


def test_json_lines_are_the_updates_of_a_stream(
    model: str, wavs: list[Path], random_lalm: HuggingFaceLALM, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--json", "--chunk-ms", "400", "--rollback", "2", "--target-lang", "fr", "--no-drafts"]
    assert run("translate", wavs[0], "--model", model, *flags) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stream = Stream(random_lalm, StreamConfig(target_lang="fr", chunk_ms=400, rollback=2))
    updates = stream.push(load_audio(wavs[0])) + stream.finish()
    assert [(line["committed"], line["tentative"], line["audio_s"], line["final"]) for line in lines] == [
        (update.committed, update.tentative, update.audio_s, update.final) for update in updates
    ]
    assert [line["audio_s"] for line in lines] == [0.4, 0.8, 1.2, 1.2]
    assert all(line["compute_s"] > 0 for line in lines[:3])
    assert lines[3]["compute_s"] >= 0  # it has heard everything already


def test_realtime_waits_for_the_clock(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.6), SAMPLE_RATE)
    started = time.monotonic()
    assert run("translate", tmp_path / "a.wav", "--model", model, "--chunk-ms", "inf", "--realtime") == 0
    assert time.monotonic() - started >= 0.6


def test_a_settings_file_and_flags_that_win_over_it(
    model: str, wavs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "stream.yaml"
    config.write_text(f"model: {model}\nchunk-ms: 300\nrollback: 0\n")

    def chunks(*flags: str | Path) -> list[float]:
        assert run("translate", wavs[0], "--json", *flags) == 0
        return [json.loads(line)["audio_s"] for line in capsys.readouterr().out.splitlines()]

    assert chunks("--config", config) == [0.3, 0.6, 0.9, 1.2, 1.2]
    assert chunks(f"--config={config}", "--chunk-ms", "inf") == [1.2]


def test_a_flag_wins_over_the_setting_that_excludes_it_in_the_file(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("policy: eos\n")
    assert parse(Translate, ["a.wav", "--config", str(config), "--rollback", "0"], "translate").stream == StreamConfig(rollback=0)
    config.write_text("rollback: 2\n")
    chosen = parse(Translate, ["a.wav", "--config", str(config), "--policy=eos"], "translate").stream
    assert chosen == StreamConfig(policy=Policy.parse("eos"))
    assert parse(Translate, ["a.wav", "--config", str(config)], "translate").stream == StreamConfig(rollback=2)


def test_a_command_s_own_flags_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("files: [a.wav, b.wav]\ntimestamps: true\n")
    assert parse(Translate, ["--config", str(config)], "translate") == Translate((Path("a.wav"), Path("b.wav")), timestamps=True)
    given = parse(Translate, ["c.wav", "--config", str(config), "--no-timestamps"], "translate")
    assert given == Translate((Path("c.wav"),))
    config.write_text("out: x\n")
    assert parse(Compare, ["a", "b", "--config", str(config)], "compare") == Compare((Path("a"), Path("b")), Path("x"))
    assert run("translate", "a.wav", "--config", config) == 2
    assert "a.yaml: unknown key 'out'; did you mean " in error_line(capsys)
    assert run("models", "--config", config) == 2
    assert "a.yaml: unknown key 'out'; there is nothing to set here: remove it" in error_line(capsys)
    config.write_text("json: 3\n")
    assert run("translate", "a.wav", "--config", config) == 2
    assert "a.yaml: json is 3; it must be of type bool" in error_line(capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chunk_sm: 300", "unknown key 'chunk_sm'; did you mean 'chunk_ms'?"),
        ("modle: x", "unknown key 'modle'; did you mean 'model'?"),
        ("rollback: -1", "rollback is -1; it must be a number of tokens from 0 to 1000"),
        ("rollback: many", "rollback is 'many'; it must be of type int"),
        ("[1, 2]", "a list where `key: value` lines are needed"),
    ],
)
def test_a_wrong_settings_file_is_wrong_usage(
    text: str, message: str, wavs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert run("translate", wavs[0], "--config", tmp_path / "a.yaml") == 2
    assert f"a.yaml: {message}" in error_line(capsys)


def test_a_missing_settings_file_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("translate", "a.wav", "--config", "none.yaml") == 2
    assert "none.yaml: no such settings file" in error_line(capsys)
    assert run("translate", "a.wav", "--config") == 2
    assert "--config needs the path" in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tranlate"], "unknown command 'tranlate', did you mean 'translate'?"),
        (["xyz"], "unknown command 'xyz'; see simulsa --help"),
        (["translate"], "translate needs at least one audio file"),
        (["manifest", "check"], "unknown subcommand 'manifest check'; it must be one of "),
    ],
)
def test_wrong_usage_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--chunk-msx", "5"], "--chunk-ms"),
        (["--rollback", "few"], "few"),
        (["--chunk-ms", "10"], "chunk_ms is 10"),
        (["--dtype", "float8"], "float8"),
        (["--target-lang", "klingonish"], "unknown language 'klingonish'"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("translate", "a.wav", *flags) == 2
    out, err = capsys.readouterr()
    assert message in " ".join((out + err).split())
    assert "Traceback" not in out + err


def test_no_arguments_show_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    assert run("--version") == 0
    assert capsys.readouterr().out == f"simulsa {__version__}\n"


def test_an_output_that_lacks_an_umlaut_loses_a_letter_not_the_text(tmp_path: Path) -> None:
    script = "import sys; from simulsa import cli; cli._replace_unencodable(); print('Ein Mädchen'); print('ä', file=sys.stderr)"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1251"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, encoding="cp1251", check=True)
    assert run.stdout == "Ein M?dchen\n"
    told = [line for line in run.stderr.splitlines() if "PYTHONIOENCODING=utf-8" in line]
    assert told == [
        line for line in run.stderr.splitlines() if line.startswith("simulsa: the output's encoding, cp1251, has no '\\xe4'")
    ]
    assert len(told) == 1
    environment["PYTHONIOENCODING"] = "ascii"
    argument = [sys.executable, "-m", "simulsa", "manifest", "validate", "Mädchen.jsonl"]
    run = subprocess.run(argument, env=environment, cwd=tmp_path, capture_output=True, encoding="ascii", check=False)
    assert run.returncode == 1
    assert "M?dchen.jsonl: no such manifest" in run.stderr


def test_a_broken_file_is_found_before_the_model_is_loaded(
    wavs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("translate", wavs[0], tmp_path / "none.wav", "--model", "nobody/nothing") == 1
    assert error_line(capsys).startswith(f"simulsa translate: {tmp_path / 'none.wav'}: no such audio file; check the path")
    (tmp_path / "bad.mp3").write_bytes(b"not sound")
    assert run("translate", tmp_path / "bad.mp3", "--model", "nobody/nothing") == 1
    assert "bad.mp3: not readable as audio" in error_line(capsys)


def test_a_model_that_is_not_there(wavs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("translate", wavs[0], "--model", "nobody/nothing") == 1
    assert error_line(capsys).startswith("simulsa translate: nobody/nothing: cannot be loaded")
    assert run("translate", wavs[0], "--model", "./nothing") == 1
    assert error_line(capsys).startswith("simulsa translate: ./nothing: no such folder")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such audio file"):
        run("translate", tmp_path / "none.wav", "--debug")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "out.jsonl: the disk is full; free some space"),
        (errno.EEXIST, "out.jsonl: a file is in the place of a folder"),
        (errno.EACCES, "out.jsonl: permission denied"),
        (errno.EIO, "[Errno 5] Input/output error: 'out.jsonl'"),
    ],
)
def test_errors_of_the_disk_are_said_plainly(
    number: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from simulsa.commands import translate

    def fail(_: Any) -> None:
        raise OSError(number, os.strerror(number), "out.jsonl")

    monkeypatch.setattr(translate, "main", fail)
    assert run("translate") == 1
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Error while serializing: No space left on device (os error 28)", "while writing: the disk is full"),
        ("what?\nthat!", "OddError: what? that! (unexpected; --debug shows where)"),
    ],
)
def test_errors_of_libraries_are_one_line(
    message: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from simulsa.commands import translate

    class OddError(Exception):
        pass

    def fail(_: Any) -> None:
        raise OddError(message)

    monkeypatch.setattr(translate, "main", fail)
    assert run("translate") == 1
    assert error_line(capsys).startswith(f"simulsa translate: {shown}")
    with pytest.raises(OddError):
        run("translate", "--debug")


def test_interruption_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from simulsa.commands import translate

    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(translate, "main", interrupted)
    assert run("translate") == 130
    assert "interrupted" in capsys.readouterr().err


def test_an_interruption_while_the_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert run("translate") == 130
    assert "interrupted" in capsys.readouterr().err


def test_validate(
    make_rows: Callable[..., list[Utterance]], write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(3)
    manifest = write_rows(rows)
    assert run("manifest", "validate", manifest) == 0
    assert capsys.readouterr().out == f"{manifest}: 3 rows, 0.00 hours, all audio files open\n"
    assert run("manifest", "validate", manifest, "--max-s", "2.2") == 1
    assert "row-1: row-1: the clip lasts 2.30 s" in capsys.readouterr().err
    Path(rows[2].audio).unlink()
    assert run("manifest", "validate", manifest) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[0].startswith("row-2: ")
    assert err[1] == f"simulsa manifest: {manifest}: 1 of 3 rows are broken; fix or remove them"
    manifest.write_text("{}\n")
    assert run("manifest", "validate", manifest) == 1
    assert f"{manifest}:1: missing id" in error_line(capsys)


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)


def test_in_a_process_of_its_own(random_model_folder: Path, wavs: list[Path], tmp_path: Path) -> None:
    flags = ["--model", random_model_folder, "--device", "cpu", "--chunk-ms", "inf", "--json"]
    result = python("-m", "simulsa.cli", "translate", wavs[1], *flags)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["final"] is True
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr


def test_exit_codes_of_a_process(tmp_path: Path) -> None:
    result = python("-m", "simulsa.cli", "translate", tmp_path / "none.wav")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    result = python("-m", "simulsa.cli", "translate", tmp_path / "none.wav", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert python("-m", "simulsa.cli", "translate").returncode == 2


def test_help_needs_no_torch() -> None:
    code = """
import importlib, pkgutil, sys
import simulsa.commands
from simulsa.cli import main
for module in pkgutil.iter_modules(simulsa.commands.__path__, "simulsa.commands."):  # each holds the flags of its command
    importlib.import_module(module.name)
    heavy = {"torch", "transformers", "matplotlib", "sacrebleu", "peft"} & set(sys.modules)
    assert not heavy, (module.name, heavy)
for arguments in (["--help"], ["translate", "--help"], ["manifest", "--help"], ["manifest", "validate", "--help"]):
    assert main(arguments) == 0, arguments
assert not {"torch", "transformers"} & set(sys.modules)
"""
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    assert "--chunk-ms" in result.stdout
    assert "audio files (WAV, FLAC, OGG/Opus, MP3)" in result.stdout
