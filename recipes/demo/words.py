"""Approximate start and end of each word of a spoken sentence, because neural synthesisers do not report them."""

from __future__ import annotations

STRESS_MARKS = "ˈˌ"


def word_times(text: str, phonemes: str, length_s: float) -> list[tuple[str, float, float]]:
    """Words of `text` with start and end in seconds, for speech of `length_s` without silence around it.

    Each word gets a share of the time in proportion to its phonemes; a comma counts as one more. Pauses, stress and the
    lengthening of a sentence's last word are unknown, so a time may be wrong by a few tenths of a second. `phonemes` is the
    text in misaki's alphabet (one symbol per phoneme) with a space between words. Raises `ValueError` if its words do not match
    those of the text.
    """
    words, spoken = text.split(), phonemes.split()
    if len(words) != len(spoken):
        raise ValueError(f"{text!r} has {len(words)} words, but its phonemes {phonemes!r} have {len(spoken)}; it must be as many")
    counts = [sum(sign not in STRESS_MARKS for sign in word) for word in spoken]
    ends = [length_s * sum(counts[: number + 1]) / sum(counts) for number in range(len(counts))]
    starts = [0.0, *ends[:-1]]
    return [(word.rstrip(".,"), start, end) for word, start, end in zip(words, starts, ends, strict=True)]
