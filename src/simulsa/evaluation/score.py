"""`score`: quality, latency and diagnostics of the log of any system, run with any supported tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulsa.evaluation.comet import COMMAND, Segment, check_comet, comet_scores, find_command, system_score
from simulsa.evaluation.diagnostics import burstiness, degeneracy, flicker, simultaneity
from simulsa.evaluation.instances import EvaluationError, Instance
from simulsa.evaluation.logs import read_log
from simulsa.evaluation.longform import longform_latency, resegmented
from simulsa.evaluation.recording import Elapsed, Log, Recording
from simulsa.evaluation.references import ReferenceSegment, read_segments, read_sentences, referenced, sources
from simulsa.evaluation.scores import Score, counted, quality, quality_metrics, score_instances
from simulsa.evaluation.simuleval_log import CUMULATED
from simulsa.evaluation.simulstream_log import Tokens
from simulsa.extras import require
from simulsa.languages import language_name, latency_unit
from simulsa.settings import check_choices

_CUMULATED_MS = 2000.0  # above this, OmniSTEval also advises its correction


@dataclass(frozen=True)
class ScoreConfig:
    """What to score a log against, and how to read it."""

    references: Path | None = None
    """one sentence per line (by the log's index, or one per segment) or a manifest (.jsonl); by default the log's own
    references"""
    segments: Path | None = None
    """for long recordings: a list of wav, offset and duration in seconds (.yaml or .json), one segment per reference"""
    sources: Path | None = None
    """transcripts, in the order of the references, or a manifest with source_text; for copies and COMET"""
    lang: str = "de"
    """language of the translations: determines the latency unit (words or characters) and BLEU's tokenizer"""
    tokens: Tokens = "auto"
    """how a simulstream log writes its tokens: whole words, chars, sentencepiece (▁) or byte-level BPE (Ġ)"""
    elapsed: Elapsed = "logged"
    """computation-aware latency from the log's own times (logged), from its computing times as if chunks were queued (queued),
    from SimulEval's times corrected like OmniSTEval's --fix_simuleval_emission_ca (incremental), or none"""
    count_end: bool = False
    """count a final </s> in SimulEval's logs as a word, as OmniSTEval does, to compare with published numbers"""
    partial: bool = False
    """score an incomplete log: cut off, or without a recording for some references"""
    comet: str = ""
    """name of a COMET or xCOMET model, such as Unbabel/wmt22-comet-da; needs --sources. Segment scores are kept beside the log"""
    comet_command: str = COMMAND
    """how to run unbabel-comet's comet-score in an environment of its own; options such as --gpus 0 may follow"""

    def __post_init__(self) -> None:
        language_name(self.lang)
        for name in ("references", "segments", "sources"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
        check_choices(self)
        if self.segments is not None and self.references is None:
            raise ValueError("segments need references, a line for each segment: give --references FILE")
        if self.comet and self.sources is None:
            raise ValueError(f"comet is {self.comet!r}, which needs the transcripts: give --sources FILE")
        if self.comet:
            check_comet(self.comet, self.comet_command)


def score_log(path: str | Path, config: ScoreConfig | None = None) -> Score:
    """The scores of a log, with what is needed to read them: tool, unit, definition of elapsed times, signatures, notes.

    Raises `EvaluationError` for a log or references that are broken or do not belong together, naming what and where.
    """
    require("scoring", "evaluate", without="matplotlib")
    config = config or ScoreConfig()
    quality_metrics(config.lang)  # a missing tokenizer fails first
    if config.comet:
        find_command(config.comet_command)
    log = read_log(path, latency_unit(config.lang), config.elapsed, config.tokens, config.partial, config.count_end)
    timed = all(recording.elapsed_ms is not None for recording in log.recordings)
    if config.segments is not None and config.references is not None:
        scores = _longform(path, log, config, read_segments(config.segments, config.references), timed)
    else:
        scores = _shortform(path, log, config)
    _note_cumulated(log, scores)
    import omnisteval

    return {
        "log": str(path),
        "tool": log.tool,
        "recordings": len(log.recordings),
        "unit": latency_unit(config.lang),
        "elapsed": log.elapsed if timed else None,
        **scores,
        **flicker(log.recordings),
        **burstiness(log.recordings),
        "omnisteval": omnisteval.__version__,
        "notes": log.notes,
    }


def _note_cumulated(log: Log, scores: Score) -> None:
    """Add a note if computing time that SimulEval has added up makes up much of the latency."""
    for name in ("yaal_ms", "long_yaal_ms"):
        ideal, aware = scores.get(name), scores.get(f"ca_{name}")
        if log.elapsed == CUMULATED and ideal is not None and aware is not None and aware - ideal > _CUMULATED_MS:
            log.notes.append(
                f"computation-aware YAAL is {aware - ideal:.0f} ms above YAAL, because SimulEval's elapsed times add up all "
                "computing of a recording: correct them with --elapsed incremental, as published numbers are "
                "(OmniSTEval's --fix_simuleval_emission_ca), or with --elapsed queued"
            )


def _shortform(path: str | Path, log: Log, config: ScoreConfig) -> Score:
    recordings, order = referenced(log, config.references, config.partial)
    spoken = None if config.sources is None else sources(recordings, config.sources, config.references, order)
    instances = [_instance(recording) for recording in recordings]
    predictions, references = [i.prediction for i in instances], [i.reference for i in instances]
    omni = [counted(instance, latency_unit(config.lang)) for instance in instances]
    return {
        **score_instances(instances, config.lang),
        **_comet(path, config, spoken, predictions, references),
        **degeneracy(predictions, references, latency_unit(config.lang), spoken),
        **simultaneity(omni),
    }


def _longform(path: str | Path, log: Log, config: ScoreConfig, segments: Sequence[ReferenceSegment], timed: bool) -> Score:
    spoken = None if config.sources is None else _one_each(read_sentences(config.sources), len(segments), config.sources)
    if config.partial:
        begun = {recording.name for recording in log.recordings}
        kept = [place for place, segment in enumerate(segments) if segment.name in begun]
        if len(kept) < len(segments):
            log.notes.append(f"{len(segments) - len(kept)} segments of recordings missing from the log were skipped")
        segments = [segments[place] for place in kept]
        spoken = spoken and [spoken[place] for place in kept]
    instances = resegmented(log, segments, config.lang, config.partial)
    predictions, references = [i.prediction for i in instances], [i.reference for i in instances]
    return {
        "segments": len(segments),
        **quality(predictions, references, config.lang),
        **longform_latency(instances, timed),
        **_comet(path, config, spoken, predictions, references),
        **degeneracy(predictions, references, latency_unit(config.lang), spoken),
    }


def _instance(recording: Recording) -> Instance:
    if recording.source_length_ms is None or recording.source_length_ms <= 0:
        raise EvaluationError(
            f"recording {recording.label}: source_length is {recording.source_length_ms}; latency needs the length of the speech "
            "in ms"
        )
    return Instance(
        id=recording.id or recording.name,
        index=recording.index,
        prediction=recording.prediction,
        reference=recording.reference or "",
        source=recording.name,
        source_length_ms=recording.source_length_ms,
        delays_ms=recording.delays_ms,
        elapsed_ms=recording.elapsed_ms,
        steps=0,
    )


def _one_each(sentences: Sequence[str], count: int, path: Path) -> Sequence[str]:
    if len(sentences) != count:
        raise EvaluationError(f"{path}: {len(sentences)} sentences for {count} segments; one each is needed")
    return sentences


def _comet(
    log: str | Path, config: ScoreConfig, spoken: Sequence[str] | None, predictions: Sequence[str], references: Sequence[str]
) -> Score:
    """COMET's score, if a model is given; those of the segments are kept beside the log."""
    if not config.comet:
        return {}
    segments = [Segment(*texts) for texts in zip(spoken or (), predictions, references, strict=True)]
    scores = comet_scores(segments, config.comet, config.comet_command, Path(f"{log}.comet.jsonl"))
    return {"comet": system_score(scores), "comet_model": config.comet}
