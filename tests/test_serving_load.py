"""A crowd at once: everybody gets the text that they would get alone, and the model hears them together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import simulsa
from simulsa.audio import SAMPLE_RATE
from simulsa.serving import samples
from simulsa.streaming.config import StreamConfig
from tests.servers import Running, append, events_until, expected, hear, pcm, running, say, talking, transcript, until

SPEAKERS = 24
STREAM = StreamConfig(chunk_ms=500, rollback=3)


def spoken(server: Running, data: bytes) -> str:
    with talking(server) as socket:
        say(socket, "session.update", session={"simulsa": {"sample_rate": SAMPLE_RATE}})
        assert hear(socket)["type"] == "session.updated"
        append(socket, data)
        say(socket, "session.close")
        return transcript(events_until(socket, "session.closed"))


def test_a_crowd_hears_what_each_would_hear_alone() -> None:
    lalm = simulsa.load("tiny-en-de-simul", device="cpu")
    clips = [pcm(row.load()) for row in list(samples.clips().values())[:SPEAKERS]]
    alone = [expected(lalm, data, SAMPLE_RATE, STREAM) for data in clips]
    assert all(alone)
    with running(lalm, STREAM, max_batch=16, max_lag_chunks=float("inf")) as server, ThreadPoolExecutor(SPEAKERS) as crowd:
        assert list(crowd.map(lambda data: spoken(server, data), clips)) == alone
        calls, streams = (server.metric(f"simulsa_batch_size_{part}") for part in ("count", "sum"))
        assert streams > 4 * calls  # together, not one after the other
        assert server.metric('simulsa_batch_size_bucket{le="16.0"}') == calls
        until(lambda: server.metric("simulsa_sessions_open") == 0)
