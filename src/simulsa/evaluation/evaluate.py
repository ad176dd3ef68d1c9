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
from simulsa.evaluation.comet import COMMAND, Segment, check_comet, comet_scores, find_command, system_score
from simulsa.evaluation.folder import COMET_JOURNAL, alone, clear, finished_scores, write_report, write_scores
from simulsa.evaluation.instances import EvaluationError, chunk_name, log_name, read_instances, write_instances
from simulsa.evaluation.scores import Score, policy_of_score, quality_metrics, score_instances
from simulsa.evaluation.simulate import Clip, Lockstep, OnError, admit, simulate
from simulsa.extras import require
from simulsa.lalm.cache import CachedLALM
from simulsa.lalm.interface import LALM, Direction
from simulsa.lalm.preflight import preflight
from simulsa.lalm.signature import audio_signature, same_audio, text_signature
from simulsa.lalm.workers import LocalWorker, Workers, announce, warm_up
from simulsa.loading import BatchSize, Processes, check_processes, rows_for
from simulsa.manifest import Utterance
from simulsa.settings import check_whole_numbers
from simulsa.streaming.config import StreamConfig, check_chunk_ms
from simulsa.streaming.policies import Policy, Rollback

logger = logging.getLogger("simulsa")

ROLLBACKS = (0, 3, 5)  # the paper's

_GPU_ROWS = 32  # as many as fit the static cache of a 7 B model

Setting = tuple[float, Policy]
"""A chunk size in ms and a policy."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Which settings to measure, and how. Defaults are the paper's grid (arXiv 2509.15692, table 1)."""

    chunk_ms: tuple[float, ...] = (500, 1000, 1500, 2000, math.inf)
    """k: milliseconds of new audio between two hypotheses; `inf` is offline translation"""
    rollback: tuple[int, ...] = ()
    """b: number of tokens at the end of each hypothesis that stay tentative; shorthand for the policies `rollback:b`, by default
    0 3 5"""
    out: Path | None = None
    """folder for scores, instance logs, table and plot; an interrupted evaluation resumes there"""
    batch_size: BatchSize = "auto"
    """maximum utterances advanced together, fewer where they are long; `auto`: 16 on a CPU, 32 on a GPU; with 1,
    computation-aware latency is measured as well"""
    drafts: bool = True
    """verify the last hypothesis in one forward pass instead of decoding it again (never changes the output)"""
    encoder_cache_mib: float = 1024
    """size of the encoder cache, which keeps encoder outputs across settings; never changes the output"""
    workers: Processes = "auto"
    """processes that load and prepare audio beside the model; `auto`: 0 on a CPU, up to 8 on a GPU; never changes the output"""
    overwrite: bool = False
    """start over even if the folder holds another evaluation"""
    on_error: OnError = "fail"
    """on a row whose audio is broken or too long: `fail`, or `skip` it with a warning"""
    preflight: bool = True
    """first check that the model hears and that batches equal single rows (takes seconds)"""
    policy: tuple[Policy, ...] = ()
    """commit policies, such as `local-agreement:2` or `wait-k:3,1` (docs/policies.md); excludes `rollback`"""
    comet: str = ""
    """name of a COMET or xCOMET model, such as Unbabel/wmt22-comet-da, which scores every setting in the folder; needs --out and
    rows with source_text"""
    comet_command: str = COMMAND
    """how to run unbabel-comet's comet-score in an environment of its own; options such as --gpus 0 may follow"""

    def __post_init__(self) -> None:
        for name, least in (("chunk_ms", 1), ("rollback", 0), ("policy", 0)):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or len(values) < least:
                raise ValueError(f"{name} is {values!r}; it must be a list" + " of at least one value" * least)
        # YAML's infinity is neither JSON nor what people write: "inf" arrives as text
        object.__setattr__(self, "chunk_ms", tuple(float(chunk_ms) for chunk_ms in self.chunk_ms))
        object.__setattr__(self, "out", None if self.out is None else Path(self.out))
        for chunk_ms in self.chunk_ms:
            check_chunk_ms(chunk_ms)
        for rollback in self.rollback:
            Rollback(rollback)
        for policy in self.policy:
            StreamConfig(policy=policy)
        if self.rollback and self.policy:
            raise ValueError(
                f"rollback is {' '.join(map(str, self.rollback))} and policy is {' '.join(map(str, self.policy))}; give one of "
                f"them: a rollback is the policy rollback:{self.rollback[0]}"
            )
        if not 0 <= self.encoder_cache_mib < math.inf:
            raise ValueError(f"encoder_cache_mib is {self.encoder_cache_mib!r}; it must be a number of MiB, 0 or more")
        check_processes(self.workers)
        if self.batch_size != "auto":
            check_whole_numbers(self, {"batch_size": 1})
        if self.on_error not in ("fail", "skip"):
            raise ValueError(f"on_error is {self.on_error!r}; it must be 'fail' or 'skip'")
        if self.comet and self.out is None:
            raise ValueError(f"comet is {self.comet!r}, which keeps its scores in the folder: give --out FOLDER")
        if self.comet:
            check_comet(self.comet, self.comet_command)

    def rows_together(self, lalm: LALM) -> int:
        """The batch size for a model, depending on its device."""
        return rows_for(self.batch_size, getattr(lalm, "device", None), _GPU_ROWS)

    @property
    def grid(self) -> list[Setting]:
        """Every chunk size with every policy, each once."""
        policies = self.policy or [Rollback(tokens) for tokens in self.rollback or ROLLBACKS]
        return list(dict.fromkeys((chunk_ms, policy) for policy in policies for chunk_ms in self.chunk_ms))


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
    with alone(config.out):
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
    direction = Direction(clips[0].row.source_lang, job.target_lang)
    if not (todo or config.comet):
        logger.info("evaluate: %s is already complete", config.out)
    if todo and config.preflight:
        preflight(lalm, direction)
    if config.out is not None and config.overwrite:
        clear(config.out)
    if todo and config.batch_size == 1:  # computing time is measured: the first chunk must not include start-up costs
        warm_up(lalm, direction, 1, max(clip.samples for clip in clips))
    announce(lalm, (Direction(clip.row.source_lang, clip.row.target_lang) for clip in clips))
    for chunk_ms, policy in todo:
        offline = next((score for (k, _), score in scores.items() if k == chunk_ms and math.isinf(k)), None)
        # offline, the policy makes no difference
        scores[chunk_ms, policy] = {**offline, **_named(policy)} if offline else _measure(job, chunk_ms, policy)
        if config.out is not None:
            write_scores(config.out, _in_order(scores))
    if config.out is not None:
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
        if not same_audio(score.get("audio"), job.audio):
            _check_same(out, f"audio:{score['audio']}", f"audio:{job.audio}")
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
