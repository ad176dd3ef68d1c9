"""`compare`: several evaluations of one test set in one table and one plot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from simulsa.evaluation.folder import read_scores
from simulsa.evaluation.instances import EvaluationError
from simulsa.evaluation.report import Evaluations, comparison_table, plot_quality_latency
from simulsa.evaluation.scores import Score
from simulsa.files import atomic_write

logger = logging.getLogger("simulsa")


def compare(dirs: Sequence[str | Path], out: str | Path | None = None) -> str:
    """The table of several folders that `evaluate` wrote, as Markdown, each under its folder's name.

    `out` is a folder for `table.md` and `quality-latency.png`. Raises `EvaluationError` when a folder holds no scores or is
    given twice, or when their test sets differ; scores by different versions of the scorers are compared with a warning.
    """
    if not dirs:
        raise EvaluationError("there is nothing to compare; give at least one folder that simulsa evaluate wrote")
    folders = [Path(folder) for folder in dirs]
    evaluations = dict(zip(_names(folders), [read_scores(folder) for folder in folders], strict=True))
    _check_same_test_set(evaluations)
    table = comparison_table(evaluations)
    if out is not None:
        with atomic_write(Path(out) / "table.md") as file:
            file.write(table)
        plot_quality_latency(evaluations, Path(out) / "quality-latency.png")
    return table


def _names(folders: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells the folders apart."""
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise EvaluationError(f"{path}: given twice; give each folder once")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def _check_same_test_set(evaluations: Evaluations) -> None:
    (first, scores), *others = evaluations.items()
    for name, other in others:
        if _test_set(other, name) != _test_set(scores, first):
            raise EvaluationError(
                f"{name!r} was measured on another test set ({_test_set(other, name)}, {other[0]['utterances']} utterances) "
                f"than {first!r} ({_test_set(scores, first)}, {scores[0]['utterances']} utterances); "
                "their scores cannot be compared: evaluate both on the same manifest"
            )
        if other[0]["bleu_signature"] != scores[0]["bleu_signature"]:
            logger.warning(
                "%s and %s were scored differently: %s, %s", first, name, *(s[0]["bleu_signature"] for s in (scores, other))
            )


def _test_set(scores: Sequence[Score], name: str) -> str:
    if not scores:
        raise EvaluationError(f"{name}: no setting is finished; run simulsa evaluate again")
    return str(scores[0]["test_set"])
