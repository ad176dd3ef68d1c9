"""`evaluate`: quality and latency of a model on a test set, for a grid of chunk sizes and policies."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from simulsa._version import __version__
from simulsa.evaluation.comet import Segment, comet_scores, find_command, system_score
from simulsa.evaluation.config import EvaluateConfig, Setting
from simulsa.evaluation.folder import COMET_JOURNAL, clear, finished_scores, sole_evaluation, write_report, write_scores
from simulsa.evaluation.instances import EvaluationError, chunk_name, log_name, read_instances, write_instances
from simulsa.evaluation.scores import Score, policy_of_score, quality_metrics, score_instances
from simulsa.evaluation.simulate import Clip, Lockstep, admit, simulate
from simulsa.extras import require
from simulsa.lalm.cache import CachedLALM
from simulsa.lalm.interface import LALM
from simulsa.lalm.preflight import preflight
from simulsa.lalm.signature import audio_signature, same_audio, text_signature
from simulsa.lalm.workers import LocalWorker, Workers, announce
from simulsa.manifest import Utterance
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import Policy

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class EvaluationResult:
    """One object per setting of the grid, as in `scores.json`, where infinity is the text `inf`."""

    scores: list[Score]
    out: Path | None = None


def evaluate(
    lalm: LALM, rows: Sequence[Utterance], config: EvaluateConfig | None = None, workers: Workers | None = None
) -> EvaluationResult:
    """Translate `rows` simultaneously with every setting and score the translations.

    Writes to `config.out` after each setting. Settings that are already there, made with the same model and test set, are
    skipped, and others are kept alongside the new ones. Offline (k = inf), a policy has nothing to hold back: one run stands
    for all policies. `workers` translate instead of `lalm`, with copies of it; the result is the same.

    Raises `EvaluationError` for a test set that cannot be scored, a row whose audio is broken (unless skipped), and a folder with
    another evaluation (unless overwritten) or in which another process works; `LALMError` if the preflight fails.
    """
    require("evaluation", "evaluate")
    config = config or EvaluateConfig()
    target_lang = _target_lang(rows)
    if config.comet:
        find_command(config.comet_command)
        _check_sources(rows)
    quality_metrics(target_lang)  # a missing tokenizer fails now, not after hours
    clips = admit(rows, lalm.max_samples, config.on_error)
    if not clips:
        raise EvaluationError(
            f"none of the {len(rows)} rows has usable audio; see the warnings above: restore the audio, or give other rows"
        )
    # no cache if computing time is measured
    cached = lalm if config.batch_size == 1 or not config.encoder_cache_mib else CachedLALM(lalm, config.encoder_cache_mib)
    heard = audio_signature([clip.row for clip in clips])
    job = _Job(lalm, workers or LocalWorker(cached), clips, target_lang, len(rows), _test_set(clips), heard, config)
    with sole_evaluation(config.out):
        scores = _all_scores(job)
    return EvaluationResult([scores[setting] for setting in config.grid], config.out)


@dataclass(frozen=True)
class _Job:
    """What all settings share."""

    lalm: LALM
    workers: Workers
    clips: list[Clip]
    target_lang: str
    rows: int
    test_set: str
    audio: str | None
    config: EvaluateConfig

    def signature(self, chunk_ms: float, policy: Policy) -> str:
        """Everything that the numbers of a setting depend on, except for the content of the audio."""
        import omnisteval
        import sacrebleu

        timing = "none" if self.config.batch_size != 1 else "drafts" if self.config.drafts else "no-drafts"
        parts = {
            "model": self.lalm.signature,
            "test": self.test_set,
            "timing": timing,
            "simulsa": __version__,
            "sacrebleu": sacrebleu.__version__,
            "omnisteval": omnisteval.__version__,
            "k": chunk_name(chunk_ms),
            "policy": "any" if math.isinf(chunk_ms) else str(policy),
        }
        return "|".join(f"{name}:{value}" for name, value in parts.items())


def _all_scores(job: _Job) -> dict[Setting, Score]:
    """The scores of the grid and of what else the folder holds; those that are missing are measured."""
    lalm, clips, config = job.lalm, job.clips, job.config
    scores = {} if config.overwrite else _known(job)
    todo = [setting for setting in config.grid if setting not in scores]
    direction = clips[0].row.direction
    if not (todo or config.comet):
        logger.info("evaluate: %s is already complete", config.out)
    if todo and config.preflight:
        preflight(lalm, direction)
    if config.out is not None and config.overwrite:
        clear(config.out)
    if todo and config.batch_size == 1:  # computing time is measured: the first chunk must not include start-up costs
        lalm.warm_up(direction, 1, max(clip.samples for clip in clips))
    announce(lalm, (clip.row.direction for clip in clips))
    for chunk_ms, policy in todo:
        # offline, the policy makes no difference
        offline = next((score for (k, _), score in scores.items() if k == chunk_ms == math.inf), None)
        scores[chunk_ms, policy] = {**offline, **_named(policy)} if offline else _measure(job, chunk_ms, policy)
        if config.out is not None:
            write_scores(config.out, _in_order(scores))
    if config.out is None:
        return scores
    if config.comet:
        scores = _with_comet(scores, clips, config, config.out)
        write_scores(config.out, _in_order(scores))
    write_report(config.out, _in_order(scores))
    return scores


def _named(policy: Policy) -> Score:
    """A setting's policy in `scores.json`."""
    return {"rollback": policy.rollback, "policy": str(policy)}


