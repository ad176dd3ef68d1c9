"""Every family of audio-language models, on a tiny model of its real classes: the same promises for all."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from simulsa.audio import SAMPLE_RATE
from simulsa.cli import main
from simulsa.lalm.apart import equal_lengths, stacked
from simulsa.lalm.families import FAMILIES, Family
from simulsa.lalm.instructions import instruction
from simulsa.lalm.interface import Direction, LALMError
from simulsa.lalm.load import ModelConfig, load
from simulsa.manifest import Utterance
from simulsa.training.train import TrainConfig, adapted, train_adapter
from tests.conftest import noise
from tests.families import BUILDERS, build

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

EN_DE = Direction("en", "de")
LONGEST_S = {  # of the tiny models
    "Qwen2-Audio": 4,
    "Qwen2.5-Omni": 4,
    "Audio Flamingo 3": 20,
    "GLM-ASR": 20,
    "Gemma 3n": 30,
    "Gemma 4": 30,
}


def sounds() -> list[np.ndarray]:
    """Noises of 1.5, 0.4, 1.5 and 0.0001 s, and one of 1.1 s."""
    lengths = (1.5, 0.4, 1.5, 1e-4, 1.1)
    return [3 * noise(seconds, seed=i) * np.float32(1 + i) for i, seconds in enumerate(lengths)]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def lalm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HuggingFaceLALM]:
    family: Family = request.param
    if missing := family.missing_packages:
        pytest.skip(f"{family.name} needs {' and '.join(missing)}")
    try:
        folder = build(family.name, tmp_path_factory.mktemp("family") / "model")
    except ImportError as error:  # a package for another build of PyTorch
        pytest.skip(f"{family.name}: one of {', '.join(family.packages)} cannot be imported ({str(error).splitlines()[0]})")
    loaded = load(str(folder), device="cpu")
    loaded.max_target_tokens = 10
    yield loaded


def reference_logits(lalm: HuggingFaceLALM, audio: np.ndarray, answer: list[int]) -> torch.Tensor:
    """The model's own logits `[answer + 1, vocabulary]` behind one prompt, straight from its processor."""
    content = [
        lalm.family.audio_content(audio),
        {"type": "text", "text": instruction(EN_DE, lalm.family.name)},
    ]
    batch = lalm.processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([answer], dtype=torch.long)], dim=1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch = {name: tensor for name, tensor in batch.items() if not name.endswith("token_type_ids")}
    with torch.no_grad():
        logits = lalm.model(**batch).logits[0, -len(answer) - 1 :].float()
    logits[:, lalm.audio_token_id] = -torch.inf
    return logits


def free(lalm: HuggingFaceLALM, audios: list[np.ndarray]) -> list[list[int]]:
    return lalm.continue_(audios, [[] for _ in audios], [EN_DE] * len(audios))


