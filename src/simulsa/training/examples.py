"""Rows to training examples, validated before training starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulsa.audio import samples_to_s
from simulsa.loading import OnError
from simulsa.manifest import Utterance, check_audio
from simulsa.progress import track

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

_NAMED_IN_ERROR = 3  # how many broken rows an error names

logger = logging.getLogger("simulsa")


class TrainError(ValueError):
    """Rows or a folder that training cannot use; the message gives what was found, the rule and the fix."""


@dataclass(frozen=True)
class Example:
    """A row and its target token ids without EOS."""

    row: Utterance
    target: tuple[int, ...]

    @property
    def length_s(self) -> float:
        """The length of the row's audio, from the row or from the file's header."""
        return samples_to_s(self.row.length_samples()) if self.row.duration_s is None else self.row.duration_s


def summary(examples: Sequence[Example]) -> str:
    """Rows by kind, and hours of audio, in a line of text."""
    total, augmented = len(examples), sum(example.row.is_augmented for example in examples)
    offline, hours = total - augmented, sum(example.length_s for example in examples) / 3600
    return (
        f"{total} rows: {offline} offline ({offline / total:.1%}), {augmented} simultaneous ({augmented / total:.1%}); "
        f"{hours:.2f} h of audio"
    )


def make_examples(rows: Sequence[Utterance], lalm: HuggingFaceLALM, on_error: OnError) -> tuple[list[Example], list[str]]:
    """The rows that can be trained on, and the ids of those that were left out for their audio.

    Only the headers of audio files are read. Raises `TrainError` for rows whose audio is broken or too long (unless `on_error`
    is `skip`), and for targets that `lalm` cannot generate.
    """
    problems = {row.id: problem for row, problem in check_audio(track(rows, "checking rows"), lalm.max_samples)}
    if problems and on_error == "fail":
        shown = "; ".join(f"row {name!r}: {problem}" for name, problem in list(problems.items())[:_NAMED_IN_ERROR])
        more = f"; and {len(problems) - _NAMED_IN_ERROR} more" if len(problems) > _NAMED_IN_ERROR else ""
        raise TrainError(f"{len(problems)} of {len(rows)} rows have unusable audio: {shown}{more}; or use --on-error skip")
    for name, problem in problems.items():
        logger.warning("train: row %r skipped: %s", name, problem)
    if len(problems) == len(rows):
        raise TrainError(f"none of the {len(rows)} rows has usable audio; see the warnings above")
    usable = [row for row in rows if row.id not in problems]
    return [Example(row, _target(row, lalm)) for row in usable], list(problems)


def _target(row: Utterance, lalm: HuggingFaceLALM) -> tuple[int, ...]:
    if row.target_tokens is None:
        tokens = tuple(lalm.encode(row.target_text))
    else:
        tokens = tuple(row.target_tokens)
        known = all(0 <= token < lalm.vocabulary_size for token in tokens)
        if not known or lalm.decode(tokens) != row.target_text:
            raise TrainError(
                f"row {row.id!r}: its target_tokens are not those of {row.target_text!r} in the tokenizer of {lalm.name}; "
                "make simultaneous rows with the model that is trained (simulsa augment)"
            )
    if forbidden := {lalm.audio_token_id, *lalm.eos_ids}.intersection(tokens):
        raise TrainError(
            f"row {row.id!r}: its target holds the special token {lalm.tokenizer.convert_ids_to_tokens(min(forbidden))!r}, "
            "which ends an answer or stands for audio; remove it from the text"
        )
    return tokens
