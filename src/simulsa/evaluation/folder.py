"""The folder of an evaluation: `scores.json`, an instance log per setting, `table.md`, `quality-latency.png`, `comet.jsonl`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from simulsa import strict_json
from simulsa.evaluation.instances import EvaluationError, log_name
from simulsa.evaluation.report import markdown_report, plot_quality_latency
from simulsa.evaluation.scores import Score, policy_of_score
from simulsa.files import atomic_write, sole_writer, write_json

SCORES = "scores.json"
COMET_JOURNAL = "comet.jsonl"
_KEYS = {"chunk_ms", "rollback", "bleu", "laal_ms", "test_set", "signature"}  # a file without these is not ours


def sole_evaluation(folder: Path | None) -> contextlib.AbstractContextManager[None]:
    """Raises `EvaluationError` on entry if another process evaluates into `folder`."""
    if folder is None:
        return contextlib.nullcontext()
    return sole_writer(
        folder, EvaluationError(f"{folder}: another process is evaluating into it; wait for it, or choose another --out")
    )


def read_scores(folder: str | Path) -> list[Score]:
    """The scores that an evaluation wrote. Raises `EvaluationError` when the folder has none, or they cannot be read."""
    path = Path(folder) / SCORES
    try:
        scores = strict_json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise EvaluationError(f"{path}: not found; give a folder that simulsa evaluate has finished a setting in") from None
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON ({error}); evaluate again with --overwrite") from error
    if not isinstance(scores, list) or not all(isinstance(score, dict) and score.keys() >= _KEYS for score in scores):
        raise EvaluationError(f"{path}: not a list of scores as simulsa evaluate writes it; evaluate again with --overwrite")
    return scores


def finished_scores(folder: Path) -> list[Score]:
    """Scores of the finished settings: those whose instance log exists."""
    if not (folder / SCORES).exists():
        return []
    return [
        score for score in read_scores(folder) if (folder / log_name(float(score["chunk_ms"]), policy_of_score(score))).exists()
    ]


def write_scores(folder: Path, scores: Sequence[Score]) -> None:
    """Write `scores.json`, whole or not at all."""
    write_json(folder / SCORES, list(scores))


def write_report(folder: Path, scores: Sequence[Score]) -> None:
    """Write `table.md` and `quality-latency.png`."""
    with atomic_write(folder / "table.md") as file:
        file.write(markdown_report(scores))
    plot_quality_latency({scores[0]["model"]: scores}, folder / "quality-latency.png")


def clear(folder: Path) -> None:
    """Remove the files of an evaluation, and nothing else."""
    for path in [
        folder / SCORES,
        folder / COMET_JOURNAL,
        folder / "table.md",
        folder / "quality-latency.png",
        *folder.glob("instances-*-*.log"),
    ]:
        path.unlink(missing_ok=True)
