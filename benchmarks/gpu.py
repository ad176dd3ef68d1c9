"""Is simulsa correct and fast on this GPU? CUDA tests, equality of decoding paths, and speed of a model of 7 billion weights.

    make gpu          # or: python -m benchmarks.gpu [--no-tests] [--out docs/results/gpu.md]

Takes at most five minutes on one GPU with 40 GB and no network; the table, which is rewritten after each part, names what was
not done by then. PyTorch with CUDA and transformers must be installed; `benchmarks.requirements`, which `make gpu` runs first,
lists the missing packages, which must be supplied as wheels (typically soundfile, soxr, peft, accelerate, tyro, Babel,
sacrebleu, OmniSTEval, and pytest and hypothesis for the tests). Without a GPU, everything runs at a trial size on the CPU,
except the tests, which `make test` runs there.
"""

from __future__ import annotations

import gc
import importlib.util
import itertools
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.paper_model import TRIAL, Shape, build, operations, parameters
from benchmarks.setup import machine, rows_of
from simulsa.audio import SAMPLE_RATE
from simulsa.augmentation.augment import augment
from simulsa.augmentation.config import AugmentConfig
from simulsa.files import atomic_write
from simulsa.lalm.device import on_grid
from simulsa.lalm.graphs import StaticSteps
from simulsa.lalm.instructions import instruction
from simulsa.lalm.load import load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.training.config import TrainConfig
from simulsa.training.train import train_adapter
from simulsa.training.trainer import TokenMeanTrainer

ROOT = Path(__file__).parent.parent
TESTS = [  # those that use SIMULSA_TEST_DEVICE
    *(
        "lalm",
        "lalm_cache",
        "lalm_device",
        "lalm_families",
        "lalm_graphs",
        "lalm_grouping",
        "lalm_window",
        "streaming",
        "policies",
    ),
    *("evaluation_simulate", "training_data", "training_train", "training_folder", "training_speed", "serving_session"),
]
TESTS_S = 120  # time limit, out of the five minutes
EN_DE = Direction("en", "de")


@dataclass(frozen=True)
class Options:
    """What to run, and where to write the table."""

    tests: bool = True
    """run the tests on CUDA first"""
    out: Path | None = None
    """where the table is written; by default docs/results/gpu.md on a GPU and nowhere without"""
    peak_tflops: float = 989
    """the GPU's dense peak in bfloat16 (989: H100, H200)"""
    limit_s: float = 300
    """when to end, whatever is still running"""


@dataclass
class Report:
    """Lines of the table, and whether all checks passed."""

    out: Path | None = None
    """where the table is written"""
    lines: list[str] = field(default_factory=list)
    passed: bool = True
    at_work: str = "the start"
    """the section that is running"""

    def write(self) -> None:
        """Write the table so far."""
        if self.out is not None:
            with atomic_write(self.out) as file:
                file.write("# On a GPU\n\n" + "\n".join(self.lines) + "\n")

    def fail(self, line: str) -> None:
        """Add a line that says what failed, as a row if the table has begun."""
        self.passed = False
        line = f"FAIL: {line}".replace("|", "/")
        self.say(f"| {line} | | | |" if self.lines and self.lines[-1].startswith("|") else f"- {line}")

    def say(self, line: str) -> None:
        """Add a line, and print it."""
        self.lines.append(line)
        print(line, flush=True)

    def row(self, what: str, figure: str, others: str = "", limit: str = "") -> None:
        """Add a row to the table."""
        self.say(f"| {what} | {figure} | {others} | {limit} |")

    def check(self, what: str, holds: bool, figures: str) -> None:
        """Report a condition that must hold."""
        self.passed &= holds
        self.say(f"- {'PASS' if holds else 'FAIL'}: {what} ({figures})")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    shape: Shape
    augmented: int
    trained: int
    micro_batch: int
    streams: tuple[int, ...]
    lengths_s: tuple[float, ...]
    tokens: int
    """length of the answers that are used to time further tokens"""


FULL = Size(Shape(), 768, 640, 32, (1, 8, 32), (2, 5, 10, 20, 29), 64)
SMALL = Size(TRIAL, 8, 8, 4, (1, 2), (1, 2), 6)


