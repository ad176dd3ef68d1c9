"""An hour of quiet in one session alongside a session with speech: what does it cost the server and the other session?

python -m benchmarks.quiet --minutes 60

The quiet is the faint noise of a muted room; the speaker repeats a minute of speech, pauses, music and noise. Both send packets
of 100 ms over sockets. The time between two packets is skipped instead of waited for, so an hour takes minutes.

As in `soak`, a second, fresh server processes the last part in turns with the first one, so that neither the content of the
speech nor other work on the machine affects the comparison.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import psutil
import tyro
from websockets.sync.client import connect

from benchmarks.recording import Recording, record, silence, to_int16
from benchmarks.setup import machine
from simulsa.audio import SAMPLE_RATE
from simulsa.serving.config import ServeConfig
from simulsa.serving.server import bind, make_server
from simulsa.serving.service import Service
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, growing_script

MAX_DIFFERENCE = 0.10  # in time on the event loop
MAX_GROWTH_MIB = 5
PACKET_S = 0.1
PACKET = round(PACKET_S * SAMPLE_RATE)
MINUTE = 60 * SAMPLE_RATE
WAITING_S = 0.1  # audio of both sessions; less than two windows of the voice activity detector
PATIENCE_S = 10.0
MIB = 2**20
TEXT = "Ein Mann in einem roten Hemd fährt auf einem alten Fahrrad durch die Straßen der Stadt"


@dataclass(frozen=True)
class Options:
    """The length of the test."""

    minutes: float = 60
    """audio of each session"""
    chunk_ms: float = 500
    rollback: int = 3
    seed: int = 0

    @property
    def stream(self) -> StreamConfig:
        """The settings of both sessions."""
        return StreamConfig(chunk_ms=self.chunk_ms, rollback=self.rollback)


class Clock:
    """The process's monotonic clock, plus the time that was skipped."""

    def __init__(self) -> None:
        self.real = time.monotonic
        self._skipped_s = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.real() + self._skipped_s

    def skip(self, seconds: float) -> None:
        """Move the clock forward."""
        self._skipped_s += seconds


@contextlib.contextmanager
def skipping() -> Iterator[Clock]:
    """Within the block, `time.monotonic` can be moved forward."""
    clock = Clock()
    time.monotonic = clock
    try:
        yield clock
    finally:
        time.monotonic = clock.real


class Pair:
    """A server with two sessions, one quiet and one with speech."""

    def __init__(self, options: Options, opened: contextlib.ExitStack) -> None:
        limits = ServeConfig(port=0, max_session_s=float("inf"))
        self._service = Service(FakeLALM(growing_script(TEXT)), limits, options.stream)
        self._service.warm_up()
        server, listening = make_server(self._service), bind(limits)
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        opened.callback(thread.join)
        opened.callback(setattr, server, "should_exit", True)
        self._cpu_clock = time.pthread_getcpuclockid(thread.ident or 0)
        self._http = http.client.HTTPConnection("127.0.0.1", port)
        opened.callback(self._http.close)
        self._quiet, self._speaker = (
            opened.enter_context(connect(f"ws://127.0.0.1:{port}/", compression=None)) for _ in range(2)
        )
        self.text = ""
        """what the server said to the speaker"""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.audio_s = 0.0
        self._spent_s = -self._event_loop_s()
        self.not_ready = 0
        """how often `/readyz` did not answer 200"""

    def hear(self, quiet: np.ndarray, speech: np.ndarray) -> None:
        """Send one int16 packet to each session, and wait until the server has processed them."""
        self._quiet.send(quiet.tobytes())
        self._speaker.send(speech.tobytes())
        arrived = [self._quiet.ping(), self._speaker.ping()]
        self.audio_s += PACKET_S
        deadline = time.perf_counter() + PATIENCE_S
        while not all(answer.wait(PATIENCE_S) for answer in arrived) or self._waiting_s() > WAITING_S:
            if time.perf_counter() > deadline:
                raise RuntimeError(f"{self._waiting_s():.1f} s of audio wait for the server; it does not keep up")
            time.sleep(0.002)

    def ask(self) -> None:
        """Ask whether the server would accept a new session."""
        self._http.request("GET", "/readyz")
        answer = self._http.getresponse()
        answer.read()
        self.not_ready += answer.status != 200

    def event_loop_ms(self) -> float:
        """The processor time of the event loop's thread per second of audio since the last call."""
        now = self._event_loop_s()
        spent, self._spent_s = self._spent_s + now, -now
        per_second, self.audio_s = 1000 * spent / self.audio_s, 0.0
        return per_second

    def finish(self) -> None:
        """End the speech of the speaking session, and receive its whole text."""
        self._speaker.send(json.dumps({"end_of_stream": True}))
        self._reader.join(PATIENCE_S)

    def _event_loop_s(self) -> float:
        return time.clock_gettime(self._cpu_clock)

    def _waiting_s(self) -> float:
        lines = self._service.metrics.text().decode().split("\n")
        return next(float(line.split(" ")[1]) for line in lines if line.startswith("simulsa_unheard_seconds "))

    def _read(self) -> None:
        for message in self._speaker:
            answer = json.loads(message)
            if "end_of_processing" in answer:
                return
            self.text += answer["new"]


