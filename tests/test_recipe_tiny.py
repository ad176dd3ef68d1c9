"""The embedded model's recipe in miniature: from text to a checkpoint that loads, and its parts."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.base.text import TRANSCRIBE, TRANSLATE, build_tokenizer
from recipes.tiny.architecture import build_model, build_processor
from recipes.tiny.batches import IGNORED, Prompts, SpeechBatch, audio_tokens, order, speech_batch
from recipes.tiny.build import BuildConfig, build
from recipes.tiny.conditions import record
from recipes.tiny.pretrain import Encoder, Pretraining, Stage, learning_rate_at
from recipes.tiny.speech import Rendition, frame_labels, make_rendition, phoneme_inventory, phoneme_name
from recipes.tiny.voices import UNSEEN_VOICES, training_voice
from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.synthesis import Mark, SyntheticSpeech, synthesizer
from simulsa.lalm.instructions import instruction
from simulsa.lalm.interface import Direction
from tests.conftest import CAPTIONS
from tests.lalms import continue_


@pytest.fixture(scope="module")
def rendition(tmp_path_factory: pytest.TempPathFactory) -> Rendition:
    folder = tmp_path_factory.mktemp("rendition")
    sources = [english for english, _ in CAPTIONS]
    return make_rendition(sources, 0, folder / "train-0", phoneme_inventory(sources, folder))


def test_the_instructions_are_those_that_the_library_gives() -> None:
    assert instruction(Direction("en", "de")) == TRANSLATE
    assert instruction(Direction("en", "en")) == TRANSCRIBE


def test_the_unseen_voices_are_not_among_the_training_voices() -> None:
    rng = np.random.default_rng(0)
    unseen = [name.split("+") for name in UNSEEN_VOICES]
    for voice in (training_voice(rng) for _ in range(1000)):
        assert not any(voice.name.startswith(accent) or voice.name.endswith(f"+{variant}") for accent, variant in unseen)


def test_recording_conditions_keep_speech_recognisable() -> None:
    speech = synthesizer().speak("A man in an orange hat.").samples
    for seed in range(60):
        samples, before = record(speech, np.random.default_rng(seed))
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        heard = samples[before : before + len(speech)]
        envelope = [np.abs(x)[: len(x) // 800 * 800].reshape(-1, 800).mean(1) for x in (speech, heard)]
        assert np.corrcoef(*envelope)[0, 1] > 0.8


def test_speech_of_an_unmarked_synthesiser_has_no_labels() -> None:
    assert set(frame_labels(SyntheticSpeech(np.zeros(16_000, np.float32), (), ()), 0, 50, {"_": 0})) == {IGNORED}


def test_dropout_is_for_training_only() -> None:
    tokenizer = build_tokenizer([text for pair in CAPTIONS for text in pair])
    model = build_model(tokenizer, encoder_layers=2, decoder_layers=1).eval()
    sources, targets = zip(*CAPTIONS, strict=True)
    training = Pretraining(model, tokenizer, 3, list(sources), list(targets), "cpu")
    rendition = SpeechBatch(torch.randn(2, 80, 100), torch.tensor([100, 90]), torch.zeros(2, 50, dtype=torch.long), [0, 1])
    stage = Stage("harden", epochs=1, learning_rate=1e-3, dropout=0.5)
    losses = [float(training.loss(rendition, stage, np.random.default_rng(0))[0]) for _ in range(2)]
    with torch.no_grad():
        plain = [float(training.loss(rendition, stage, np.random.default_rng(0))[0]) for _ in range(2)]
    assert losses[0] != losses[1]
    assert plain[0] == plain[1]


@pytest.mark.parametrize(("mnemonic", "name"), [("'eI", "eI"), (",I", "I"), ("_:", "_"), ("t#", "t#"), ("", "_")])
def test_phoneme_names_have_no_stress(mnemonic: str, name: str) -> None:
    assert phoneme_name(mnemonic) == name


def test_frame_labels_follow_the_phonemes() -> None:
    second = SAMPLE_RATE
    marks = (Mark("a", 0, second // 2), Mark("'b", second // 2, second))
    speech = SyntheticSpeech(np.zeros(second, np.float32), (), marks)
    labels = frame_labels(speech, before=second // 2, frames=100, names={"_": 0, "a": 1, "b": 2})
    assert labels.tolist() == [0] * 12 + [1] * 13 + [2] * 12 + [0] * 13  # 40 ms each: silence, a, b, silence


def test_prompts_equal_those_of_the_processor() -> None:
    tokenizer = build_tokenizer([text for pair in CAPTIONS for text in pair])
    audio = np.zeros(2 * SAMPLE_RATE, np.float32)
    content = [{"type": "audio", "audio": audio}, {"type": "text", "text": TRANSLATE}]
    expected = build_processor(tokenizer).apply_chat_template(
        [[{"role": "user", "content": content}]], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    target = tokenizer("Ein Mann").input_ids
    counts = audio_tokens(expected["feature_attention_mask"].sum(-1))
    ids, labels = Prompts(tokenizer).sequences(counts, [tokenizer(TRANSLATE).input_ids], [target])
    assert ids[0].tolist() == [*expected["input_ids"][0].tolist(), *target, tokenizer.eos_token_id]
    assert labels[0][labels[0] != IGNORED].tolist() == [*target, tokenizer.eos_token_id]


def test_trimmed_encoding_equals_the_full_window(rendition: Rendition) -> None:
    tokenizer = build_tokenizer([text for pair in CAPTIONS for text in pair])
    model = build_model(tokenizer, encoder_layers=2, decoder_layers=1).eval()
    batch = speech_batch(rendition, [0, 1, 2])
    with torch.no_grad():
        top, _ = Encoder(model, phonemes=3)(batch.mel, batch.frames)
        for row, (mel, frames) in enumerate(zip(batch.mel, batch.frames.tolist(), strict=True)):
            window = torch.full((1, 80, 500), float(mel[:, frames:].min()))
            window[0, :, :frames] = mel[:, :frames]
            positions = (frames - 1) // 2 + 1
            mask = (torch.arange(250) < positions)[None, None, None, :]
            full = model.model.audio_tower(window, attention_mask=mask).last_hidden_state[0]
            count = int(audio_tokens(torch.tensor(frames)))
            torch.testing.assert_close(top[row, :count], full[:count], atol=2e-4, rtol=1e-3)


def test_batches_hold_every_clip_once(rendition: Rendition) -> None:
    batches = order(rendition, batch_size=3, seed=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(rendition)))


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [learning_rate_at(step, 100, warmup_share=0.1) for step in range(101)]
    assert rates[9] == max(rates) == 1.0
    assert rates[100] == pytest.approx(0)


def test_from_text_to_a_model_that_loads(tmp_path: Path) -> None:
    from simulsa.lalm.load import load

    for split in ("train", "val"):
        for lang, column in (("en", 0), ("de", 1)):
            with gzip.open(tmp_path / f"{split}.{lang}.gz", "wt", encoding="utf-8") as file:
                file.writelines(pair[column] + "\n" for pair in CAPTIONS)
    config = BuildConfig(data=tmp_path, work=tmp_path / "work", out=tmp_path / "model", device="cpu")
    stages = [Stage(name, epochs=1, learning_rate=1e-3, batch_size=2) for name in ("hear", "say", "join")]
    build(config, stages)
    lalm = load(str(tmp_path / "model"), device="cpu")
    weights = tmp_path / "model" / "model.safetensors"
    assert weights.stat().st_size < 25e6
    assert continue_(lalm, [np.zeros(SAMPLE_RATE, np.float32)], [lalm.encode("Ein")], [Direction("en", "de")])
    # a second run finds every stage finished and gives the same weights
    before = weights.read_bytes()
    build(config, stages)
    assert weights.read_bytes() == before
    # a saved edition goes on with the last stage alone, on its readings
    stages.append(Stage("polish", epochs=1, learning_rate=1e-3, batch_size=2, renditions=(2,)))
    work = tmp_path / "polish"
    build(replace(config, base=tmp_path / "model", work=work, out=tmp_path / "polished"), stages)
    assert sorted(path.name for path in work.iterdir()) == ["phonemes.json", "polish.pt", "train-2", "val-1000"]
    assert (tmp_path / "polished" / "model.safetensors").read_bytes() != before
    assert load(str(tmp_path / "polished"), device="cpu").vocabulary_size == lalm.vocabulary_size
