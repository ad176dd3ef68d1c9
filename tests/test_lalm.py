"""The LALM of transformers against naive references; preflight."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.decoding import _Greedy
from simulsa.lalm.instructions import instruction
from simulsa.lalm.interface import LALM, Continuation, Heads, LALMError, TokenScores, Want
from simulsa.lalm.preflight import preflight
from simulsa.languages import Direction
from simulsa.testing import FakeLALM
from tests.conftest import examples
from tests.lalms import attend, continue_, score

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

EN_DE = Direction("en", "de")
TARGETS = ["Zwei Hunde spielen im Schnee.", "", "Ein Mann fährt.", "Ja"]


def sounds() -> list[np.ndarray]:
    """Four clips of very different sound and length: 1.5, 0.4, 2.0 s and a single sample."""
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    rng = np.random.default_rng(3)
    chirp = 0.5 * np.sin(2 * np.pi * (150 * time + 900 * time**2))
    bursts = 0.3 * rng.standard_normal(len(time)) * (np.sin(2 * np.pi * 4 * time) > 0)
    hum = 0.4 * np.sin(2 * np.pi * 120 * time)
    lengths = (24_000, 6_400, 32_000, 1)
    return [clip[:length].astype(np.float32) for clip, length in zip((chirp, bursts, hum, chirp + 1), lengths, strict=True)]


@pytest.fixture(scope="module")
def lively(random_lalm: HuggingFaceLALM) -> HuggingFaceLALM:
    """The random model with larger weights: its answers differ from clip to clip and hardly repeat."""
    lalm = copy.deepcopy(random_lalm)
    for name, weight in lalm.model.named_parameters():
        if weight.dim() >= 2 and "embed" not in name and "audio_tower" not in name:
            weight.data.mul_(4)
    outputs = free(lalm, sounds())
    assert all(len(set(output)) > 6 for output in outputs), "the answers repeat; the tests below would be weak"
    assert len({tuple(output) for output in outputs}) == len(outputs)
    return lalm


def free(lalm: LALM, audios: Sequence[np.ndarray]) -> list[list[int]]:
    return continue_(lalm, audios, [[] for _ in audios], [EN_DE] * len(audios))


def reference_inputs(lalm: HuggingFaceLALM, audio: np.ndarray) -> dict[str, torch.Tensor]:
    """One prompt, straight from the processor's chat template."""
    content = [{"type": "audio", "audio": audio}, {"type": "text", "text": instruction(EN_DE)}]
    inputs = lalm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    return {name: tensor.to(lalm.device) for name, tensor in inputs.items()}


def followed_by(inputs: dict[str, torch.Tensor], answer: list[int]) -> dict[str, torch.Tensor]:
    """The inputs with the tokens of an answer behind the prompt."""
    ids = inputs["input_ids"]
    ids = torch.cat([ids, torch.tensor([answer], dtype=torch.long, device=ids.device)], dim=1)
    return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture
