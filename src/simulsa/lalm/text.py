"""Token ids to displayable text: never a partial character, never a partial word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from simulsa.lalm.interface import LALM
from simulsa.languages import is_spaced, latency_unit, unit_ends

_CLOSING = tuple(".!?…。！？।۔؟")
INCOMPLETE = "\ufffd"  # what an unfinished multi-byte character decodes to


def stable_text(lalm: LALM, committed: Sequence[int], hypothesis: Sequence[int], lang: str, final: bool) -> str:
    """The text of the `committed` tokens that can be shown permanently.

    `hypothesis` begins with `committed` and continues with the tentative tokens. A character whose bytes are not all committed is
    withheld, and so is a last word that the hypothesis continues, in languages with spaces between words. With `final`,
    everything is shown.
    """
    text = lalm.decode(committed)
    if final:
        return text
    shown = text.rstrip(INCOMPLETE)
    if len(shown) < len(text):
        return _whole_words(shown) if is_spaced(lang) else shown
    following = lalm.decode(hypothesis)[len(shown) :]
    in_word = bool(shown) and bool(following) and _joins(shown[-1]) and _joins(following[0])
    return _whole_words(shown) if in_word and is_spaced(lang) else shown


def whole_characters(lalm: LALM, tokens: Sequence[int]) -> int:
    """How many of `tokens` can be kept so that their text ends with a complete character."""
    count = len(tokens)
    while count and lalm.decode(tokens[:count]).endswith(INCOMPLETE):
        count -= 1
    return count


def whole_words(lalm: LALM, tokens: Sequence[int], count: int, lang: str) -> int:
    """How many of the first `count` tokens to keep so as not to end inside a word; all in languages without spaces."""
    if not is_spaced(lang):
        return count
    text = lalm.decode(tokens)
    while 0 < count < len(tokens):
        end = len(lalm.decode(tokens[:count]))
        if not (_joins(text[end - 1]) and _joins(text[end : end + 1] or " ")):
            break
        count -= 1
    return count


def word_ends(lalm: LALM, tokens: Sequence[int], lang: str) -> list[int]:
    """For each word of the text (character, in languages without spaces), how many of `tokens` complete it."""
    lengths = [len(lalm.decode(tokens[:count]).rstrip(INCOMPLETE)) for count in range(len(tokens) + 1)]
    ends = unit_ends(lalm.decode(tokens).rstrip(INCOMPLETE), latency_unit(lang))
    return [next(count for count, length in enumerate(lengths) if length >= end) for end in ends]


def ends_sentence(text: str) -> bool:
    """Whether `text` ends with a mark that closes a sentence."""
    return text.rstrip().endswith(_CLOSING)


def without_sentence_end(lalm: LALM, tokens: Sequence[int]) -> int:
    """How many of `tokens` stand before the marks that close the sentence at their end; all if none does."""
    count = len(tokens)
    while count and ends_sentence(lalm.decode(tokens[:count])):
        count -= 1
    return count


def _joins(character: str) -> bool:
    # combining marks (category M) are the vowel signs of Hindi or Tamil; joiners (category Cf) occur in Persian words
    return character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf") or character in "-'’" + INCOMPLETE


def _whole_words(text: str) -> str:
    """`text` without its last, unfinished word and the space before it."""
    space = max(text.rfind(" "), text.rfind("\n"))
    return text[:space] if space > 0 else ""
