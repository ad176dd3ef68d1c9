"""`make gpu` at its trial size: what runs unseen on a GPU runs here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, requirements
from benchmarks.paper_model import Shape, build, parameters
from recipes.covost2.estimate import Model, rates_in


@pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu runs it at its full size")
def test_the_trial_passes_and_has_every_row(tmp_path: Path) -> None:
    results = gpu.ROOT / "docs" / "results" / "gpu.md"
    before = results.read_bytes()
    assert gpu.main(gpu.Options(out=tmp_path / "gpu.md")) == 0
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert text.startswith("# On a GPU\n")
    assert "FAIL" not in text
    for row in ("`augment`", "`train`", "a live stream", "a further token, 1 streams", "one token behind", "streams of 10 s"):
        assert f"| {row}" in text or f" {row}" in text, row
    read = tmp_path / "read.md"
    read.write_text(re.sub(r"[\d.]+(% of the peak| ms \|)", r"5\1", text), encoding="utf-8")  # small figures may be 0
    fields = {"peak_flops", "training_share", "reading_share", "token_ms", "decoded_rows"}
    assert set(rates_in(read)) == fields == set(rates_in(results))
    assert results.read_bytes() == before  # which only a GPU writes


def test_a_section_that_fails_is_a_line_and_the_others_go_on() -> None:
    report = gpu.Report()
    report.row("before", "1 ms")

    def broken() -> None:
        raise RuntimeError("CUDA error: | an illegal address\nand more")

    gpu.section(report, "speaking", broken)
    gpu.section(report, "`train`", lambda: report.row("`train`", "5 rows/s"))
    assert report.lines[1:] == [
        "| FAIL: speaking (RuntimeError: CUDA error: / an illegal address) | | | |",
        "| `train` | 5 rows/s |  |  |",
    ]
    assert not report.passed


def test_what_hangs_is_ended_and_the_table_is_kept(tmp_path: Path) -> None:
    code = (
        "import threading, time; from benchmarks import gpu\n"
        "gpu.decoding_paths = lambda report, device: report.say('- PASS: of old')\n"
        "def rates(report, *_):\n"
        "    threading.Thread(target=gpu.give_up, args=(report, 300)).start()\n"  # as the timer does
        "    time.sleep(600)\n"
        "gpu.rates = rates\n"
        f"gpu.main(gpu.Options(tests=False, out=gpu.Path({str(tmp_path / 'gpu.md')!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=gpu.ROOT, env={**os.environ, "PYTHONPATH": "src:."}, timeout=120)
    assert done.returncode == 1
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()[-2:] == [
        "- PASS: of old",
        "- FAIL: rates was not done after 300 s, and what follows it was not begun",
    ]


def test_what_must_be_brought_is_named_without_importing_it() -> None:
    names = requirements.required()
    assert {"torch", "tyro", "soundfile", "soxr", "Babel", "peft", "accelerate", "OmniSTEval", "sacrebleu", "pytest"} <= set(
        names
    )
    assert requirements.missing(["pytest", "no-such-package"]) == ["no-such-package"]
    code = "import sys; from benchmarks.requirements import main; main(); sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=gpu.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "packages that are missing and must be brought as wheels: none"


def test_the_tests_that_run_on_a_gpu_exist() -> None:
    assert [name for name in gpu.TESTS if not (gpu.ROOT / "tests" / f"test_{name}.py").exists()] == []


def test_a_check_that_fails_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu.Report()
    report.check("all is well", True, "3 of 3")
    assert report.passed
    report.check("all is well", False, "2 of 3")
    report.check("all is well", True, "3 of 3")
    assert not report.passed
    assert capsys.readouterr().out.splitlines()[1] == "- FAIL: all is well (2 of 3)"


def test_the_shape_is_that_of_the_papers_model() -> None:
    shape = Shape()
    assert (shape.layers, shape.width, shape.vocabulary) == (Model.layers, Model.width, Model.vocabulary)
    lalm = build(Shape(layers=1, tower_layers=1, width=64, vocabulary=4096), torch.device("cpu"), torch.float32)
    assert set(parameters(lalm)) == {"audio tower", "language model"}
    assert lalm.dtype == torch.float32
