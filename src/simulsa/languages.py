"""Languages: directions, codes, names, latency units and tokenizers. Names come from Babel's CLDR data."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

# Written without spaces between words: text is counted in characters.
_UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})
_BLEU_TOKENIZERS = {
    "zh": "zh",
    "yue": "zh",
    "ja": "ja-mecab",
    "ko": "ko-mecab",
    "th": "char",
    "lo": "char",
    "my": "char",
    "km": "char",
}


class Direction(NamedTuple):
    """Language of the speech and language of the translation."""

    source_lang: str
    target_lang: str


def language_name(code: str) -> str:
    """The English name of a language code: `de` → `German`.

    Raises `ValueError` for a code that CLDR does not know.
    """
    names = _names()
    if code in names:
        return names[code]
    main = base_language(code)
    if main not in names:
        raise ValueError(f"unknown language {code!r}; use an ISO 639 code such as 'en', 'de', 'zh' or 'ja'")
    return names[main]


def base_language(code: str) -> str:
    """The language without its region or script: `zh-CN` → `zh`."""
    return code.replace("_", "-").split("-")[0].lower()


def is_spaced(code: str) -> bool:
    """Whether the language puts spaces between words."""
    return base_language(code) not in _UNSPACED


def latency_unit(code: str) -> str:
    """The unit in which latency is counted: `word`, or `char` for languages without spaces."""
    return "word" if is_spaced(code) else "char"


def unit_ends(text: str, unit: str) -> list[int]:
    """Where each `word` or `char` of a text ends: the position after its last character."""
    return list(range(1, len(text) + 1)) if unit == "char" else [word.end() for word in re.finditer(r"\S+", text)]


def bleu_tokenizer(code: str) -> str:
    """SacreBLEU's tokenizer for a target language: `zh`, `ja-mecab`, `ko-mecab`, `char` or the default `13a`."""
    return _BLEU_TOKENIZERS.get(base_language(code), "13a")


@functools.cache
def _names() -> dict[str, str]:
    import babel

    return dict(babel.Locale("en").languages)