def count_passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[HuggingFaceLALM], list[int]]]:
    """`count_passes(lalm)` is a list that grows by the batch size with every forward pass of the language model's layers.

    Tokens are decoded the plain way from then on: the steps of a CUDA graph are no forward passes.
    """
    handles = []

    def count(lalm: HuggingFaceLALM) -> list[int]:
        passes: list[int] = []
        monkeypatch.setattr(lalm.decoder, "steps", None)

        def note(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            passes.append(len(arguments[0]))

        handles.append(lalm.decoder.language_model.layers[0].register_forward_pre_hook(note))
        return passes

    yield count
    for handle in handles:
        handle.remove()


class TestScore:
    def test_equals_a_naive_reference(self, lively: HuggingFaceLALM) -> None:
        audio, target = sounds()[0], lively.encode(TARGETS[0])
        inputs = reference_inputs(lively, audio)
        scores = score(lively, [audio], [target], [EN_DE])[0]
        assert scores.log_probs.dtype == np.float32
        assert scores.ranks.dtype == np.int64
        for i, token in enumerate(target):  # token by token, as a slow and certain check
            with torch.no_grad():
                logits = lively.model(**followed_by(inputs, target[:i])).logits[0, -1].clone()
            logits[lively.audio_token_id] = -torch.inf
            assert scores.log_probs[i] == pytest.approx(float(logits.log_softmax(0)[token]), abs=1e-4)
            assert scores.ranks[i] == int((logits > logits[token]).sum())

    def test_batched_equals_single(self, lively: HuggingFaceLALM) -> None:
        audios, targets = sounds(), [lively.encode(text) for text in TARGETS]
        batch = score(lively, audios, targets, [EN_DE] * 4)
        for audio, target, together in zip(audios, targets, batch, strict=True):
            alone = score(lively, [audio], [target], [EN_DE])[0]
            assert len(together.log_probs) == len(together.ranks) == len(target)
            np.testing.assert_allclose(together.log_probs, alone.log_probs, atol=1e-4)
            np.testing.assert_array_equal(together.ranks, alone.ranks)

    def test_takes_one_forward_pass(self, lively: HuggingFaceLALM, count_passes: Callable[..., list[int]]) -> None:
        passes = count_passes(lively)
        score(lively, sounds(), [lively.encode(text) for text in TARGETS], [EN_DE] * 4)
        assert passes == [4]

    def test_the_greedy_answer_has_rank_0(self, lively: HuggingFaceLALM) -> None:
        outputs = free(lively, sounds())
        for scores in score(lively, sounds(), outputs, [EN_DE] * 4):
            assert scores.ranks.tolist() == [0] * 12
            assert (scores.log_probs < 0).all()

    def test_another_direction_and_another_audio_change_the_scores(self, lively: HuggingFaceLALM) -> None:
        chirp, _, hum, _ = sounds()
        target = lively.encode(TARGETS[0])
        one, other, french = score(lively, [chirp, hum[: len(chirp)], chirp], [target] * 3, [EN_DE, EN_DE, Direction("en", "fr")])
        assert np.abs(one.log_probs - other.log_probs).max() > 1e-3
        assert np.abs(one.log_probs - french.log_probs).max() > 1e-3


class TestAttend:
    def test_equals_the_weights_that_transformers_returns(self, lively: HuggingFaceLALM) -> None:
        audio, target = sounds()[0], lively.encode(TARGETS[0])
        inputs = followed_by(reference_inputs(lively, audio), target)
        ids = inputs["input_ids"]
        model = copy.deepcopy(lively.model)
        model.set_attn_implementation("eager")
        with torch.no_grad():
            found = model(**inputs, output_attentions=True).attentions
        (layer,) = [weights for weights in found if weights.shape[-1] == ids.shape[1]]
        said = layer[0, :, -len(target) - 1 : -1][..., ids[0] == lively.audio_token_id].cpu().numpy()
        np.testing.assert_allclose(attend(lively, [audio], [target], [EN_DE])[0], said.mean(0), atol=1e-5)
        np.testing.assert_allclose(attend(lively, [audio], [target], [EN_DE], Heads(0, 1))[0], said[1], atol=1e-5)

    def test_costs_no_pass_and_leaves_the_model_as_it_was(
        self, lively: HuggingFaceLALM, count_passes: Callable[..., list[int]]
    ) -> None:
        outputs = free(lively, sounds())
        fast = lively.model.config.get_text_config()._attn_implementation
        passes = count_passes(lively)
        said = lively.continue_(lively.hear(sounds(), [EN_DE] * 4), [[]] * 4, outputs, Want(heads=Heads()))
        assert [continuation.tokens for continuation in said] == outputs
        assert passes == [4]
        assert lively.model.config.get_text_config()._attn_implementation == fast != "eager"
        assert not any(module._forward_hooks for module in lively.model.modules() if module is not lively.decoder.language_model)
        assert free(lively, sounds()) == outputs

    def test_is_the_same_with_and_without_drafts_and_from_every_prefix(self, lively: HuggingFaceLALM) -> None:
        outputs = free(lively, sounds())
        wanted = attend(lively, sounds(), outputs, [EN_DE] * 4)
        heard = lively.hear(sounds(), [EN_DE] * 4)
        prefixes = [outputs[0][:5], [], outputs[2][:1], outputs[3][:11]]
        for drafts in (None, [outputs[0][5:8], [*outputs[1][:3], 7, 7, 7], [9], []]):
            for row, said in enumerate(lively.continue_(heard, prefixes, drafts, Want(log_probs=True, heads=Heads()))):
                start = len(prefixes[row])
                assert said.attention is not None
                assert said.log_probs is not None
                np.testing.assert_allclose(said.attention, wanted[row][start:], atol=1e-5)
                scored = lively.score(heard[row : row + 1], outputs[row : row + 1])[0]
                np.testing.assert_allclose(said.log_probs, scored.log_probs[start:], atol=1e-4)
                assert said.log_probs.dtype == said.attention.dtype == np.float32

    def test_batched_equals_single(self, lively: HuggingFaceLALM) -> None:
        targets = [lively.encode(text) for text in TARGETS]
        for audio, target, together in zip(sounds(), targets, attend(lively, sounds(), targets, [EN_DE] * 4), strict=True):
            assert together.shape[0] == len(target)
            assert (together.sum(1) <= 1 + 1e-5).all()
            np.testing.assert_allclose(attend(lively, [audio], [target], [EN_DE])[0], together, atol=1e-5)

    @pytest.mark.parametrize(
        ("heads", "message"), [(Heads(1), "layer is 1; it has layers 0 to 0"), (Heads(0, 4), "head is 4; its layers have heads")]
    )
    def test_heads_that_are_not_there(self, lively: HuggingFaceLALM, heads: Heads, message: str) -> None:
        with pytest.raises(LALMError, match=message):
            attend(lively, sounds()[:1], [[7, 8]], [EN_DE], heads)
        assert lively.model.config.get_text_config()._attn_implementation != "eager"
        assert not any(module._forward_hooks for module in lively.model.modules())

    def test_a_model_that_does_not_show_its_attention(self, lively: HuggingFaceLALM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("simulsa.lalm.attention._weights", lambda output: None)
        with pytest.raises(LALMError, match="its attention is not exposed; choose a policy that does not need it"):
            attend(lively, sounds()[:1], [[7, 8]], [EN_DE])


class TestContinue:
    def test_equals_generate(self, lively: HuggingFaceLALM) -> None:
        for audio in (sounds()[0], sounds()[2]):
            inputs = reference_inputs(lively, audio)
            with torch.no_grad():
                ids = lively.model.generate(
                    **inputs, do_sample=False, max_new_tokens=12, suppress_tokens=[lively.audio_token_id], num_beams=1
                )
            assert free(lively, [audio]) == [ids[0, inputs["input_ids"].shape[1] :].tolist()]

    def test_batched_equals_single_with_ragged_prefixes_and_drafts(self, lively: HuggingFaceLALM) -> None:
        outputs = free(lively, sounds())
        prefixes = [outputs[0][:5], [], lively.encode("Ein ganz anderer Anfang"), outputs[3][:11]]
        drafts = [outputs[0][5:8], [*outputs[1][:3], 7, 7, 7], [9], []]
        together = continue_(lively, sounds(), prefixes, [EN_DE] * 4, drafts)
        for audio, prefix, draft, tokens in zip(sounds(), prefixes, drafts, together, strict=True):
            assert tokens == continue_(lively, [audio], [prefix], [EN_DE], [draft])[0]
            assert tokens == continue_(lively, [audio], [prefix], [EN_DE])[0]

    def test_forcing_a_prefix_equals_free_decoding_from_every_split(self, lively: HuggingFaceLALM) -> None:
        audio = sounds()[0]
        output = free(lively, [audio])[0]
        splits = range(len(output) + 1)
        tails = continue_(lively, [audio] * len(splits), [output[:i] for i in splits], [EN_DE] * len(splits))
        assert tails == [output[i:] for i in splits]

    def test_rows_end_at_their_own_eos(self, lively: HuggingFaceLALM) -> None:
        outputs = free(lively, sounds())
        stopping = copy.copy(lively)
        stopping.eos_ids = [outputs[0][4], outputs[1][9], outputs[2][7]]
        expected = []
        for output in outputs:
            ends = [i for i, token in enumerate(output) if token in stopping.eos_ids]
            expected.append(output[: min([*ends, 12])])
        assert len({len(tokens) for tokens in expected}) >= 3
        assert free(stopping, sounds()) == expected
        drafts = [[*tokens, stopping.eos_ids[0]] for tokens in outputs]
        assert continue_(stopping, sounds(), [[]] * 4, [EN_DE] * 4, drafts) == expected

    @given(data=st.data())
    @settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_drafts_never_change_tokens(self, lively: HuggingFaceLALM, data: st.DataObject) -> None:
        audios = sounds()[:2]
        outputs = _memo(lively, audios)
        eos = outputs[0][7]
        stopping = copy.copy(lively)
        stopping.eos_ids = [*lively.eos_ids, eos]
        tokens = st.integers(6, 400) | st.sampled_from([eos, lively.eos_id])
        prefixes, drafts, expected = [], [], []
        for output in outputs:
            right = output[: output.index(eos)] if eos in output else output
            start = data.draw(st.integers(0, len(right)))
            keep = data.draw(st.integers(0, len(right) - start))
            draft = right[start : start + keep] + data.draw(st.lists(tokens, max_size=20))
            prefixes.append(right[:start])
            drafts.append(draft)
            expected.append(right[start:])
        assert continue_(stopping, audios, prefixes, [EN_DE] * 2, drafts) == expected

    def test_a_right_draft_takes_one_pass_and_a_half_right_one_fewer(
        self, lively: HuggingFaceLALM, count_passes: Callable[..., list[int]]
    ) -> None:
        audio = sounds()[0]
        output = free(lively, [audio])[0]
        passes = count_passes(lively)
        for draft, expected in (([], 12), ([*output[:6], 7, 7], 6), (output[:11], 1), (output, 1), (output + output, 1)):
            passes.clear()
            assert continue_(lively, [audio], [[]], [EN_DE], [draft]) == [output]
            assert len(passes) == expected

    def test_a_right_draft_up_to_eos_takes_one_pass(
        self, lively: HuggingFaceLALM, count_passes: Callable[..., list[int]]
    ) -> None:
        audio = sounds()[0]
        output = free(lively, [audio])[0]
        stopping = copy.copy(lively)
        stopping.eos_ids = [output[6]]
        passes = count_passes(lively)
        assert continue_(stopping, [audio], [output[:2]], [EN_DE], [output[2:6]]) == [output[2:6]]
        assert passes == [1]

    def test_rows_that_ended_leave_the_batch(self, lively: HuggingFaceLALM, count_passes: Callable[..., list[int]]) -> None:
        outputs = free(lively, sounds()[:3])
        passes = count_passes(lively)
        continue_(lively, sounds()[:3], [outputs[0][:10], outputs[1][:6], outputs[2]], [EN_DE] * 3)
        assert passes == [3, 2, 1, 1, 1, 1]

    def test_the_audio_placeholder_is_never_said(self, lively: HuggingFaceLALM) -> None:
        audios, targets = sounds()[:3], [lively.encode(TARGETS[0])] * 3
        outputs, scores = free(lively, audios), score(lively, audios, targets, [EN_DE] * 3)

        def tempt(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
            logits = logits.clone()
            logits[..., lively.audio_token_id] = 1e4
            return logits

        handle = lively.model.get_output_embeddings().register_forward_hook(tempt)
        try:
            assert free(lively, audios) == outputs
            for plain, tempted in zip(scores, score(lively, audios, targets, [EN_DE] * 3), strict=True):
                np.testing.assert_array_equal(plain.log_probs, tempted.log_probs)
                np.testing.assert_array_equal(plain.ranks, tempted.ranks)
        finally:
            handle.remove()

    def test_the_prefix_counts_towards_the_longest_translation(self, lively: HuggingFaceLALM) -> None:
        audio = sounds()[0]
        prefix = lively.encode("Ein Mann in einem roten Hemd fährt mit dem Fahrrad durch die Stadt.")
        assert len(prefix) > 12
        assert continue_(lively, [audio, audio], [prefix[:10], prefix], [EN_DE] * 2)[1] == []
        assert len(continue_(lively, [audio], [prefix[:10]], [EN_DE])[0]) == 2

    def test_a_clip_past_the_window_is_refused(self, lively: HuggingFaceLALM) -> None:
        assert lively.max_samples == 10 * SAMPLE_RATE
        whole = np.zeros(lively.max_samples, dtype=np.float32)
        assert len(free(lively, [whole])[0]) == 12
        longer = np.zeros(lively.max_samples + 1600, dtype=np.float32)
        with pytest.raises(LALMError, match=r"clip 1 of the batch: the clip lasts 10\.10 s .* at most 10\.00 s"):
            lively.hear([whole, longer], [EN_DE] * 2)


def _memo(lalm: HuggingFaceLALM, audios: list[np.ndarray], _memory: dict[str, list[list[int]]] = {}) -> list[list[int]]:  # noqa: B006
    if lalm.signature not in _memory:
        _memory[lalm.signature] = free(lalm, audios)
    return _memory[lalm.signature]


class TestPreflight:
    def test_a_good_model_passes(self, random_lalm: HuggingFaceLALM, lively: HuggingFaceLALM) -> None:
        preflight(random_lalm)
        preflight(lively, Direction("en", "fr"))
        preflight(hearing_fake())

    def test_a_real_model_without_audio(self, lively: HuggingFaceLALM) -> None:
        deaf = copy.copy(lively)
        deaf.hear = lambda audios, directions: lively.hear([np.zeros_like(a) for a in audios], directions)  # type: ignore[method-assign]
        with pytest.raises(LALMError, match="the model does not hear"):
            preflight(deaf)

    def test_a_model_that_hears_only_the_length(self) -> None:
        with pytest.raises(LALMError, match="the model does not hear"):
            preflight(FakeLALM(lambda audio: "x" * (len(audio) // 1000)))

    def test_scores_that_depend_on_the_batch(self) -> None:
        class Mixing(FakeLALM):
            def score(self, heard: Any, targets: Any) -> list[TokenScores]:
                return super().score(padded(heard), targets)

        with pytest.raises(LALMError, match="clip 2 scores differently in a batch than alone"):
            preflight(hearing_fake(Mixing))

    def test_tokens_that_depend_on_the_batch(self) -> None:
        class Mixing(FakeLALM):
            def continue_(self, heard: Any, *rest: Any) -> list[Continuation]:
                return super().continue_(padded(heard), *rest)

        with pytest.raises(LALMError, match="a batch decodes to other tokens than its rows alone; use --batch-size 1"):
            preflight(hearing_fake(Mixing))

    def test_a_prefix_that_is_not_followed(self) -> None:
        class Forgetful(FakeLALM):
            def continue_(self, heard: Any, prefixes: Any, *rest: Any) -> list[Continuation]:
                return super().continue_(heard, [prefix[1:] for prefix in prefixes], *rest)

        with pytest.raises(LALMError, match="continuing a forced prefix differs"):
            preflight(hearing_fake(Forgetful))

    @pytest.mark.parametrize("exact", [True, False])
    def test_a_draft_that_is_trusted(self, exact: bool) -> None:
        class Trusting(FakeLALM):
            def continue_(self, heard: Any, prefixes: Any, drafts: Any = None, *rest: Any) -> list[Continuation]:
                outputs = [said.tokens for said in super().continue_(heard, prefixes)]
                drafts = drafts or [[]] * len(outputs)
                return [Continuation([*draft, *output[len(draft) :]]) for draft, output in zip(drafts, outputs, strict=True)]

        lalm = dataclasses.replace(hearing_fake(Trusting), exact=exact)
        if exact:
            with pytest.raises(LALMError, match="verifying a draft changes the translation"):
                preflight(lalm)
        else:
            preflight(lalm)  # half precision is not held to equal tokens

    def test_rejected_tokens_that_are_still_seen(self, lively: HuggingFaceLALM, monkeypatch: pytest.MonkeyPatch) -> None:
        """An attention that ignores the mask, in the real model."""
        decode_rest = _Greedy.decode_rest

        def unmasked(self: Any, rows: Any, mask: torch.Tensor, cache: Any) -> None:
            decode_rest(self, rows, torch.cummax(mask, dim=1).values, cache)

        monkeypatch.setattr(_Greedy, "decode_rest", unmasked)
        with pytest.raises(LALMError, match="verifying a draft changes the translation"):
            preflight(lively)


def hearing_fake(kind: type[FakeLALM] = FakeLALM) -> FakeLALM:
    """Says another first letter for other sound and more letters for longer audio."""
    return kind(lambda audio: "abcdefghij"[int(np.abs(audio).sum()) % 10] + "x" * (len(audio) // 1000) + "!")


def padded(heard: Sequence[Any]) -> list[Any]:
    longest = max(len(clip.audio) for clip in heard)
    return [dataclasses.replace(clip, audio=np.pad(clip.audio, (0, longest - len(clip.audio)))) for clip in heard]
