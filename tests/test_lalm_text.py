"""Text that may be shown: never half a character, never half a word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.lalm.text import stable_text, whole_characters
from simulsa.testing import FakeLALM
from tests.conftest import examples

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

BYTES = FakeLALM(lambda audio: "")
SPACED = ["Tür", "über", " ", " ", " ", "Größe", "don't", "E-Mail", "हिन्दी", "3,5"]
OTHERS = ["漢字", "🎉", "👩\u200d👧", "!", ", ", "a", "\n"]
PIECES = st.sampled_from(SPACED + OTHERS)
TEXTS = st.lists(PIECES, max_size=10).map("".join)


def is_word_part(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


class TestText:
    @given(TEXTS, TEXTS)
    @settings(max_examples=examples(80), deadline=None)
    def test_never_half_a_character_or_half_a_word(self, committed: str, following: str) -> None:
        text = committed + following
        tokens = BYTES.encode(text)
        for cut in range(len(tokens) + 1):
            shown = stable_text(BYTES, tokens[:cut], tokens, "de", final=False)
            assert text.startswith(shown)
            rest = text[len(shown) :]
            assert not (shown and rest and is_word_part(shown[-1]) and is_word_part(rest[0]))
            unspaced = stable_text(BYTES, tokens[:cut], tokens, "ja", final=False)
            assert unspaced == tokens_to_whole_text(tokens[:cut])
        assert stable_text(BYTES, tokens, tokens, "de", final=True) == text

    @pytest.mark.parametrize(
        ("committed", "following", "shown"),
        [
            ("Der Hund", " läuft", "Der Hund"),
            ("Der Hund", "ehalter", "Der"),
            ("Der Hund", "-Halter", "Der"),
            ("Der Hund", ", der", "Der Hund"),
            ("Der Hund", "", "Der Hund"),
            ("Der ", "Hund", "Der "),
            ("Hund", "e", ""),
            (" Hund", "e", ""),
            ("das sind 3", "5 Hunde", "das sind"),
            ("यह हिन्द", "ी है", "यह"),
            ("یہ می‌", "خواهم", "یہ"),
        ],
    )
    def test_examples(self, committed: str, following: str, shown: str) -> None:
        hypothesis = BYTES.encode(committed + following)
        assert stable_text(BYTES, BYTES.encode(committed), hypothesis, "de", final=False) == shown

    def test_a_character_that_is_half_committed(self) -> None:
        hypothesis = BYTES.encode("Eine Tür")
        assert stable_text(BYTES, hypothesis[:-2], hypothesis, "de", final=False) == "Eine"
        hypothesis = BYTES.encode("漢字")
        assert [stable_text(BYTES, hypothesis[:i], hypothesis, "zh", final=False) for i in range(7)] == [""] * 3 + ["漢"] * 3 + [
            "漢字"
        ]

    def test_with_a_real_tokenizer(self, random_lalm: HuggingFaceLALM) -> None:
        text = "Kinder klettern über 漢字 🎉 hübsch"
        tokens = random_lalm.encode(text)
        assert random_lalm.decode(tokens) == text
        seen = [stable_text(random_lalm, tokens[:i], tokens, "de", final=False) for i in range(len(tokens) + 1)]
        assert all(text.startswith(shown) for shown in seen)
        assert {len(shown) for shown in seen} >= {len("Kinder"), len("Kinder klettern"), len(text)}
        assert not any(shown.endswith(("Kin", "übe", "hü", "hübsc")) for shown in seen)

    @given(TEXTS, st.integers(0, 60))
    def test_whole_characters(self, text: str, cut: int) -> None:
        tokens = BYTES.encode(text)[:cut]
        kept = whole_characters(BYTES, tokens)
        assert BYTES.decode(tokens[:kept]) == tokens_to_whole_text(tokens)
        assert len(tokens) - kept < 4


def tokens_to_whole_text(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", errors="ignore")