def main(options: Options) -> int:
    """Run everything; the exit code says whether all checks passed."""
    started = time.perf_counter()
    cuda = torch.cuda.is_available()
    report = Report(options.out or (ROOT / "docs" / "results" / "gpu.md" if cuda else None))
    size = FULL if cuda else SMALL
    watch = threading.Timer(options.limit_s, give_up, (report, options.limit_s))
    watch.daemon = True
    watch.start()
    report.say(
        f"{machine()}; one run of `python -m benchmarks.gpu`" + ("" if cuda else ", at a trial size: no figure means anything")
    )
    report.say("")
    report.write()  # the table exists even if the process ends early
    logging.getLogger("transformers").setLevel(logging.ERROR)  # some releases warn for every clip
    device = torch.device("cuda" if cuda else "cpu")
    if options.tests and cuda:
        section(report, "tests on CUDA", lambda: run_tests(report))
    section(report, "decoding paths", lambda: decoding_paths(report, device))
    section(report, "rates", lambda: rates(report, size, options.peak_tflops, device))
    watch.cancel()
    report.say(f"\nAll of it took {time.perf_counter() - started:.0f} s.")
    report.write()
    return 0 if report.passed else 1


def give_up(report: Report, limit_s: float) -> None:
    """End the process at the time limit: a compiler or kernel that hangs cannot be interrupted, and GPU time is scarce."""
    report.fail(f"{report.at_work} was not done after {limit_s:g} s, and what follows it was not begun")
    report.write()
    os._exit(1)


