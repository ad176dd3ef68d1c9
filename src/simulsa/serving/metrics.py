"""Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from simulsa.serving.session import Result

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STREAMS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Metrics of one server, in their own registry."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.sessions = Counter("simulsa_sessions", "Sessions begun", ["protocol"], registry=registry)
        self.refused = Counter("simulsa_refused", "Sessions refused", ["reason"], registry=registry)
        self.ended = Counter("simulsa_sessions_ended", "Sessions ended", ["reason"], registry=registry)
        self.errors = Counter("simulsa_errors", "Errors", ["kind"], registry=registry)
        self.lag = Histogram(
            "simulsa_lag_seconds", "From when audio was due to its result, live sessions", buckets=SECONDS, registry=registry
        )
        self._step = Histogram("simulsa_step_seconds", "A call of the model", buckets=SECONDS, registry=registry)
        self._batch = Histogram("simulsa_batch_size", "Streams per call", buckets=STREAMS, registry=registry)
        self._chunks = Counter("simulsa_chunks", "Chunks translated", registry=registry)
        self._merged = Counter("simulsa_chunks_merged", "Chunks that did not get a step of their own", registry=registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Register a gauge that is evaluated on every scrape."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def stepped(self, results: Sequence[Result]) -> None:
        """Record a model call with these results."""
        if not results:
            return
        self._step.observe(results[0].update.compute_s)
        self._batch.observe(len(results))
        chunks = sum(result.chunks for result in results)
        self._chunks.inc(chunks)
        self._merged.inc(chunks - len(results))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return bytes(generate_latest(self._registry))