def _known(job: _Job) -> dict[Setting, Score]:
    """The settings that the folder holds already."""
    out = job.config.out
    if out is None:
        return {}
    scores = {(float(score["chunk_ms"]), policy_of_score(score)): score for score in finished_scores(out)}
    for setting, score in scores.items():
        _check_same(out, score["signature"], job.signature(*setting))
    for recorded in {score.get("audio") for score in scores.values()}:
        if not same_audio(recorded, job.audio):
            _check_same(out, f"audio:{recorded}", f"audio:{job.audio}")
    return scores


def _check_same(out: Path, found: str, wanted: str) -> None:
    pairs = [(old, new) for old, new in zip_longest(found.split("|"), wanted.split("|"), fillvalue="nothing") if old != new]
    if pairs:
        old_model, new_model = pairs[0]
        if new_model.startswith(f"{old_model}+"):
            raise EvaluationError(
                f"{out}: its scores are from before a model's number format was recorded, so they may not be of {new_model}: "
                "choose another --out, or --overwrite them"
            )
        differences = ", ".join(f"{old} where this one has {new}" for old, new in pairs)
        raise EvaluationError(f"{out}: holds another evaluation ({differences}); choose another --out, or --overwrite it")


def _measure(job: _Job, chunk_ms: float, policy: Policy) -> Score:
    config = job.config
    started = time.monotonic()
    work = Lockstep(StreamConfig(chunk_ms=chunk_ms, policy=policy, drafts=config.drafts), timed=config.batch_size == 1)
    instances = simulate(job.workers, job.clips, work, config.rows_together(job.lalm), config.on_error, config.workers)
    seconds = time.monotonic() - started
    score: Score = {
        "chunk_ms": _json_number(chunk_ms),
        **_named(policy),
        **score_instances(instances, job.target_lang),
        "skipped": job.rows - len(instances),
        "model": job.lalm.name,
        "test_set": job.test_set,
        "audio": job.audio,
        "signature": job.signature(chunk_ms, policy),
    }
    if config.out is not None:
        write_instances(config.out / log_name(chunk_ms, policy), instances)
    laal = "none" if score["laal_ms"] is None else f"{score['laal_ms'] / 1000:.2f} s"
    setting = f"k = {chunk_name(chunk_ms)} ms, {policy.label}" if math.isfinite(chunk_ms) else "offline"
    logger.info("%s: BLEU %.1f, LAAL %s (%.1f utterances/s)", setting, score["bleu"], laal, len(instances) / max(seconds, 1e-9))
    return score


def _with_comet(scores: dict[Setting, Score], clips: Sequence[Clip], config: EvaluateConfig, out: Path) -> dict[Setting, Score]:
    """The scores with COMET's added; a segment that several settings have in common is scored once."""
    sources = {clip.row.id: clip.row.source_text or "" for clip in clips}
    segments = {
        setting: [Segment(sources[i.id], i.prediction, i.reference) for i in read_instances(out / log_name(*setting))]
        for setting in scores
    }
    every = list(dict.fromkeys(segment for of_setting in segments.values() for segment in of_setting))
    found = dict(zip(every, comet_scores(every, config.comet, config.comet_command, out / COMET_JOURNAL), strict=True))
    return {
        setting: {**score, "comet": system_score([found[s] for s in segments[setting]]), "comet_model": config.comet}
        for setting, score in scores.items()
    }


def _check_sources(rows: Sequence[Utterance]) -> None:
    """COMET needs the transcript of every row."""
    missing = next((row for row in rows if not (row.source_text or "").strip()), None)
    if missing is not None:
        raise EvaluationError(
            f"row {missing.id!r}: source_text is empty; COMET needs the transcript: add it, or evaluate without --comet"
        )


def _in_order(scores: dict[Setting, Score]) -> list[Score]:
    return [scores[setting] for setting in sorted(scores, key=lambda setting: (setting[1].order, setting[0]))]


def _json_number(chunk_ms: float) -> float | int | str:
    if math.isinf(chunk_ms):
        return "inf"
    return int(chunk_ms) if chunk_ms.is_integer() else chunk_ms


def _target_lang(rows: Sequence[Utterance]) -> str:
    """The language of all translations; also checks that every row has one."""
    if not rows:
        raise EvaluationError("the test set has no rows; give at least one utterance")
    langs = sorted({row.target_lang for row in rows})
    if len(langs) > 1:
        raise EvaluationError(
            f"the test set has translations into {', '.join(langs)}; scores of different languages cannot be mixed: "
            "evaluate one manifest per target language"
        )
    for row in rows:
        if not row.target_text.strip():
            raise EvaluationError(
                f"row {row.id!r}: target_text is empty; evaluation needs a reference: translate or remove the row"
            )
    return langs[0]


def _test_set(clips: Sequence[Clip]) -> str:
    """The signature of the test set except for what its files hold; it does not depend on where they are."""
    parts: list[str] = []
    for clip in clips:
        row = clip.row
        parts += [row.id, row.source_lang, row.target_lang, row.target_text, Path(row.audio).name, str(clip.samples)]
    return text_signature(parts)
