"""Every family of audio-language models, on a tiny model of its real classes: the same promises for all."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simulsa.audio import SAMPLE_RATE
from simulsa.cli import main
from simulsa.lalm import families
from simulsa.lalm.batching import equally_shaped, padded
from simulsa.lalm.families import FAMILIES
from simulsa.lalm.instructions import instruction
from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import ModelConfig, load
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.languages import Direction
from simulsa.manifest import Utterance
from simulsa.training.train import TrainConfig, adapted, train_adapter
from tests.conftest import noise
from tests.families import BUILDERS, build
from tests.lalms import attend, continue_, score

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


def family_folder(family: str, folder: Path) -> Path:
    """A tiny model where the packages are there; skips where they are not."""
    (row,) = (known for known in FAMILIES if known.name == family)
    if row.missing_packages:
        pytest.skip(f"{family} needs {' and '.join(row.missing_packages)}")
    try:
        return build(family, folder)
    except ImportError as error:  # a package for another build of PyTorch
        pytest.skip(f"{family}: one of {', '.join(row.packages)} cannot be imported ({str(error).splitlines()[0]})")


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def lalm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceLALM:
    folder = family_folder(request.param.name, tmp_path_factory.mktemp("family") / "model")
    loaded = load(str(folder), device="cpu")
    loaded.max_target_tokens = 10
    return loaded


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
    batch = {name: tensor.to(lalm.device) for name, tensor in batch.items() if not name.endswith("token_type_ids")}
    with torch.no_grad():
        logits = lalm.model(**batch).logits[0, -len(answer) - 1 :].float().cpu()
    if lalm.family.name == "Granite Speech":  # which its language model does, and the class around it forgets
        logits /= lalm.model.config.text_config.logits_scaling
    logits[:, lalm.audio_token_id] = -torch.inf
    return logits


def free(lalm: HuggingFaceLALM, audios: list[np.ndarray]) -> list[list[int]]:
    return continue_(lalm, audios, [[] for _ in audios], [EN_DE] * len(audios))


class TestEveryFamily:
    def test_scores_are_those_of_the_model_itself(self, lalm: HuggingFaceLALM) -> None:
        audio, target = sounds()[0], lalm.encode("Zwei Hunde")
        assert lalm.decode(target) == "Zwei Hunde"
        logits = reference_logits(lalm, audio, target)[:-1]
        scores = score(lalm, [audio], [target], [EN_DE])[0]
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
        together = continue_(lalm, audios, prefixes, [EN_DE] * 5, drafts)
        assert together == continue_(lalm, audios, prefixes, [EN_DE] * 5)
        for audio, prefix, tokens in zip(audios, prefixes, together, strict=True):
            assert tokens == continue_(lalm, [audio], [prefix], [EN_DE])[0]
        for i in (0, 3, 4):
            assert together[i] == answers[i][len(prefixes[i]) :]
        targets = [*answers[:3], lalm.encode("Ja"), []]
        for audio, target, scores in zip(audios, targets, score(lalm, audios, targets, [EN_DE] * 5), strict=True):
            np.testing.assert_allclose(scores.log_probs, score(lalm, [audio], [target], [EN_DE])[0].log_probs, atol=2e-4)

    def test_attention_covers_the_clip_and_changes_nothing(self, lalm: HuggingFaceLALM) -> None:
        audios, answers = sounds(), free(lalm, sounds())
        before = score(lalm, audios, answers, [EN_DE] * 5)
        together = attend(lalm, audios, answers, [EN_DE] * 5)
        for audio, answer, attention in zip(audios, answers, together, strict=True):
            frames = len(audio) / SAMPLE_RATE * lalm.family.tokens_per_s
            assert attention.dtype == np.float32
            assert attention.shape == (len(answer), pytest.approx(frames, abs=8))  # of a single sample Qwen3-ASR makes 7
            assert (attention >= 0).all()
            assert (attention.sum(1) <= 1 + 1e-5).all()
            assert attention.sum() > 0 or len(audio) < 100  # some encoders make nothing of a clip that short
            np.testing.assert_allclose(attend(lalm, [audio], [answer], [EN_DE])[0], attention, atol=2e-5)
        assert free(lalm, sounds()) == answers
        for one, other in zip(before, score(lalm, audios, answers, [EN_DE] * 5), strict=True):
            np.testing.assert_array_equal(one.log_probs, other.log_probs)

    def test_an_answer_ends_with_the_turn(self, lalm: HuggingFaceLALM) -> None:
        expected = {"Phi-4-multimodal": "<|end|>", "Gemma 3n": "<end_of_turn>", "Gemma 4": "<turn|>", "Voxtral": "</s>"}
        assert lalm.eos_id == lalm.eos_ids[0]
        assert lalm.tokenizer.convert_ids_to_tokens(lalm.eos_id) == expected.get(lalm.family.name, "<|im_end|>")
        assert lalm.tokenizer.eos_token_id in lalm.eos_ids

    def test_it_hears(self, lalm: HuggingFaceLALM) -> None:
        one, _, other, _, _ = sounds()
        target = lalm.encode("Zwei Hunde")
        a, b = score(lalm, [one, other], [target] * 2, [EN_DE] * 2)
        assert np.abs(a.log_probs - b.log_probs).max() > 1e-3

    def test_a_clip_past_its_window_is_refused(self, lalm: HuggingFaceLALM) -> None:
        if lalm.family.name in LONGEST_S:
            assert lalm.max_samples == LONGEST_S[lalm.family.name] * SAMPLE_RATE
        else:  # the context: the tiny models have 4096 positions
            assert lalm.max_samples == int((4096 - 512) / lalm.family.tokens_per_s * SAMPLE_RATE)
        with pytest.raises(LALMError, match="the model hears at most"):
            continue_(lalm, [np.zeros(lalm.max_samples + 1, dtype=np.float32)], [[]], [EN_DE])

    def test_the_longest_clip_is_heard_to_its_end(self, lalm: HuggingFaceLALM) -> None:
        audio = noise(min(lalm.max_samples / SAMPLE_RATE, 20), seed=1)
        changed = audio.copy()
        changed[-SAMPLE_RATE // 2 :] *= 30
        target = lalm.encode("Zwei")
        a, b = score(lalm, [audio, changed], [target] * 2, [EN_DE] * 2)
        assert np.abs(a.log_probs - b.log_probs).max() > 1e-4

    def test_audio_tokens_per_second(self, lalm: HuggingFaceLALM) -> None:
        prompts = [lalm.frontend.prepare(noise(seconds), EN_DE).prompt for seconds in (4, 2)]
        long, short = (prompt.count(lalm.audio_token_id) for prompt in prompts)
        if lalm.family.name == "Voxtral":
            assert (long, short) == (375, 375)
        elif lalm.family.name == "Gemma 3n":
            assert (long, short) == (188, 188)
        else:
            assert (long - short) / 2 == pytest.approx(lalm.family.tokens_per_s, abs=1)

    def test_half_precision_and_gradient_checkpointing(
        self, lalm: HuggingFaceLALM, make_rows: Callable[..., list[Utterance]], tmp_path: Path
    ) -> None:
        half = load(lalm.name, device="cpu", dtype="bfloat16")
        target = half.encode("Ja")
        together = score(half, [noise(1.0)] * 2, [target] * 2, [EN_DE] * 2)[1].log_probs
        np.testing.assert_allclose(together, score(lalm, [noise(1.0)], [target], [EN_DE])[0].log_probs, atol=1.0)
        half.max_target_tokens = 3
        assert [len(tokens) for tokens in free(half, sounds()[:2])] == [3, 3]
        config = TrainConfig(
            out=tmp_path / "run", batch_size=1, micro_batch_size=1, epochs=1, gradient_checkpointing="on", preflight=False
        )
        assert load(str(train_adapter(half, make_rows(1, seconds=0.5), config)), device="cpu").has_adapter

    def test_an_adapter_is_trained_loaded_and_merged(
        self, lalm: HuggingFaceLALM, make_rows: Callable[..., list[Utterance]], tmp_path: Path
    ) -> None:
        rows = make_rows(2, seconds=1.0)  # of different lengths
        clip, target = rows[0].load(), lalm.encode("Ein Mann")
        before = score(lalm, [clip], [target], [EN_DE])[0].log_probs
        config = TrainConfig(out=tmp_path / "run", batch_size=2, micro_batch_size=2, epochs=2, learning_rate=0.05)
        folder = train_adapter(lalm, rows, config)
        np.testing.assert_array_equal(score(lalm, [clip], [target], [EN_DE])[0].log_probs, before)

        tuned, again = adapted(lalm, folder), load(str(folder), device="cpu")
        after = score(tuned, [clip], [target], [EN_DE])[0].log_probs
        assert np.abs(after - before).max() > 1e-2
        assert again.family is lalm.family
        # merged into the weights, which rounds elsewhere
        np.testing.assert_allclose(score(again, [clip], [target], [EN_DE])[0].log_probs, after, atol=1e-3)
        touched = {name for name, _ in tuned.model.named_parameters() if "lora_" in name}
        assert touched
        assert not any("audio" in name or "encoder" in name or "vision" in name for name in touched)
        assert any("experts" in name for name in touched) is (lalm.family.name == "Qwen3-Omni")

        if hasattr(again.model, "merge_and_unload"):  # as with experts, which PEFT merges
            again.model = again.model.merge_and_unload()  # into the very modules that the LALM uses
        assert not any("lora_" in name for name, _ in again.model.named_parameters())
        np.testing.assert_allclose(score(again, [clip], [target], [EN_DE])[0].log_probs, after, atol=1e-3)


class TestBatching:
    def test_groups_have_one_shape_and_padding_stands_behind(self) -> None:
        shapes = [(3, 5), (3, 2), (3, 5), (3, 4)]
        clips = [{"mel": torch.randn(1, *shape), "size": torch.tensor([shape[1]])} for shape in shapes]
        assert equally_shaped(clips) == [[0, 2], [1], [3]]
        batch = padded(clips)
        assert batch["mel"].shape == (4, 3, 5)
        assert batch["size"].tolist() == [5, 2, 5, 4]
        for row, clip in zip(batch["mel"], clips, strict=True):
            frames = clip["mel"].shape[2]
            torch.testing.assert_close(row[:, :frames], clip["mel"][0])
            assert not row[:, frames:].any()


@pytest.fixture
def flamingo(tmp_path: Path) -> Path:
    return build("Audio Flamingo 3", tmp_path / "model")


class TestCheckpointsAsTheyArePublished:
    """What the hub's folders have that the tiny models of `build` have not."""

    @pytest.mark.parametrize(
        ("family", "config_class"), [("Qwen2.5-Omni", "Qwen2_5OmniConfig"), ("Qwen3-Omni", "Qwen3OmniMoeConfig")]
    )
    def test_the_thinker_of_a_model_that_also_talks(self, family: str, config_class: str, tmp_path: Path) -> None:
        import transformers
        from safetensors.torch import load_file, save_file

        folder = family_folder(family, tmp_path / "model")
        thinker = load(str(folder), device="cpu")
        target = thinker.encode("Ja")
        before = score(thinker, [noise(1.0)], [target], [EN_DE])[0].log_probs
        weights = load_file(folder / "model.safetensors")
        save_file({f"thinker.{name}": weight for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"})
        config_class = {"Qwen2.5-Omni": "Qwen2_5OmniConfig", "Qwen3-Omni": "Qwen3OmniMoeConfig"}[family]
        config = getattr(transformers, config_class)(thinker_config=thinker.model.config.to_dict())
        config.architectures = [config_class.replace("Config", "ForConditionalGeneration")]
        config.save_pretrained(folder)
        whole = load(str(folder), device="cpu")
        assert whole.family is thinker.family
        assert whole.signature != thinker.signature
        np.testing.assert_array_equal(score(whole, [noise(1.0)], [target], [EN_DE])[0].log_probs, before)

    @pytest.mark.parametrize(("family", "place"), [("Granite Speech", "."), ("Phi-4-multimodal", "speech-lora")])
    def test_an_adapter_that_comes_with_the_model(
        self, family: str, place: str, make_rows: Callable[..., list[Utterance]], tmp_path: Path
    ) -> None:
        from peft import LoraConfig, get_peft_model
        from safetensors.torch import load_file

        folder = family_folder(family, tmp_path / "model")
        bare = load(str(folder), device="cpu")
        names = [name for name, _ in bare.model.named_modules() if name.endswith(("down_proj", "o_proj")) and ".layers." in name]
        names = [name for name in names if "language_model" in name or name.startswith("model.layers")]
        model = get_peft_model(copy.deepcopy(bare.model), LoraConfig(r=2, target_modules=names, init_lora_weights=False))
        model.save_pretrained(folder / place)
        audio, target = noise(1.0), bare.encode("Ja")
        expected = score(bare.carrying(model, "", ""), [audio], [target], [EN_DE])[0].log_probs
        assert np.abs(score(bare, [audio], [target], [EN_DE])[0].log_probs - expected).max() > 1e-3

        lalm = load(str(folder), device="cpu")
        np.testing.assert_allclose(score(lalm, [audio], [target], [EN_DE])[0].log_probs, expected, atol=1e-4)
        config = TrainConfig(out=tmp_path / "run", batch_size=2, micro_batch_size=2, epochs=1, preflight=False)
        run = train_adapter(lalm, make_rows(2, seconds=0.5), config)
        load(str(run), device="cpu")  # where every weight must find its place
        touched = list(load_file(run / "adapter_model.safetensors"))
        assert len(touched) == len([name for name, part in bare.model.named_modules() if isinstance(part, torch.nn.Linear)
                                    and (".language_model.layers." in name or name.startswith("model.layers."))]) * 2  # fmt: skip


class TestFamiliesNotInTheTable:
    @pytest.fixture(autouse=True)
    def strangers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for model_type in ("audioflamingo3", "qwen3_asr"):
            monkeypatch.delitem(families._BY_MODEL_TYPE, model_type)

    def test_one_that_passes_the_checks_is_used(self, flamingo: Path) -> None:
        lalm = load(str(flamingo), device="cpu")
        assert lalm.family is families.UNKNOWN
        assert lalm.max_samples == SAMPLE_RATE  # a single window: it is not known that there may be more

    def test_the_error_says_which_check_failed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = build("Qwen3-ASR", tmp_path / "model")
        hear = HuggingFaceLALM.hear
        monkeypatch.setattr(HuggingFaceLALM, "hear", lambda lalm, audios, *rest: hear(lalm, [a * 0 for a in audios], *rest))
        with pytest.raises(LALMError, match=r"'qwen3_asr' is not known and fails a check: the model does not hear"):
            load(str(folder), device="cpu")

    def test_another_step_behind_the_head(self, flamingo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers import AudioFlamingo3ForConditionalGeneration as Flamingo

        forward = Flamingo.forward

        def scaled(self: Any, *args: Any, **kwargs: Any) -> Any:
            output = forward(self, *args, **kwargs)
            output.logits = output.logits / 2
            return output

        monkeypatch.setattr(Flamingo, "forward", scaled)
        with pytest.raises(LALMError, match="the model's own logits differ from head times hidden states"):
            load(str(flamingo), device="cpu")

    def test_a_class_of_another_shape(self, flamingo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from transformers import AudioFlamingo3ForConditionalGeneration as Flamingo

        monkeypatch.setattr(Flamingo, "get_output_embeddings", lambda self: None)
        with pytest.raises(LALMError, match=r"fails a check: .* has no backbone, output head or audio token"):
            load(str(flamingo), device="cpu")

        def none(self: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr(Flamingo, "get_output_embeddings", none)
        with pytest.raises(LALMError, match="fails a check: NotImplementedError; simulsa models lists"):
            load(str(flamingo), device="cpu")


class TestErrors:
    def test_a_missing_package(self, flamingo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        family = dataclasses.replace(families._BY_MODEL_TYPE["audioflamingo3"], packages=("no-such-package", "numpy"))
        monkeypatch.setitem(families._BY_MODEL_TYPE, "audioflamingo3", family)
        with pytest.raises(LALMError, match=r"Audio Flamingo 3 needs no-such-package; pip install 'simulsa\[families\]'$"):
            load(str(flamingo), device="cpu")

    def test_a_package_that_cannot_be_imported(self, flamingo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: Any, **kwargs: Any) -> None:
            raise ImportError("libcudart.so: cannot open\nmore lines")

        monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", broken)
        with pytest.raises(
            LALMError, match=r"missing or broken \(libcudart.so: cannot open\); pip install 'simulsa\[families\]'$"
        ):
            load(str(flamingo), device="cpu")

    def test_a_gated_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("simulsa.lalm.hub.options_for", lambda *_: {})  # as if the hub answered
        from huggingface_hub.errors import GatedRepoError

        def gated(*args: Any, **kwargs: Any) -> None:
            raise OSError("You are trying to access a gated repo.\nMake sure") from GatedRepoError.__new__(GatedRepoError)

        monkeypatch.setattr("transformers.AutoConfig.from_pretrained", gated)
        with pytest.raises(LALMError, match=r"gemma-3n-E4B-it: is gated; accept its terms on https://.* and log in") as caught:
            load("google/gemma-3n-E4B-it", device="cpu")
        assert "\n" not in str(caught.value)

    def test_a_revision_is_part_of_the_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("simulsa.lalm.hub.options_for", lambda *_: {})  # as if the hub answered
        asked: list[Any] = []

        def refuse(*args: Any, **kwargs: Any) -> None:
            asked.append((args, kwargs))
            raise OSError("no network")

        monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
        with pytest.raises(LALMError, match="no network"):
            load("microsoft/Phi-4-multimodal-instruct@refs/pr/70", device="cpu")
        assert asked == [(("microsoft/Phi-4-multimodal-instruct",), {"revision": "refs/pr/70"})]


class TestInstructions:
    def test_families_that_were_trained_on_another_sentence(self) -> None:
        assert instruction(EN_DE, "Granite Speech") == "translate the speech to German"
        assert instruction(EN_DE, "Voxtral") == instruction(EN_DE) == "Translate the English speech into German."
        assert instruction(Direction("de", "de"), "Phi-4-multimodal") == "Transcribe the audio clip into text."

    def test_the_users_own(self) -> None:
        assert instruction(EN_DE, "Granite Speech", "{target}, from {source}!") == "German, from English!"
        assert instruction(EN_DE, "", "Say it in {target}.") == "Say it in German."
        assert instruction(Direction("en", "en"), "", "Say it in {target}.") == "Transcribe the English speech."

    @pytest.mark.parametrize("template", ["in {language}", "in {target", "in {}", "in {0}"])
    def test_one_that_cannot_be_filled(self, template: str) -> None:
        with pytest.raises(ValueError, match=r"a sentence with \{source\} and \{target\}"):
            ModelConfig(instruction=template)
        with pytest.raises(ValueError, match=r"a sentence with \{source\} and \{target\}"):
            load(instruction=template)

    def test_it_is_heard_recorded_and_kept_by_adapters(
        self, flamingo: Path, make_rows: Callable[..., list[Utterance]], tmp_path: Path
    ) -> None:
        plain, asked = load(str(flamingo), device="cpu"), load(str(flamingo), device="cpu", instruction="Say it in {target}.")
        assert plain.signature != asked.signature
        audio, target = noise(1.0), plain.encode("Ja")
        scores = [score(lalm, [audio], [target], [EN_DE])[0].log_probs for lalm in (plain, asked)]
        assert np.abs(scores[0] - scores[1]).max() > 1e-3

        config = TrainConfig(out=tmp_path / "run", batch_size=2, micro_batch_size=2, epochs=1, preflight=False)
        folder = train_adapter(asked, make_rows(2, seconds=0.5), config)
        again = load(str(folder), device="cpu")
        assert again.instruction == adapted(asked, folder).instruction == "Say it in {target}."
        other = load(str(folder), device="cpu", instruction="{target}!")
        assert other.instruction == "{target}!"
        assert other.signature != again.signature

    def test_a_language_that_the_card_does_not_list(self, random_lalm: HuggingFaceLALM, caplog: pytest.LogCaptureFixture) -> None:
        family = dataclasses.replace(random_lalm.family, languages=frozenset({"en", "de"}))
        frontend = dataclasses.replace(random_lalm.frontend, family=family)
        with caplog.at_level(logging.WARNING, "simulsa"):
            for source in ("en", "sw", "sw", "de-CH"):
                frontend.prepare(noise(0.5), Direction(source, "de"))
        assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
            "Qwen2-Audio does not list Swahili speech (English, German)"
        ]


def test_the_command_lists_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["family", "example", "tokens/s", "longest", "clip", "CUDA", "graphs", "needs", "status", "here"]
    for family, line in zip(FAMILIES, lines[1:], strict=False):
        assert line.startswith(family.name)
        assert family.example in line
        assert f"  {'yes' if family.graphs else 'no'}  " in line
        assert line.endswith("ready" if not family.missing_packages else family.missing_packages[-1])


def test_every_family_has_a_tiny_model() -> None:
    assert list(BUILDERS) == [family.name for family in FAMILIES]