@dataclass
class Quiet:
    """What was measured."""

    first_ms: float = 0.0
    """time on the event loop per second of audio: in the first part,"""
    last_ms: float = 0.0
    """in the last one,"""
    fresh_ms: float = 0.0
    """and of the fresh server beside it"""
    memory_mib: list[float] = field(default_factory=list)
    """resident, after each second, until the fresh server starts"""
    not_ready: int = 0
    text: str = ""
    reference: str = ""
    """what the speaker is told where nobody else is"""

    @property
    def growth_mib(self) -> float:
        """The growth of peak memory over what was resident after the first tenth of the time."""
        return max(self.memory_mib) - self.memory_mib[len(self.memory_mib) // 10]

    def checks(self) -> dict[str, tuple[bool, str]]:
        """The conditions to meet, other than on time: whether each holds, and its figures."""
        return {
            "ready": (self.not_ready == 0, f"/readyz refused {self.not_ready} times"),
            "memory": (self.growth_mib <= MAX_GROWTH_MIB, f"{self.growth_mib:+.1f} MiB after warming up"),
            "speaker": (self.text == self.reference, f"{len(self.text)} characters are those that it is told alone"),
        }


def quiet(options: Options) -> Quiet:
    """Run the test."""
    seconds = round(60 * options.minutes)
    edge_s = max(1, seconds // 6)
    rng = np.random.default_rng(options.seed)
    room, speech = to_int16(silence(60.0, rng)), record(60.0, options.seed)
    result = Quiet()
    with skipping() as clock, contextlib.ExitStack() as opened:
        long = Pair(options, opened)
        fresh: Pair | None = None
        for second in range(seconds):
            if second == seconds - edge_s:
                long.event_loop_ms()
                fresh = Pair(options, opened)
            pairs = [long] if fresh is None else [long, fresh]
            for start in range(second * SAMPLE_RATE, (second + 1) * SAMPLE_RATE, PACKET):
                place = slice(start % MINUTE, start % MINUTE + PACKET)
                for pair in pairs:
                    pair.hear(room[place], speech.samples[place])
                clock.skip(PACKET_S)
            for pair in pairs:
                pair.ask()
            if fresh is None:
                result.memory_mib.append(psutil.Process().memory_info().rss / MIB)
            if second + 1 == edge_s:
                result.first_ms = long.event_loop_ms()
        if fresh is not None:
            result.last_ms, result.fresh_ms = long.event_loop_ms(), fresh.event_loop_ms()
            fresh.finish()
        long.finish()
    result.not_ready, result.text = long.not_ready, long.text
    result.reference = alone(speech, seconds, options)
    return result


def alone(speech: Recording, seconds: int, options: Options) -> str:
    """The text that `Stream` produces from the speaker's audio."""
    stream = Stream(FakeLALM(growing_script(TEXT)), options.stream, SegmentationConfig())
    for start in range(0, seconds * SAMPLE_RATE, SAMPLE_RATE):
        stream.push(speech.audio(start % MINUTE, start % MINUTE + SAMPLE_RATE))
    return stream.finish()[-1].committed


def main(options: Options) -> int:
    """Print the figures and PASS or FAIL; returns the exit code."""
    print(machine())
    result = quiet(options)
    print(f"{options.minutes:g} min of quiet beside a speaker; seed {options.seed}")
    print(f"event loop, ms per s of audio: {result.first_ms:.2f} first, {result.last_ms:.2f} last, {result.fresh_ms:.2f} fresh")
    difference = result.last_ms / result.fresh_ms - 1
    checks = {
        "event loop": (abs(difference) <= MAX_DIFFERENCE, f"{difference:+.1%} in the last part against a fresh server"),
        **result.checks(),
    }
    for name, (passed, figures) in checks.items():
        print(f"{'PASS' if passed else 'FAIL'} {name}: {figures}")
    return 0 if all(passed for passed, _ in checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