class TestEveryFamily:
    def test_scores_are_those_of_the_model_itself(self, lalm: HuggingFaceLALM) -> None:
        audio, target = sounds()[0], lalm.encode("Zwei Hunde")
        assert lalm.decode(target) == "Zwei Hunde"
        logits = reference_logits(lalm, audio, target)[:-1]
        scores = lalm.score([audio], [target], [EN_DE])[0]
        chosen = logits.gather(1, torch.tensor(target)[:, None])
        np.testing.assert_allclose(scores.log_probs, (chosen[:, 0] - logits.logsumexp(1)).numpy(), atol=2e-4)
        np.testing.assert_array_equal(scores.ranks, (logits > chosen).sum(1).numpy())

    def test_answers_are_greedy(self, lalm: HuggingFaceLALM) -> None:
        audio = sounds()[0]
        (answer,) = free(lalm, [audio])
        assert answer
        best = reference_logits(lalm, audio, answer).argmax(1).tolist()
        assert best[: len(answer)] == answer
        assert len(answer) == lalm.max_target_tokens or best[-1] in lalm.eos_ids

    def test_batched_equals_single_with_ragged_prefixes_and_drafts(self, lalm: HuggingFaceLALM) -> None:
        audios, answers = sounds(), free(lalm, sounds())
        prefixes = [answers[0][:4], [], lalm.encode("Ein"), answers[3][:7], answers[4][:1]]
        drafts = [answers[0][4:6], [*answers[1][:3], 7, 7, 7], [9], [], [8] * 6]
        together = lalm.continue_(audios, prefixes, [EN_DE] * 5, drafts)
        assert together == lalm.continue_(audios, prefixes, [EN_DE] * 5)
        for audio, prefix, tokens in zip(audios, prefixes, together, strict=True):
            assert tokens == lalm.continue_([audio], [prefix], [EN_DE])[0]
        for i in (0, 3, 4):
            assert together[i] == answers[i][len(prefixes[i]) :]
        targets = [*answers[:3], lalm.encode("Ja"), []]
        for audio, target, scores in zip(audios, targets, lalm.score(audios, targets, [EN_DE] * 5), strict=True):
            np.testing.assert_allclose(scores.log_probs, lalm.score([audio], [target], [EN_DE])[0].log_probs, atol=2e-4)

    def test_it_hears(self, lalm: HuggingFaceLALM) -> None:
        one, _, other, _, _ = sounds()
        target = lalm.encode("Zwei Hunde")
        a, b = lalm.score([one, other], [target] * 2, [EN_DE] * 2)
        assert np.abs(a.log_probs - b.log_probs).max() > 1e-3

    def test_a_clip_past_its_window_is_refused(self, lalm: HuggingFaceLALM) -> None:
        if lalm.family.name in LONGEST_S:
            assert lalm.max_samples == LONGEST_S[lalm.family.name] * SAMPLE_RATE
        else:  # the context: the tiny models have 4096 positions
            assert lalm.max_samples == int((4096 - 512) / lalm.family.tokens_per_s * SAMPLE_RATE)
        with pytest.raises(LALMError, match="the model hears at most"):
            lalm.continue_([np.zeros(lalm.max_samples + 1, dtype=np.float32)], [[]], [EN_DE])

    def test_the_longest_clip_is_heard_to_its_end(self, lalm: HuggingFaceLALM) -> None:
        audio = noise(min(lalm.max_samples / SAMPLE_RATE, 20), seed=1)
        changed = audio.copy()
        changed[-SAMPLE_RATE // 2 :] *= 30
        target = lalm.encode("Zwei")
        a, b = lalm.score([audio, changed], [target] * 2, [EN_DE] * 2)
        assert np.abs(a.log_probs - b.log_probs).max() > 1e-4

    def test_audio_tokens_per_second(self, lalm: HuggingFaceLALM) -> None:
        prompts, _ = lalm.prompts([noise(4), noise(2)], [EN_DE] * 2)
        long, short = (prompt.count(lalm.audio_token_id) for prompt in prompts)
        if lalm.family.name == "Voxtral":
            assert (long, short) == (375, 375)
        elif lalm.family.name == "Gemma 3n":
            assert (long, short) == (188, 188)
        else:
            assert (long - short) / 2 == pytest.approx(lalm.family.tokens_per_s, abs=1)

    def test_an_adapter_is_trained_loaded_and_merged(
        self, lalm: HuggingFaceLALM, make_rows: Callable[..., list[Utterance]], tmp_path: Path
    ) -> None:
        rows = make_rows(4, seconds=1.0)
        clip, target = rows[0].load(), lalm.encode("Ein Mann")
        before = lalm.score([clip], [target], [EN_DE])[0].log_probs
        config = TrainConfig(out=tmp_path / "run", batch_size=4, micro_batch_size=2, epochs=3, learning_rate=0.05)
        folder = train_adapter(lalm, rows, config)
        np.testing.assert_array_equal(lalm.score([clip], [target], [EN_DE])[0].log_probs, before)

        tuned, again = adapted(lalm, folder), load(str(folder), device="cpu")
        after = tuned.score([clip], [target], [EN_DE])[0].log_probs
        assert np.abs(after - before).max() > 1e-2
        assert again.family is lalm.family
        np.testing.assert_array_equal(again.score([clip], [target], [EN_DE])[0].log_probs, after)
        touched = {name for name, _ in again.model.named_parameters() if "lora_" in name}
        assert touched
        assert not any("audio" in name or "encoder" in name or "vision" in name for name in touched)

        again.model = again.model.merge_and_unload()  # into the very modules that the LALM uses
        assert not any("lora_" in name for name, _ in again.model.named_parameters())
        np.testing.assert_allclose(again.score([clip], [target], [EN_DE])[0].log_probs, after, atol=1e-3)
