"""A hub that does not answer costs one line, not five attempts; `simulsa doctor` says whether it does."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from simulsa.cli import main
from simulsa.lalm import hub
from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import load


class _Counting(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub on this machine, and what it was asked."""
    asked: list[str] = []
    handler = type("Handler", (_Counting,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield asked
        server.shutdown()


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> str:
    with http.server.HTTPServer(("127.0.0.1", 0), _Counting) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"  # whose port is closed again
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    # the client of an offline process refuses every request, so the stand-in must be told otherwise
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return endpoint


def test_one_line_without_retries(unreachable: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "clip.wav", np.zeros(8000, np.float32), 16000)
    assert main(["translate", str(tmp_path / "clip.wav"), "--model", "nobody/nothing"]) == 1
    said = capsys.readouterr().err
    start = f"simulsa translate: nobody/nothing: cannot be loaded (it is not in the cache, and the hub at {unreachable} "
    assert said.startswith(start + "does not answer (")
    assert "; give a Hugging Face id, a model folder" in said
    assert said.count("\n") == 1


def test_what_is_in_the_cache_is_loaded_from_there(
    unreachable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "config.json")
    assert hub.options_for("some/model", "some/model") == {"local_files_only": True}
    assert "some/model: loaded from the cache, because the hub at" in caplog.text


def test_a_hub_that_answers_is_asked_once(stand_in: list[str]) -> None:
    assert hub.options_for("some/model", "some/model") == {}
    assert len(stand_in) == 1


def test_offline_is_honoured(stand_in: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LALMError, match=r"cannot be loaded \(it is not in the hub's cache, and HF_HUB_OFFLINE is set\)"):
        load("nobody/nothing", "cpu")
    assert stand_in == []


def test_doctor(stand_in: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for part in ("simulsa ", "torch ", "processor ", "GPU ", "extras ", "serve", "answers after", "passes its preflight"):
        assert part in said
    assert len(stand_in) == 1


def test_doctor_on_a_machine_without_the_hub(unreachable: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert f"the hub at {unreachable} does not answer" in capsys.readouterr().out


def test_an_extra_of_a_package_counts_only_with_what_that_extra_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    from packaging.requirements import Requirement

    from simulsa.commands import doctor

    there = {"sacrebleu": "2.6.0"}
    needs = ['mecab-python3 >=1.0; extra == "ja"', 'colorama ; extra == "other"']
    monkeypatch.setattr(doctor, "_version", there.get)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs if name == "sacrebleu" else [])
    assert doctor._fits(Requirement("sacrebleu>=2"))
    assert not doctor._fits(Requirement("sacrebleu[ja]>=2"))
    there["mecab-python3"] = "1.0.10"
    assert doctor._fits(Requirement("sacrebleu[ja]>=2"))
    assert not doctor._fits(Requirement("sacrebleu>=3"))
