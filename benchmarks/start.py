"""Time to the first text of `simulsa translate` on the bundled model, by part.

    python -m benchmarks.start [--runs 5] [--audio CLIP.wav]

Every run is a fresh process that does what the command does and reports the wall time and processor time of each part. The
minimum over all runs counts, because other work on the machine can only add to it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path(__file__).parents[1] / "src" / "simulsa" / "demo" / "data"
PARTS = ("flags", "torch", "transformers", "model", "first text")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--audio", type=Path, help="by default the first test sentence of the demo")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(one_start(arguments.audio)))
        return
    command = [sys.executable, "-m", "benchmarks.start", "--once"]
    if arguments.audio:
        command += ["--audio", str(arguments.audio)]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(arguments.runs)]
    totals = [[sum(run[part][kind] for part in PARTS) for kind in (0, 1)] for run in runs]
    print(f"{'part':<14}{'s':>8}{'CPU s':>8}   least of {len(runs)} runs")
    for part in PARTS:
        wall, cpu = (min(run[part][kind] for run in runs) for kind in (0, 1))
        print(f"{part:<14}{wall:>8.2f}{cpu:>8.2f}")
    print(f"{'in all':<14}{min(total[0] for total in totals):>8.2f}{min(total[1] for total in totals):>8.2f}")


def one_start(audio: Path | None) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds of each part, in this process."""
    laps: dict[str, tuple[float, float]] = {}
    last = time.perf_counter(), 0.0

    def lap(part: str) -> None:
        nonlocal last
        now = time.perf_counter(), time.process_time()
        laps[part] = now[0] - last[0], now[1] - last[1]
        last = now

    from simulsa.commands.parsing import parse
    from simulsa.commands.translate import Translate

    command = parse(Translate, [str(audio or DEMO / "test.ogg")], "translate")
    lap("flags")
    import gc

    gc.disable()  # as loading does
    import torch  # noqa: F401

    lap("torch")
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration  # noqa: F401

    lap("transformers")
    lalm = command.model.load()
    lap("model")
    gc.enable()
    from simulsa.audio import load_audio
    from simulsa.manifest import read_manifest
    from simulsa.streaming.stream import Stream

    clip = load_audio(audio) if audio else read_manifest(DEMO / "test.jsonl")[0].load()
    stream = Stream(lalm, command.stream)
    for start in range(0, len(clip), 1600):  # a tenth of a second
        if any(update.committed or update.tentative for update in stream.push(clip[start : start + 1600])):
            break
    lap("first text")
    return laps


if __name__ == "__main__":
    main()
