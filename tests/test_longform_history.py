"""What of earlier speech the model is shown: nothing lost or doubled, audio and text always together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.text import INCOMPLETE
from simulsa.streaming.history import forget
from simulsa.streaming.longform import LongStream
from simulsa.streaming.segmentation import LongformConfig
from simulsa.streaming.state import StreamConfig, StreamState
from simulsa.testing import FakeLALM, FakeVAD
from tests.conftest import examples
from tests.test_longform import check_session, run, segments_of

WORD_SAMPLES = 4_000  # each word of the scripted speaker is a tone of its own, a quarter of a second long
WINDOW_S = 4


def spoken(count: int, first: int = 0) -> np.ndarray:
    """`count` words: the number of each is the height of its samples."""
    return np.repeat((np.arange(first, first + count) + 10) / 1000, WORD_SAMPLES).astype(np.float32)


def words_in(audio: np.ndarray) -> list[int]:
    """The numbers of the words that can be heard, if only in part."""
    heights = np.unique(np.rint(audio * 1000).astype(int))
    return [int(height) - 10 for height in heights if height > 0]


class Reader(FakeLALM):
    """Writes `w0000 w0001 ...` for the words it hears, and reads on from the last whole word of the prefix, as a model does.

    Fails where the prefix has a word that cannot be heard. `seen` has the words heard, the prefix and the samples of each pass.
    """

    def __init__(self) -> None:
        super().__init__(lambda audio: "", max_samples=WINDOW_S * SAMPLE_RATE)
        self.seen: list[tuple[list[int], str, int]] = []

    def continue_(self, audios: Any, prefixes: Any, directions: Any, drafts: Any = None) -> list[list[int]]:
        self.calls.append(("continue_", len(audios)))
        return [self.encode(self.read_on(*row)) for row in zip(audios, map(self.decode, prefixes), strict=True)]

    def read_on(self, audio: np.ndarray, prefix: str) -> str:
        heard, read = words_in(audio), [int(number) for number in re.findall(r"w(\d{4})", prefix)]
        self.seen.append((heard, prefix, len(audio)))
        assert set(read) <= set(heard)
        text = "".join(f" w{number:04}" for number in heard if not read or number > read[-1])
        begun = re.split(r"w\d{4}", prefix)[-1]  # of a word that is not whole
        text = text if read or begun.startswith(" ") else text[1:]
        assert text.startswith(begun)
        return text[len(begun) :]


def session(lengths: Sequence[tuple[int, int]]) -> np.ndarray:
    """In turns as many words as `lengths` say, numbered through, and as many samples of silence."""
    pieces, first = [], 0
    for words, silence in lengths:
        pieces += [spoken(words, first), np.zeros(silence, dtype=np.float32)]
        first += words
    return np.concatenate(pieces)


def translation(count: int) -> str:
    return " ".join(f"w{number:04}" for number in range(count))


def stream_of(lalm: FakeLALM, config: StreamConfig | None = None, **longform: Any) -> LongStream:
    return LongStream(lalm, config, LongformConfig(**longform), FakeVAD())


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(8_600, 20_000)), min_size=1, max_size=5),
    st.sampled_from(["sentence", "segments", "window"]),
    st.builds(StreamConfig, chunk_ms=st.sampled_from([250, 500, 900]), rollback=st.sampled_from([0, 3, 7, 12])),
    st.sampled_from([2, 3, 20]),
)
@settings(max_examples=examples(60), deadline=None)
def test_nothing_is_lost_or_doubled(lengths: list[tuple[int, int]], history: str, config: StreamConfig, words: int) -> None:
    lalm, audio = Reader(), session(lengths)
    updates = run(stream_of(lalm, config, history=history, history_words=words), audio)
    check_session(updates, audio)
    assert updates[-1].committed == translation(sum(count for count, _ in lengths))
    assert max(samples for _, _, samples in lalm.seen) <= lalm.max_samples


def test_whole_segments_are_carried_over_and_the_oldest_forgotten() -> None:
    lalm = Reader()
    audio = session([(6, 16_000), (7, 16_000), (4, 16_000)])
    updates = run(stream_of(lalm, StreamConfig(chunk_ms=500, rollback=0), history="segments"), audio)
    second, third = (next(i for i, (words, _, _) in enumerate(lalm.seen) if number in words) for number in (6, 13))
    assert lalm.seen[second][:2] == ([0, 1, 2, 3, 4, 5, 6, 7], translation(6))
    assert lalm.seen[third][:2] == ([6, 7, 8, 9, 10, 11, 12, 13, 14], translation(13).removeprefix(translation(6)))
    assert [segment.text for segment in segments_of(updates)] == [
        translation(6),
        translation(13).removeprefix(translation(6)).lstrip(),
        translation(17).removeprefix(translation(13)).lstrip(),
    ]


def test_the_window_slides_over_running_speech() -> None:
    lalm = Reader()
    audio = session([(120, 16_000)])
    updates = run(stream_of(lalm, StreamConfig(chunk_ms=500, rollback=6), history="window", history_words=4), audio)
    assert len(segments_of(updates)) == 1
    assert updates[-1].committed == translation(120)
    assert max(samples for _, _, samples in lalm.seen) <= 3 * SAMPLE_RATE
    assert max(len(prefix.split()) for _, prefix, _ in lalm.seen) == 4


def test_text_without_spaces_is_counted_in_characters() -> None:
    prefixes: list[str] = []

    def script(audio: np.ndarray) -> str:
        return "".join(chr(0x4E00 + number) for number in words_in(audio))

    class Following(FakeLALM):
        def continue_(self, audios: Any, prefixes_: Any, *rest: Any) -> list[list[int]]:
            (prefix,) = map(self.decode, prefixes_)
            prefixes.append(prefix)
            prefix, answer = prefix.rstrip(INCOMPLETE), script(audios[0])
            behind = self.encode(answer[answer.index(prefix) + len(prefix) :])
            return [behind[len(prefixes_[0]) - len(self.encode(prefix)) :]]

    config = StreamConfig(target_lang="zh", chunk_ms=500, rollback=4)
    lalm = Following(script, max_samples=WINDOW_S * SAMPLE_RATE)
    updates = run(stream_of(lalm, config, history="window", history_words=4), session([(60, 9_000), (8, 9_000)]))
    assert updates[-1].committed == "".join(chr(0x4E00 + number) for number in range(68))
    assert max(len(prefix.rstrip(INCOMPLETE)) for prefix in prefixes) == 4


@pytest.mark.parametrize(
    ("history", "texts", "committed"),
    [
        ("none", ["Ein Satz.", "Ein Satz."], "Ein Satz. Ein Satz."),
        ("sentence", ["Ein Satz.", "Ein Satz."], "Ein Satz. Ein Satz."),
        ("segments", ["Ein Satz.", ""], "Ein Satz."),  # a model of single sentences takes the carried one for its answer
        ("window", ["Ein Satz.", ""], "Ein Satz."),
    ],
)
def test_a_model_that_knows_single_sentences(history: str, texts: list[str], committed: str) -> None:
    lalm = FakeLALM(lambda audio: "Ein Satz.", max_samples=WINDOW_S * SAMPLE_RATE)
    updates = run(stream_of(lalm, history=history), session([(4, 9_000), (4, 9_000)]))
    assert [segment.text for segment in segments_of(updates)] == texts
    assert updates[-1].committed == committed


def test_a_sentence_is_carried_over_until_it_is_finished() -> None:
    heard: list[list[int]] = []
    texts = {2: "Es war einmal", 5: "Es war einmal ein Esel.", 7: "Der konnte", 8: "Ende"}

    class Telling(FakeLALM):
        def continue_(self, audios: Any, prefixes: Any, *rest: Any) -> list[list[int]]:
            heard.append(words_in(audios[0]))
            return [self.encode(texts[heard[-1][-1]].removeprefix(self.decode(prefixes[0])))]

    lalm = Telling(lambda audio: "", max_samples=WINDOW_S * SAMPLE_RATE)
    audio = session([(3, 9_000), (3, 9_000), (2, 9_000), (1, 9_000)])
    updates = run(stream_of(lalm, StreamConfig(chunk_ms=float("inf")), history="sentence"), audio)
    assert heard == [[0, 1, 2], [0, 1, 2, 3, 4, 5], [6, 7], [6, 7, 8]]
    assert updates[-1].committed == "Es war einmal ein Esel. Der konnteEnde"  # this model forgets its own space


def test_a_segment_without_text_is_not_carried_over() -> None:
    heard: list[int] = []

    def script(audio: np.ndarray) -> str:
        heard.append(len(words_in(audio)))
        return "" if 0 in words_in(audio) else "da"

    lalm = FakeLALM(script, max_samples=WINDOW_S * SAMPLE_RATE)
    run(stream_of(lalm, StreamConfig(chunk_ms=float("inf")), history="segments"), session([(4, 9_000), (3, 9_000), (2, 9_000)]))
    assert heard == [4, 3, 5]


@given(st.text(st.sampled_from("a é漢🎉"), max_size=12), st.integers(0, 12), st.integers(0, 5))
def test_forgetting_keeps_what_is_not_shown_yet(text: str, hidden: int, tokens: int) -> None:
    lalm = FakeLALM(lambda audio: "")
    state = StreamState(StreamConfig(), 10**6)
    state.audio, state.heard_samples = np.arange(100, dtype=np.float32), 60
    state.committed = lalm.encode(text)
    state.shown = text[: len(text) - min(hidden, len(text))]
    state.previous = [[*state.committed, 65], [*state.committed, 66, 67]]
    first = len(lalm.encode(text[:tokens]))
    forget(lalm, state, first, 40)
    assert state.previous == [[*state.committed, 65], [*state.committed, 66, 67]]
    assert state.shown == text[min(tokens, len(text)) : max(len(text) - hidden, 0)]
    assert (state.heard_samples, len(state.audio), state.audio[0]) == (20, 60, 40)


@pytest.mark.parametrize("history", ["sentence", "segments", "window"])
def test_a_policy_that_counts_words_does_not_go_with_words_carried_over(history: str) -> None:
    with pytest.raises(ValueError, match=f"policy is 'wait-k:3', which counts words .* history is '{history}'"):
        stream_of(Reader(), StreamConfig(chunk_ms=500, policy="wait-k:3"), history=history)
