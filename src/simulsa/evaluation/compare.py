"""`compare`: several evaluations of one test set in one table and one plot."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from simulsa.evaluation.folder import read_scores
from simulsa.evaluation.front import OperatingPoint, pareto_front, setting_of
from simulsa.evaluation.instances import EvaluationError, log_name, read_instances
from simulsa.evaluation.report import Evaluations, comparison_table, front_list, plot_quality_latency
from simulsa.evaluation.scores import Score
from simulsa.evaluation.significance import RESAMPLES, SIGNIFICANT, p_value
from simulsa.extras import require
from simulsa.files import atomic_write
from simulsa.lalm.signature import same_audio
from simulsa.progress import track

logger = logging.getLogger("simulsa")

BETTER, WORSE = "▲", "▼"


def compare(dirs: Sequence[str | Path], out: str | Path | None = None, baseline: str | Path | None = None) -> str:
    """A Markdown table of several folders that `evaluate` wrote, each under its folder's name.

    Settings on the Pareto front are bold, and a list of them follows. With a `baseline`, one of the folders, an arrow marks a
    setting that is significantly better or worse than the same one there, by their instance logs; if a log is missing, there is
    no arrow. `out` is a folder for `table.md` and `quality-latency.png`. Raises `EvaluationError` when a folder holds no scores
    or is given twice, when the baseline is not among them, or when their test sets or what their audio holds differ; scores by
    different versions of the scorers are compared with a warning.
    """
    require("comparison", "evaluate")
    if not dirs:
        raise EvaluationError("nothing to compare; give at least one folder written by simulsa evaluate")
    folders = _named([Path(folder) for folder in dirs])
    chosen = None if baseline is None else _chosen(Path(baseline), folders)
    evaluations = {name: read_scores(folder) for name, folder in folders.items()}
    _check_same_test_set(evaluations)
    _check_same_audio(evaluations)
    front = pareto_front(evaluations)
    arrows = {} if chosen is None else _arrows(evaluations, folders, chosen)
    table = comparison_table(evaluations, front, arrows)
    if chosen is not None:
        table += f"{BETTER} {WORSE}: better, worse than {chosen} with p < {SIGNIFICANT} (paired bootstrap, {RESAMPLES} samples)\n"
    table += "\nBold settings form the Pareto front (no other is better in both), from the fastest:\n\n" + front_list(front)
    if out is not None:
        with atomic_write(Path(out) / "table.md") as file:
            file.write(table)
        plot_quality_latency(evaluations, Path(out) / "quality-latency.png", ("laal_ms", "yaal_ms"), front=True)
    return table


def _chosen(baseline: Path, folders: Mapping[str, Path]) -> str:
    """The name of the folder that others are compared with."""
    for name, folder in folders.items():
        if folder.resolve() == baseline.resolve():
            return name
    raise EvaluationError(
        f"baseline is {str(baseline)!r}; it must be one of the folders: {', '.join(map(str, folders.values()))}"
    )


def _arrows(evaluations: Evaluations, folders: Mapping[str, Path], baseline: str) -> dict[OperatingPoint, str]:
    """An arrow for every setting that is known to differ significantly from the same one of the baseline."""
    arrows, missing = {}, 0
    scored = {setting_of(name, score): score for name, scores in evaluations.items() for score in scores}
    pairs = [
        (setting, score, scored[baseline, *setting[1:]])
        for setting, score in scored.items()
        if setting[0] != baseline and (baseline, *setting[1:]) in scored
    ]
    for setting, score, other in track(pairs, "significance"):
        name, policy, chunk_ms = setting
        own, theirs = (folders[place] / log_name(chunk_ms, policy) for place in (name, baseline))
        if not (own.exists() and theirs.exists()):
            missing += 1
        elif p_value(read_instances(own), read_instances(theirs), _tokenizer(score)) < SIGNIFICANT:
            arrows[setting] = f" {BETTER}" if score["bleu"] > other["bleu"] else f" {WORSE}"
    if missing:
        logger.warning("%d of %d settings are not tested for significance: an instance log is missing", missing, len(pairs))
    return arrows


def _tokenizer(score: Score) -> str:
    """SacreBLEU's tokenizer, from its signature: `nrefs:1|case:mixed|eff:no|tok:13a|…`, `tok:ja-mecab-0.996-IPA`."""
    signature: str = score["bleu_signature"]
    named = dict(part.split(":", 1) for part in signature.split("|"))["tok"]
    return "-".join(named.split("-")[:2])  # MeCab's version and dictionary follow the name


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by the end of their paths, just long enough to tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise EvaluationError(f"{path}: given twice; give each folder once")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return {"/".join(path.parts[-depth:]): folder for path, folder in zip(paths, folders, strict=True)}


def _check_same_test_set(evaluations: Evaluations) -> None:
    (first, scores), *others = evaluations.items()
    wanted = _test_set(scores, first)
    for name, other in others:
        found = _test_set(other, name)
        if found != wanted:
            raise EvaluationError(
                f"{name!r} was measured on another test set ({found}, {other[0]['utterances']} utterances) than {first!r} "
                f"({wanted}, {scores[0]['utterances']} utterances); their scores cannot be compared: evaluate both on the "
                "same manifest"
            )
        if other[0]["bleu_signature"] != scores[0]["bleu_signature"]:
            logger.warning(
                "%s and %s were scored differently: %s, %s", first, name, *(s[0]["bleu_signature"] for s in (scores, other))
            )


def _check_same_audio(evaluations: Evaluations) -> None:
    """Raise `EvaluationError` if two folders record different audio; those of earlier versions record none."""
    audio = {name: score["audio"] for name, scores in evaluations.items() for score in scores if score.get("audio")}
    first = next(iter(audio), "")
    for name, signature in audio.items():
        if not same_audio(audio[first], signature):
            raise EvaluationError(
                f"{name!r} was measured on other audio ({signature}) than {first!r} ({audio[first]}), with the same ids and file "
                "names; their scores cannot be compared: evaluate both on the same audio"
            )


def _test_set(scores: Sequence[Score], name: str) -> str:
    if not scores:
        raise EvaluationError(f"{name}: no setting is finished; run simulsa evaluate again")
    return str(scores[0]["test_set"])
