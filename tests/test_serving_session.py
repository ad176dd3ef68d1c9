"""The parts of the server without a server: clock, PCM, turns, settings."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE, AudioError
from simulsa.serving.clock import PACE, SpeechClock
from simulsa.serving.config import ServeConfig
from simulsa.serving.pcm import PcmReader
from simulsa.serving.service import Service
from simulsa.serving.session import Session
from simulsa.serving.turns import Turn, take_turns
from simulsa.streaming import vad
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import parse_policy
from simulsa.streaming.segmentation import SegmentationConfig
from simulsa.streaming.state import StreamState, Update
from simulsa.streaming.step import step
from simulsa.streaming.stream import Stream
from simulsa.testing import FakeLALM, FakeVAD, growing_script
from tests.conftest import noise

TEXT = "Ein Mann in einem roten Hemd fährt auf einem alten Fahrrad durch die Straßen der Stadt"
STREAM = StreamConfig(chunk_ms=500, rollback=0)


def test_of_a_speaker_audio_is_due_when_it_arrives() -> None:
    clock = SpeechClock()
    for packet in range(1, 101):
        clock.arrived(1_600, 100 + 0.1 * packet)
    assert clock.due(160_000) == pytest.approx(110.0)
    assert clock.due(160_000 - 800) == pytest.approx(110.0 - PACE * 0.05)
    assert clock.due(160_001) == float("inf")


def test_of_a_file_audio_is_due_as_if_it_were_spoken() -> None:
    clock = SpeechClock()
    for _ in range(100):
        clock.arrived(1_600, 100.0)
    assert clock.due(16_000) == pytest.approx(100 + PACE * 1)
    assert clock.due(160_000) == pytest.approx(100 + PACE * 10)


def test_after_a_stall_of_the_network_the_clock_comes_back() -> None:
    clock = SpeechClock()
    clock.arrived(16_000, 1.0)
    clock.arrived(16_000, 6.0)  # four seconds late
    for second in range(7, 60):
        clock.arrived(16_000, float(second) - 4)  # and back to the speaker's time
    assert clock.due(55 * 16_000) == pytest.approx(55.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 32_000), st.floats(0, 3)), min_size=1, max_size=30))
def test_later_audio_is_due_later_and_never_long_before_it_came(packets: list[tuple[int, float]]) -> None:
    clock, now, end = SpeechClock(), 5.0, 0
    for samples, wait_s in packets:
        now += wait_s
        end += samples
        clock.arrived(samples, now)
        assert clock.due(end) >= now
    positions = range(0, end + 1, max(1, end // 50))
    dues = [clock.due(position) for position in positions]
    assert dues == sorted(dues)
    for position, due in zip(positions, dues, strict=True):
        assert abs(clock.due_by(due) - position) <= 1
    clock.forget(end // 2)
    assert [clock.due(position) for position in positions if position >= end // 2] == dues[
        -sum(p >= end // 2 for p in positions) :
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 4_000), min_size=1, max_size=8), st.sampled_from([8_000, 16_000, 24_000, 44_100, 48_000]))
def test_pcm_in_any_pieces_is_the_same_audio(sizes: list[int], rate: int) -> None:
    data = np.random.default_rng(0).integers(-32_768, 32_768, sum(sizes), dtype=np.int16).astype("<i2").tobytes()
    whole, pieces = PcmReader(rate), PcmReader(rate)
    once = np.concatenate([whole.read(data), whole.read(b"", last=True)])
    ends = sorted(min(2 * end + odd, len(data)) for end, odd in zip(np.cumsum([0, *sizes]), itertools.cycle([0, 1])))
    ends[-1] = len(data)
    parts = [pieces.read(data[start:end]) for start, end in itertools.pairwise(ends)]
    assert np.array_equal(np.concatenate([*parts, pieces.read(b"", last=True)]), once)
    assert abs(len(once) - len(data) / 2 * 16_000 / rate) <= 1


def test_pcm_at_a_rate_that_is_none() -> None:
    with pytest.raises(AudioError, match="7 Hz"):
        PcmReader(7)


def test_several_chunks_at_once_end_as_one_after_the_other() -> None:
    audio = noise(3.3)
    counts = []
    for count in (1, 2, 4, 100):
        lalm = FakeLALM(growing_script(TEXT))
        state = StreamState(lalm, STREAM)
        state.chunks_at_once = count
        state.receive(audio)
        state.close()
        while state.ready() is not None:
            (update,) = step(lalm, [state])
        assert update.final
        assert update.committed == " ".join(TEXT.split()[:13])
        counts.append(len(lalm.calls))
    assert counts == [7, 4, 3, 2]


def opened(config: StreamConfig, samples: int | None = None) -> StreamState:
    return StreamState(FakeLALM(growing_script(TEXT)), config)


def turn_of(audio: np.ndarray, closing: bool = False, chunks: int = 1) -> Turn:
    return Turn(StreamState(FakeLALM(growing_script(TEXT), max_samples=5 * 16_000), STREAM), [audio], closing, chunks)


def test_turns_are_taken_together_up_to_the_largest_batch() -> None:
    lalm = FakeLALM(growing_script(TEXT))
    turns = [turn_of(noise(0.6)), turn_of(noise(0.3)), turn_of(noise(1.2)), turn_of(noise(0.1), closing=True)]
    take_turns(lalm, turns, max_batch=2)
    assert lalm.calls == [("continue_", 2)]
    assert [turn.update is not None for turn in turns] == [True, False, True, False]
    assert [turn.again for turn in turns] == [True, False, True, True]
    take_turns(lalm, [Turn(turn.stream, [], False, 1) for turn in turns], max_batch=9)
    assert lalm.calls[1:] == [("continue_", 2)]


def test_errors_stay_where_they_arise() -> None:
    def script(audio: np.ndarray) -> str:
        if audio[0] == 0.5:
            raise RuntimeError("cannot hear that")
        return growing_script(TEXT)(audio)

    bad = noise(0.6)
    bad[0] = 0.5
    turns = [turn_of(noise(0.6)), turn_of(bad), turn_of(noise(6.0)), turn_of(noise(0.6))]
    take_turns(FakeLALM(script), turns, max_batch=9)
    assert [str(turn.error) if turn.error else "" for turn in turns][:2] == ["", "cannot hear that"]
    assert isinstance(turns[2].error, AudioError)  # longer than the window
    assert [turn.update.committed if turn.update else None for turn in turns] == ["Ein Mann", None, None, "Ein Mann"]


def test_an_ear_that_fails_takes_no_other_along() -> None:
    class Deaf(FakeVAD):
        def __call__(self, window: np.ndarray) -> float:
            raise RuntimeError("deaf")

    lalm = FakeLALM(growing_script(TEXT))
    turns = []
    for detector in (FakeVAD(), Deaf(), FakeVAD()):
        talk = StreamState(lalm, STREAM, SegmentationConfig(), detector)
        turns.append(Turn(talk, [noise(1.2)], False, 1))
    take_turns(lalm, turns, max_batch=9)
    assert [str(turn.error) for turn in turns] == ["None", "deaf", "None"]
    assert [turn.update.committed if turn.update else None for turn in turns] == ["Ein Mann", None, "Ein Mann"]
    assert lalm.calls == [("continue_", 2)]


def test_a_stream_that_was_advanced_before_the_batch_failed_is_not_advanced_twice() -> None:
    class HalfBroken(FakeLALM):
        def decode(self, tokens: object) -> str:
            if list(tokens)[:1] == [ord("X")]:  # type: ignore[call-overload]
                raise RuntimeError("cannot write that")
            return super().decode(tokens)  # type: ignore[arg-type]

    lalm = HalfBroken(lambda audio: "X" if audio[0] == 0.5 else growing_script(TEXT)(audio))
    bad = noise(1.2)
    bad[0] = 0.5
    turns = [turn_of(noise(1.2)), turn_of(bad), turn_of(noise(1.2))]
    take_turns(lalm, turns, max_batch=9)
    assert [turn.update.committed if turn.update else None for turn in turns] == ["Ein Mann", None, "Ein Mann"]
    assert [turn.update.audio_samples if turn.update else None for turn in turns] == [8_000, None, 8_000]
    assert turns[1].error is not None


def test_a_session_that_is_behind_hears_all_chunks_that_wait() -> None:
    async def run(**limits: bool) -> tuple[list[int], list[int]]:
        session = Session(
            opened,
            STREAM,
            ServeConfig(**limits),
            lambda: None,
        )  # type: ignore[arg-type]
        for _ in range(22):
            await session.receive(noise(0.1))
        lalm, soon = FakeLALM(growing_script(TEXT)), session._clock.due(16_000 * 11 // 10)
        chunks, heard = [], []
        for now in (soon, soon + 100):
            turn = session.turn(now)
            take_turns(lalm, [turn], 1)
            result = session.deliver(turn, now)
            assert result is not None
            chunks.append(result.chunks)
            heard.append(result.update.audio_samples)
        return chunks, heard

    assert asyncio.run(run()) == ([2, 2], [16_000, 32_000])
    assert asyncio.run(run(merge_chunks=False)) == ([1, 1], [8_000, 16_000])


def hearing(lalm: FakeLALM) -> Callable[[StreamConfig, int | None], StreamState]:
    """Opens segmented streams in which whatever is not silent is speech."""
    return lambda config, samples: StreamState(lalm, config, SegmentationConfig(), FakeVAD())


def test_what_was_found_silent_does_not_wait() -> None:
    """After a minute of quiet nothing is late, nothing is left to look through, and what is said then comes chunk by chunk."""

    async def run() -> None:
        lalm = FakeLALM(growing_script(TEXT))
        session = Session(hearing(lalm), STREAM, ServeConfig(), lambda: None)

        async def hear(audio: np.ndarray) -> list[tuple[int, float]]:
            found = []
            for start in range(0, len(audio), 1_600):
                await session.receive(audio[start : start + 1_600])
                while session.wants_turn:
                    turn, now = session.turn(time.monotonic() + 1e4), time.monotonic()  # it was all spoken long ago
                    take_turns(lalm, [turn], 1)
                    result = session.deliver(turn, now)
                    found += [] if result is None else [(result.chunks, result.lag_s)]
                assert session.waits_since() == float("inf")
                assert session.unheard_s < 0.1
            return found

        assert await hear(np.zeros(60 * 16_000, dtype=np.float32)) == []
        assert await hear(noise(1.7)) == [(1, 0.0)] * 3
        assert await hear(np.zeros(16_000, dtype=np.float32)) == [(1, 0.0)]

    asyncio.run(run())


def test_a_chunk_that_found_no_room_in_a_batch_goes_on_waiting() -> None:
    async def run() -> None:
        lalm = FakeLALM(growing_script(TEXT))
        sessions = [Session(hearing(lalm), STREAM, ServeConfig(), lambda: None) for _ in range(2)]

        async def take(audio: np.ndarray) -> None:
            for session in sessions:
                await session.receive(audio)
            turns = [session.turn(0.0) for session in sessions]
            take_turns(lalm, turns, max_batch=1)
            for session, turn in zip(sessions, turns, strict=True):
                session.deliver(turn, 0.0)

        await take(np.zeros(16_000, dtype=np.float32))
        await take(noise(0.3))
        assert [session.waits_since() for session in sessions] == [float("inf")] * 2
        await take(noise(0.3))  # the chunk is whole, and less than a chunk of audio has come since the detector judged all
        assert sessions[0].waits_since() == float("inf")
        assert sessions[1].waits_since() < float("inf")
        assert sessions[1].wants_turn

    asyncio.run(run())


@pytest.mark.parametrize("longform", [True, False])
def test_nothing_is_loaded_with_the_first_client(monkeypatch: pytest.MonkeyPatch, longform: bool) -> None:
    silero = pytest.importorskip("silero_vad", reason="needs simulsa[longform]")
    loaders: list[str] = []
    load = silero.load_silero_vad

    def noted() -> Any:
        loaders.append(threading.current_thread().name)
        return load()

    monkeypatch.setattr(silero, "load_silero_vad", noted)
    vad._network.cache_clear()
    lalm = FakeLALM(growing_script(TEXT))
    service = Service(lalm, ServeConfig(longform=longform), StreamConfig(policy=parse_policy("alignatt:4")))
    service.warm_up()
    assert threading.current_thread().name not in loaders
    before = list(loaders)
    with service.session("realtime"):
        assert loaders == before
    assert {verb for verb, _ in lalm.calls} == {"continue_"}


def test_the_rest_of_a_chunk_is_late_from_the_end_of_the_speech_on() -> None:
    """A speaker who is silent for long before the end does not make the server look slow."""

    async def run() -> None:
        session = Session(opened, STREAM, ServeConfig(), lambda: None)
        await session.receive(noise(0.2))
        await asyncio.sleep(0.3)
        before = time.monotonic()
        session.finish()
        assert session.waits_since() >= before
        turn, now = session.turn(before), before + 1.0
        take_turns(FakeLALM(growing_script(TEXT)), [turn], 1)
        result = session.deliver(turn, now)
        assert result is not None
        assert result.update.final
        assert result.lag_s <= 1.0

    asyncio.run(run())


def test_the_server_does_what_stream_does_chunk_by_chunk() -> None:
    async def run() -> list[str]:
        lalm = FakeLALM(growing_script(TEXT))
        session = Session(
            opened,
            STREAM,
            ServeConfig(),
            lambda: None,
            live=False,
        )
        await session.receive(noise(2.7))
        session.end("closed")
        while session.wants_turn:
            turn = session.turn(0.0)
            take_turns(lalm, [turn], 1)
            session.deliver(turn, 0.0)
        return [result.update.committed async for result in session.results()]

    here = Stream(FakeLALM(growing_script(TEXT)), STREAM)
    assert asyncio.run(run()) == [update.committed for update in [*here.push(noise(2.7)), *here.finish()]]


@pytest.mark.parametrize("chunk_ms", [500, float("inf")])
def test_a_long_recording_is_looked_through_in_pieces(chunk_ms: float, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []  # windows, turn by turn

    def counted(*arguments: Any) -> list[float]:
        judged[-1] += 1
        return vad.speech_probabilities(*arguments)

    monkeypatch.setattr("simulsa.streaming.state.speech_probabilities", counted)
    config = StreamConfig(chunk_ms=chunk_ms, rollback=0)
    audio = np.concatenate(
        [noise(3.0), np.zeros(60 * SAMPLE_RATE, np.float32), noise(25.0), np.zeros(30 * SAMPLE_RATE, np.float32)]
    )

    async def run() -> list[Update]:
        lalm = FakeLALM(growing_script(TEXT))
        session = Session(hearing(lalm), config, ServeConfig(), lambda: None, live=False)
        await session.receive(audio)
        session.end("closed")
        while session.wants_turn:
            judged.append(0)
            turn = session.turn(0.0)
            take_turns(lalm, [turn], 1)
            session.deliver(turn, 0.0)
        return [result.update async for result in session.results()]

    found = asyncio.run(run())
    assert max(judged) <= 10 * SAMPLE_RATE / vad.WINDOW_SAMPLES + 1
    here = Stream(FakeLALM(growing_script(TEXT)), config, SegmentationConfig(), FakeVAD())
    meant = [*here.push(audio), *here.finish()]
    assert [(update.committed, update.audio_samples, update.segment) for update in found] == [
        (update.committed, update.audio_samples, update.segment) for update in meant
    ]


def test_a_speech_of_several_segments_whose_end_takes_no_step() -> None:
    async def run() -> list[tuple[str, int, bool]]:
        lalm = FakeLALM(growing_script("eins zwei", SAMPLE_RATE // 2))

        session = Session(hearing(lalm), STREAM, ServeConfig(), lambda: None, live=False)
        for _ in range(2):
            await session.receive(noise(1.1))
            await session.receive(np.zeros(SAMPLE_RATE, dtype=np.float32))
        session.end("closed")
        while session.wants_turn:
            turn = session.turn(0.0)
            take_turns(lalm, [turn], 1)
            session.deliver(turn, 0.0)
        return [(result.update.new, result.update.audio_samples, result.update.final) async for result in session.results()]

    found = asyncio.run(run())
    assert "".join(delta for delta, _, _ in found) == "eins zwei eins zwei"
    assert [samples for _, samples, _ in found] == sorted(samples for _, samples, _ in found)
    assert found[-1] == ("", round(4.2 * SAMPLE_RATE), True)
    assert [final for _, _, final in found] == [False] * (len(found) - 1) + [True]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": 65_536}, "port"),
        ({"max_sessions": 0}, "max_sessions"),
        ({"max_batch": 1.5}, "max_batch"),
        ({"idle_s": 0.0}, "idle_s"),
        ({"max_lag_chunks": -1.0}, "max_lag_chunks"),
        ({"ping_s": float("nan")}, "ping_s"),
        ({"drain_s": -1.0}, "drain_s"),
        ({"tls_cert": Path("a.pem")}, "tls_key"),
        ({"host": "0.0.0.0"}, "--public"),
        ({"languages": ("de", "xx-unheard-of")}, "unknown language"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ServeConfig(**values)  # type: ignore[arg-type]


def test_who_may_connect_from_elsewhere(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\n\n two \n")
    config = ServeConfig(host="0.0.0.0", api_key_file=keys)
    assert config.keys() == ("one", "two")
    keys.write_text("one\n\n two \n", encoding="utf-8-sig")  # as some editors on Windows save it
    assert config.keys() == ("one", "two")
    assert dataclasses.replace(config, api_key="zero").keys() == ("zero", "one", "two")
    assert ServeConfig(host="0.0.0.0", public=True).keys() == ()
    keys.write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        config.keys()
    keys.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        config.keys()