def section(report: Report, what: str, work: Callable[[], None]) -> None:
    """Run one part; if it fails, a line says so and the others go on."""
    report.at_work = what
    try:
        work()
    except Exception as error:  # whatever it is, the other sections are still worth running
        reason = (str(error).strip().splitlines() or [""])[0]
        report.fail(f"{what} ({type(error).__name__}: {reason})")
        traceback.print_exc()
    report.write()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rates(report: Report, size: Size, peak_tflops: float, device: torch.device) -> None:
    """Measure everything in the table."""
    lalm = build(size.shape, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    counts = ", ".join(f"{name} {count / 1e9:.2f} billion parameters" for name, count in parameters(lalm).items())
    dtype = str(lalm.dtype).removeprefix("torch.")
    report.say(f"\nRandom weights: {counts}; {dtype}; clips of about 3 s; the peak is {peak_tflops:g} TFLOP/s.\n")
    report.say("| what | simulsa | transformers' `generate` | limit |\n|---|---|---|---|")
    parts = {
        "speaking": lambda: speaking(report, lalm, size),
        "`augment`": lambda: augmentation(report, lalm, size, peak_tflops),
        "`train`": lambda: training(report, lalm, size, peak_tflops),
    }
    for name, part in parts.items():
        section(report, name, part)


def run_tests(report: Report) -> None:
    """Run the tests that use SIMULSA_TEST_DEVICE, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/test_{name}.py" for name in TESTS)]
    if importlib.util.find_spec("xdist") is not None:
        command += ["--numprocesses", str(max(1, min(12, (os.cpu_count() or 1) - 2)))]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"SIMULSA_TEST_DEVICE": "cuda", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as output:
        tests = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            tests.wait(TESTS_S)
        except subprocess.TimeoutExpired:  # end its workers too, or the figures below would be those of a busy machine
            os.killpg(tests.pid, signal.SIGKILL)
            tests.wait()
        output.seek(0)
        lines = output.read().strip().splitlines() or [""]
    late = f"not done after {TESTS_S} s: " if tests.returncode == -signal.SIGKILL else ""
    report.check("tests on CUDA", tests.returncode == 0, late + lines[-1])
    for line in [line for line in lines if line.startswith(("FAILED", "ERROR"))][:20]:
        report.say(f"  - {line}")


def decoding_paths(report: Report, device: torch.device) -> None:
    """Check with the bundled model in float32 that every decoding path gives the tokens of the plain one."""
    lalm = load("tiny-en-de", device=device.type, dtype="float32")
    rows = rows_of(None, 60 if device.type == "cuda" else 6)
    audios = [row.load() for row in rows]
    cuda = device.type == "cuda"
    heard = lalm.hear(audios, [EN_DE] * len(rows))
    lalm.decoder.steps = None
    plain = [said.tokens for said in lalm.continue_(heard, [[]] * len(rows))]
    lalm.decoder.steps = StaticSteps(lalm.decoder, graphs=cuda)
    fixed = [said.tokens for said in lalm.continue_(heard, [[]] * len(rows))]
    drafted = [
        said.tokens for said in lalm.continue_(heard, [[]] * len(rows), [[*tokens[: len(tokens) // 2], 5] for tokens in plain])
    ]
    alone = [lalm.continue_([clip], [[]])[0].tokens for clip in heard]
    for name, tokens in (("in fixed memory", fixed), ("with drafts", drafted), ("one by one", alone)):
        equal = sum(one == other for one, other in zip(tokens, plain, strict=True))
        report.check(f"float32, {name}: the tokens of the plain path", equal == len(rows), f"{equal} of {len(rows)}")
    captures = lalm.decoder.steps.captures
    report.check("steps are CUDA graphs" if cuda else "no graphs without a GPU", (captures > 0) is cuda, f"{captures} captured")
    report.check("fixed memory was used", lalm.decoder.steps.steps > 0, f"{lalm.decoder.steps.steps} steps")


def speaking(report: Report, lalm: HuggingFaceLALM, size: Size) -> None:
    """Time streams, prefills and further tokens, each next to `generate`."""
    limit = token_limit_ms(lalm)
    seconds = 11 if lalm.device.type == "cuda" else 1
    lalm.warm_up(EN_DE, size.streams[-1], seconds * SAMPLE_RATE)  # as the server does
    for name, shift in (("a live stream, 20 chunks of new lengths, 4 tokens a chunk", 37), ("the same again, other lengths", 91)):
        times = stream_ms(lalm, size, shift)
        figures = f"median {statistics.median(times):.0f}, worst {max(times):.0f} ms a chunk"
        report.row(name, figures, "", f"about {4 * limit:.0f} ms and the prefill" if limit else "")
    for count in (1, min(16, size.streams[-1])):
        own, others = further_token_ms(lalm, count, size, said), further_token_ms(lalm, count, size, generated)
        report.row(f"a further token, {count} streams", f"{own:.1f} ms", f"{others:.1f} ms", f"{limit:.1f} ms" if limit else "")
    for length_s in size.lengths_s:
        clips = sounds(1, length_s)
        own, others = milliseconds(lambda: said(lalm, clips, 1)), milliseconds(lambda: generated(lalm, clips, 1))  # noqa: B023
        report.row(f"one token behind {length_s:g} s", f"{own:.0f} ms", f"{others:.0f} ms")
    for count in size.streams:
        clips = sounds(count, 10 if lalm.device.type == "cuda" else 1)
        own, others = milliseconds(lambda: said(lalm, clips, 4)), milliseconds(lambda: generated(lalm, clips, 4))  # noqa: B023
        report.row(f"{count} streams of 10 s, one step of 4 tokens", f"{own:.0f} ms", f"{others:.0f} ms")
    steps = lalm.decoder.steps
    if steps is not None:
        report.row("memory of the cache", f"{steps.nbytes / 1e9:.1f} GB, {steps.captures} graphs")


def sounds(count: int, length_s: float) -> list[np.ndarray]:
    """Noise clips of about the same length."""
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(round(SAMPLE_RATE * length_s) - 160 * i)).astype(np.float32) for i in range(count)]


def said(lalm: HuggingFaceLALM, clips: Sequence[np.ndarray], tokens: int) -> None:
    """Encode the clips and decode this many tokens of each."""
    lalm.max_target_tokens = tokens
    lalm.continue_(lalm.hear(clips, [EN_DE] * len(clips)), [[]] * len(clips))


def generated(lalm: HuggingFaceLALM, clips: Sequence[np.ndarray], tokens: int) -> None:
    """The same with transformers alone: its processor and greedy `generate`."""
    text = {"type": "text", "text": instruction(EN_DE, lalm.family.name)}
    conversations = [[{"role": "user", "content": [lalm.family.audio_content(clip), text]}] for clip in clips]
    batch = lalm.processor.apply_chat_template(
        conversations,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"text_kwargs": {"padding": True, "padding_side": "left"}},
    )
    inputs = {name: value.to(lalm.device) for name, value in batch.items()}
    inputs = {name: value.to(lalm.dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.no_grad():
        lalm.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)


def stream_ms(lalm: HuggingFaceLALM, size: Size, shift: int) -> list[float]:
    """The time of each of 20 chunks of 500 ms, encoded and decoded as in `step`, with prefixes that grow by 4 tokens."""
    audio = sounds(1, 10.5)[0]
    chunk = 8000 if size is FULL else 1600
    times = []
    for number in range(1, 21 if size is FULL else 4):
        prefix = [10 + i % 50 for i in range(4 * (number - 1))]
        lalm.max_target_tokens = len(prefix) + 4
        clip = audio[: number * chunk + 16 * shift]
        times.append(
            milliseconds(lambda: lalm.continue_(lalm.hear([clip], [EN_DE]), [prefix]), runs=1)  # noqa: B023
        )
    return times


def further_token_ms(
    lalm: HuggingFaceLALM, count: int, size: Size, speak: Callable[[HuggingFaceLALM, Sequence[np.ndarray], int], None]
) -> float:
    """The time per token after the first."""
    clips = sounds(count, 3 if size is FULL else 1)
    few, many = (milliseconds(lambda: speak(lalm, clips, tokens)) for tokens in (1, 1 + size.tokens))  # noqa: B023
    return (many - few) / size.tokens


def milliseconds(work: Callable[[], Any], runs: int = 3) -> float:
    """The median time of `work`; of several runs, the first is a warm-up and does not count."""
    times = []
    for _ in range(runs + (runs > 1)):
        synchronise()
        started = time.perf_counter()
        work()
        synchronise()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:] if runs > 1 else times)


def synchronise() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def token_limit_ms(lalm: HuggingFaceLALM) -> float:
    """How long the GPU takes to read the language model's weights, at the rate of a copy; 0 without a GPU."""
    if lalm.device.type != "cuda":
        return 0.0
    source = torch.empty(2**30, dtype=torch.uint8, device=lalm.device)
    target = torch.empty_like(source)
    rate = 2 * source.nbytes / milliseconds(lambda: target.copy_(source), runs=5)
    weights = sum(weight.nbytes for weight in (*lalm.decoder.language_model.layers.parameters(), lalm.decoder.head.weight))
    return float(weights / rate)


def bundled(count: int) -> list[Utterance]:
    """Rows of 2.5 to 3.5 s: they fall on few sizes of the grid, so few shapes are compiled."""
    rows = [row for row in rows_of(None, 10_000) if 2.5 <= row.length_samples() / SAMPLE_RATE <= 3.5]
    return [replace(rows[i % len(rows)], id=f"row-{i}") for i in range(count)]


def augmentation(report: Report, lalm: HuggingFaceLALM, size: Size, peak_tflops: float) -> None:
    """Rows per second of `augment`, at its own settings."""
    lalm.max_target_tokens = None
    rows = bundled(size.augmented)
    few = max(2, len(rows) // 4)

    def make(count: int) -> tuple[list[Utterance], float]:
        config = AugmentConfig(num=count, truncation="beta-decay-full", preflight=False)
        made: list[Utterance] = []
        ms = milliseconds(lambda: made.extend(augment(rows[:count], lalm, config)), runs=1)
        return made, ms / 1000

    make(few)  # warm-up
    (_, few_s), (made, all_s) = make(few), make(len(rows))
    report.row(f"`augment`, {len(rows)} rows, start counted", f"{len(rows) / all_s:.1f} rows/s")
    further_s = max(all_s - few_s, 1e-9)
    share = operations(lalm, made, 2) * (1 - few / len(made)) / further_s / (peak_tflops * 1e12)
    report.row("`augment`, further rows", f"{(len(rows) - few) / further_s:.1f} rows/s, {share:.1%} of the peak")


def training(report: Report, lalm: HuggingFaceLALM, size: Size, peak_tflops: float) -> None:
    """Rows per second of `train`: overall, with startup and compilation, and of a pass in the middle."""
    rows = bundled(size.trained)
    ends: list[float] = []
    original = TokenMeanTrainer.training_step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        synchronise()
        ends.append(time.perf_counter())
        return loss

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            out=Path(folder) / "run",
            epochs=1,
            batch_size=2 * size.micro_batch,
            micro_batch_size=size.micro_batch,
            length_grouping=True,
            preflight=False,
            encoder_cache_mib=0,
        )
        TokenMeanTrainer.training_step = step  # type: ignore[method-assign]
        try:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            ms = milliseconds(lambda: train_adapter(lalm, rows, config), runs=1)
        finally:
            TokenMeanTrainer.training_step = original  # type: ignore[method-assign]
    pass_s = statistics.median([end - begin for begin, end in itertools.pairwise(ends)] or [ms / 1000])
    # frozen weights need no gradient: 2 operations per parameter forward, 2 backward
    share = operations(lalm, rows, 4) / len(rows) * size.micro_batch / pass_s / (peak_tflops * 1e12)
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.0f} GB" if torch.cuda.is_available() else ""
    text = f"{size.micro_batch / pass_s:.1f} rows/s, {share:.1%} of the peak{memory}"
    report.row(f"`train`, {size.micro_batch} rows a pass, a pass in the middle", text)
    sizes = len({on_grid(80 + round(25 * row.length_samples() / SAMPLE_RATE)) for row in rows})
    report.row(
        f"`train`, {len(rows)} rows, start, compiler (about {sizes} sizes) and checkpoint counted",
        f"{1000 * len(rows) / ms:.1f} rows/s",
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
