"""simulstream's metrics log: one JSON object per chunk, with the tokens it added and retracted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.recording import QUEUED, Elapsed, Log, Recording, check_times, normal, numbers, stem, units

Tokens = Literal["auto", "words", "chars", "sentencepiece", "bytes"]
CHUNK_ALONE = "simulstream's: audio heard plus the computing time of that chunk alone; chunks never wait for each other"
_DIGITS = 6  # of a ms: simulstream adds up chunks in floating point, and a word is early only if it is before the end


def is_simulstream(values: dict[str, Any]) -> bool:
    """Whether this is a line of simulstream's metrics log."""
    return bool({"model_loading_time", "metadata", "generated_tokens"} & values.keys())


def read_simulstream(
    lines: Sequence[tuple[str, dict[str, Any]]], unit: str, elapsed: Elapsed, tokens: Tokens = "auto", partial: bool = False
) -> Log:
    """The recordings of a log, in the order in which they began; `lines` are its objects, each with its place for messages.

    A unit's time is that of the last chunk that changed it, as in simulstream's own reader. `tokens` says how the logged
    tokens are written. Raises `EvaluationError` for inconsistent lines, and, unless `partial`, for a recording without a
    chunk.
    """
    streams: dict[Any, _Stream] = {}
    begun: list[_Stream] = []
    for where, values in lines:
        if "metadata" in values:
            stream = streams[values.get("id")] = _Stream(where, _name(values["metadata"]))
            begun.append(stream)
        elif "generated_tokens" in values:
            if values.get("id") not in streams:
                raise EvaluationError(
                    f"{where}: no earlier line names the recording {values.get('id')!r}; the start of the log is missing, or "
                    "the client sent no metrics_metadata with a wav_name"
                )
            streams[values["id"]].add(where, values)
    empty = [stream for stream in begun if not stream.chunks]
    if empty and not partial:
        raise EvaluationError(
            f"{empty[0].where}: recording {empty[0].name!r} has no chunk; the log is incomplete: finish the run, or score "
            "the complete part with --partial"
        )
    text = _text(tokens, unit, begun)
    recordings = [stream.recording(i, unit, text, elapsed) for i, stream in enumerate(s for s in begun if s.chunks)]
    notes = [f"{len(empty)} recordings without a chunk were skipped"] if empty else []
    return Log(recordings, "simulstream", QUEUED if elapsed == "queued" else CHUNK_ALONE, notes)


@dataclass(frozen=True)
class _Chunk:
    where: str
    heard_ms: float
    compute_ms: float
    new: list[str]
    deleted: list[str]


@dataclass
class _Stream:
    """The lines of one recording."""

    where: str
    name: str
    chunks: list[_Chunk] = field(default_factory=list)

    def add(self, where: str, values: dict[str, Any]) -> None:
        times = [values.get("total_audio_processed"), values.get("computation_time", 0.0)]
        heard_s, compute_s = numbers(times, f"{where}: total_audio_processed and computation_time")
        new, deleted = values["generated_tokens"], values.get("deleted_tokens", [])
        for name, tokens in (("generated_tokens", new), ("deleted_tokens", deleted)):
            if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                raise EvaluationError(f"{where}: {name} is {tokens!r}; it must be a list of texts")
        chunk = _Chunk(where, round(1000 * heard_s, _DIGITS), 1000 * compute_s, new, deleted)
        if self.chunks and chunk.heard_ms < self.chunks[-1].heard_ms:
            raise EvaluationError(
                f"{where}: {heard_s:g} s of audio were processed, less than in the line before; is this one recording?"
            )
        self.chunks.append(chunk)

    def recording(self, index: int, unit: str, text: Callable[[list[str]], str], elapsed: Elapsed) -> Recording:
        """The final text and its times."""
        tokens: list[str] = []
        shown = _Shown()
        done = 0.0
        erased = 0
        for chunk in self.chunks:
            if elapsed != "none" and chunk.compute_ms < 0:
                raise EvaluationError(
                    f"{chunk.where}: computation_time is {chunk.compute_ms / 1000:g} s; the clock was wrong: log it again, or "
                    "score without computing time (--elapsed none)"
                )
            done = max(done, chunk.heard_ms) + chunk.compute_ms
            moment = done if elapsed == "queued" else chunk.heard_ms + chunk.compute_ms
            if chunk.deleted:
                kept = len(tokens) - len(chunk.deleted)
                if tokens[max(kept, 0) :] != chunk.deleted:
                    raise EvaluationError(f"{chunk.where}: {chunk.deleted!r} is deleted, but the text does not end with it")
                erased += len(units(normal(text(chunk.deleted)), unit))
                tokens = tokens[:kept]
                shown.become(units(normal(text(tokens)), unit), chunk.heard_ms, moment)
            tokens = tokens + chunk.new
            shown.become(units(normal(text(tokens)), unit), chunk.heard_ms, moment)
        check_times(self.where, shown.delays_ms, None)
        return Recording(
            index=index,
            name=self.name,
            id="",
            prediction=("" if unit == "char" else " ").join(shown.units),
            delays_ms=tuple(shown.delays_ms),
            elapsed_ms=None if elapsed == "none" else tuple(shown.moments_ms),
            source_length_ms=self.chunks[-1].heard_ms,
            erased=erased,
        )


@dataclass
class _Shown:
    """The units currently shown, and when each was last changed."""

    units: list[str] = field(default_factory=list)
    delays_ms: list[float] = field(default_factory=list)
    moments_ms: list[float] = field(default_factory=list)

    def become(self, now: list[str], heard_ms: float, moment_ms: float) -> None:
        """Show `now`; units from the first difference on get the time of this chunk."""
        pairs = enumerate(zip(self.units, now, strict=False))
        same = next((i for i, (before, after) in pairs if before != after), min(len(self.units), len(now)))
        self.delays_ms[same:] = [heard_ms] * (len(now) - same)
        self.moments_ms[same:] = [moment_ms] * (len(now) - same)
        self.units = now


def _name(metadata: Any) -> str:
    name = metadata.get("wav_name") if isinstance(metadata, dict) else None
    return stem(name) if isinstance(name, str) else ""


def _text(tokens: Tokens, unit: str, streams: Sequence[_Stream]) -> Callable[[list[str]], str]:
    """The function that turns the log's tokens into text."""
    from tokenizers import decoders

    if tokens == "auto":
        every = "".join(token for stream in streams for chunk in stream.chunks for token in chunk.new)
        tokens = "sentencepiece" if "▁" in every else "bytes" if "Ġ" in every else "chars" if unit == "char" else "words"
    if tokens == "sentencepiece":
        decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        return lambda parts: str(decoder.decode(parts))
    if tokens == "bytes":
        return lambda parts: str(decoders.ByteLevel().decode(parts))
    return "".join if tokens == "chars" else " ".join
