"""The recipe of the bundled model's base in miniature: a made encoder, a few captions, from text to a model that loads."""

from __future__ import annotations

import gzip
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes.base.architecture import (
    ENCODER,
    FRAMES_PER_WINDOW,
    Shape,
    audio_tokens,
    build_encoder,
    build_extractor,
    build_model,
    build_processor,
    encode,
    padded,
)
from recipes.base.batches import IGNORED, Dataset, Rows
from recipes.base.build import BuildConfig, build
from recipes.base.conditions import music, over_telephone, record, through_codec, without_speech
from recipes.base.features import NO_CAPTION, Features, ReadingJob, make_reading, mel_of, spoken
from recipes.base.scores import MP3_BITS_PER_S, ScoresConfig, score, through_mp3, translations
from recipes.base.synthesis import Synthesisers, UnspokenError, trimmed, warped
from recipes.base.testsets import spoken_split
from recipes.base.text import AUDIO, TRANSCRIBE, TRANSLATE, build_tokenizer
from recipes.base.training import Decoder, Stage, run_stage
from recipes.base.voices import ENGINES, HIBARI, KOKORO, UNHEARD_ESPEAK, UNHEARD_KOKORO, Speaker, training_speaker
from recipes.base.whisper import encoder_weights, read_ctranslate2
from simulsa.audio import SAMPLE_RATE
from simulsa.corpora.synthesis import synthesizer
from simulsa.lalm.instructions import instruction
from simulsa.languages import Direction
from simulsa.testing import FakeLALM
from tests.conftest import CAPTIONS, noise
from tests.made_whisper import LAYERS, WIDTH, encoder_arrays, write_ctranslate2

SHAPE = Shape(layers=2, width=32, inner=64, heads=2, key_value_heads=1)
SOURCES, TARGETS = (list(column) for column in zip(*CAPTIONS, strict=True))
READING = "espeak-0"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    write_ctranslate2(folder / "model.bin", encoder_arrays())
    save_file(encoder_weights(folder / "model.bin"), folder / ENCODER)
    return folder


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Path:
    folder = tmp_path_factory.mktemp("readings") / READING
    make_reading(READING, list(enumerate(SOURCES)), range(9), assets, folder, 1, CPU)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer([*SOURCES, *TARGETS])


@pytest.fixture
def decoder(tokenizer: Any, assets: Path) -> Decoder:
    torch.manual_seed(0)
    return Decoder(build_model(tokenizer, SHAPE, assets), tokenizer.convert_tokens_to_ids(AUDIO))


@pytest.fixture
def dataset(tokenizer: Any, reading: Path) -> Dataset:
    return Dataset(Rows(tokenizer, SOURCES, TARGETS), range(len(SOURCES)), 1, Features([reading]), WIDTH)


def test_the_instructions_are_those_that_the_library_gives() -> None:
    assert instruction(Direction("en", "de")) == TRANSLATE
    assert instruction(Direction("en", "en")) == TRANSCRIBE


@pytest.mark.parametrize("engine", ENGINES)
def test_training_never_draws_a_voice_of_the_test(engine: str) -> None:
    rng = np.random.default_rng(0)
    names = {training_speaker(rng, engine).voice for _ in range(1000)}
    assert not names & set(UNHEARD_KOKORO)
    for accent, variant in (voice.split("+") for voice in UNHEARD_ESPEAK):
        assert not any(name.startswith(accent) or name.endswith(f"+{variant}") for name in names)


def test_whisper_weights_carry_over(assets: Path) -> None:
    arrays = encoder_arrays()
    weights = encoder_weights(assets / "model.bin")
    joined = torch.from_numpy(arrays["encoder/layer_1/self_attention/linear_0/weight"])
    query, key, value = (weights[f"layers.1.self_attn.{part}_proj.weight"] for part in "qkv")
    assert torch.equal(torch.cat([query, key, value]), joined)
    assert "layers.1.self_attn.k_proj.bias" not in weights
    encoder = build_encoder(assets)  # loads strictly: no weight is missing, none is left over
    assert len(encoder.layers) == LAYERS
    assert encoder.embed_positions.weight.shape == (500, WIDTH)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_another_format_is_refused(tmp_path: Path) -> None:
    write_ctranslate2(tmp_path / "model.bin", encoder_arrays(), version=5)
    with pytest.raises(ValueError, match="version 5"):
        read_ctranslate2(tmp_path / "model.bin")


def test_encoding_without_padding_equals_the_window(assets: Path) -> None:
    encoder, extractor = build_encoder(assets), build_extractor()
    clips = [noise(seconds, seed) for seed, seconds in enumerate((1.003, 2.5, 10.0))]
    mels = [mel_of(extractor, clip) for clip in clips]
    outputs = encode(encoder, [mel for mel, _ in mels], [frames for _, frames in mels])
    for clip, output in zip(clips, outputs, strict=True):
        whole = extractor(clip, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True)
        frames = int(whole.attention_mask.sum())
        mask = (torch.arange(FRAMES_PER_WINDOW // 2) < (frames - 1) // 2 + 1)[None, None, None, :]
        expected = encoder(whole.input_features, attention_mask=mask).last_hidden_state[0, : audio_tokens(frames)]
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-3)


def test_rows_equal_the_prompts_of_the_processor(tokenizer: Any) -> None:
    content = [{"type": "audio", "audio": noise(2.0)}, {"type": "text", "text": TRANSLATE}]
    expected = build_processor(tokenizer).apply_chat_template(
        [[{"role": "user", "content": content}]], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    rows = Rows(tokenizer, SOURCES, TARGETS)
    tokens = audio_tokens(int(expected["feature_attention_mask"].sum()))
    ids, labels, positions, segments = rows.speech(0, tokens)
    first = segments <= 1  # the prompt and the translation
    answer = [*tokenizer(TARGETS[0]).input_ids, tokenizer.eos_token_id]
    assert ids[first].tolist() == [*expected["input_ids"][0].tolist(), *answer]
    assert labels[first][labels[first] != IGNORED].tolist() == answer
    assert positions[first].tolist() == list(range(int(first.sum())))
    transcript = [*tokenizer(SOURCES[0]).input_ids, tokenizer.eos_token_id]
    assert labels[segments == 2][-len(transcript) :].tolist() == transcript
    assert positions[segments == 2][0] == positions[segments == 0][-1] + 1


def test_mels_give_what_the_cached_outputs_give(decoder: Decoder, reading: Path, assets: Path, tokenizer: Any) -> None:
    mels = Features([reading], mels=True)
    unmasked, frames = [np.asarray(mels[i].T, np.float32) for i in range(2)], [len(mels[i]) for i in range(2)]
    outputs = [output.half().numpy() for output in encode(build_encoder(assets), unmasked, frames)]
    rows = Rows(tokenizer, SOURCES, TARGETS)
    said = [rows.speech(int(mels.numbers[i]), int(mels.tokens[i])) for i in range(2)]
    cached, _ = decoder.eval()(rows.batch(said, outputs, WIDTH))
    decoder.tune(build_encoder(assets))
    sounds = torch.from_numpy(padded(unmasked, frames))
    heard, _ = decoder(replace(rows.batch(said, [], WIDTH), mels=sounds, frames=torch.tensor(frames)))
    torch.testing.assert_close(heard, cached, atol=2e-3, rtol=1e-3)


def test_each_step_masks_mels_anew(tokenizer: Any, reading: Path) -> None:
    dataset = Dataset(Rows(tokenizer, SOURCES, TARGETS), range(len(SOURCES)), 0, Features([reading], mels=True), WIDTH)
    first, again, other = (dataset.load([0, 1], seed).mels for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_reading_without_mels_is_refused(reading: Path, tmp_path: Path) -> None:
    index = np.load(reading / "0000.npz")
    np.savez(tmp_path / "0000.npz", numbers=index["numbers"], tokens=index["tokens"])
    with pytest.raises(FileNotFoundError, match="made without mels: delete"):
        Features([tmp_path], mels=True)


def test_answers_of_one_clip_do_not_see_each_other(decoder: Decoder, dataset: Dataset) -> None:
    """Both answers at once get the logits that each gets alone, from the model as it is used."""
    rows, audio = dataset.rows, torch.randn(20, WIDTH).numpy()
    both, _ = decoder.eval()(rows.batch([rows.speech(1, 20), rows.speech(0, 20)], [audio, audio], WIDTH))
    alone = []
    for caption in (1, 0):
        for number, (asked, answer) in enumerate([(rows.translate, rows.targets), (rows.transcribe, rows.sources)]):
            batch = rows.batch([rows.assembled([rows.audio] * 20, [(asked, answer[caption])])], [audio], WIDTH)
            inputs = decoder.language_model.embed_tokens(batch.ids)
            inputs[batch.ids == rows.audio] = decoder.projector(batch.audio)
            hidden = decoder.language_model(inputs_embeds=inputs, attention_mask=(batch.segments >= 0).long()).last_hidden_state
            said = batch.labels[:, 1:] != IGNORED
            alone.append(hidden[:, :-1][said] @ decoder.language_model.embed_tokens.weight.T)
            assert number < 2
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_an_epoch_has_every_clip_and_every_text_once(dataset: Dataset) -> None:
    batches = list(dataset.batches(3, seed=1))
    assert sorted(item for batch in batches for item in batch) == list(range(len(dataset)))
    assert len(dataset) == len(SOURCES) + len(dataset.features or [])
    assert sum(len(dataset.load(items).audio) for items in batches) == sum((dataset.features or Features([])).tokens)


def test_clips_without_speech_have_empty_answers(tokenizer: Any) -> None:
    labels = Rows(tokenizer, SOURCES, TARGETS).speech(NO_CAPTION, 10)[1]
    assert labels[labels != IGNORED].tolist() == [tokenizer.eos_token_id] * 2


def test_a_reading_goes_on_where_it_stopped(reading: Path, assets: Path) -> None:
    path = reading / "0000.npz"
    before = path.stat().st_mtime_ns
    make_reading(READING, list(enumerate(SOURCES)), range(9), assets, reading, 1, CPU)
    assert path.stat().st_mtime_ns == before
    features = Features([reading])
    assert [number for number in features.numbers if number != NO_CAPTION] == list(range(len(SOURCES)))
    assert all(len(features[i]) == features.tokens[i] for i in range(len(features)))


def test_a_part_of_the_captions_has_its_clips_only(reading: Path) -> None:
    chosen = Features([reading], wanted={1, 3})
    assert set(chosen.numbers) - {NO_CAPTION} == {1, 3}
    every = Features([reading])
    for i, number in enumerate(chosen.numbers):
        if number != NO_CAPTION:
            assert np.array_equal(chosen[i], every[every.numbers.tolist().index(number)])


def test_shards_of_other_captions_are_not_made(assets: Path, tmp_path: Path) -> None:
    make_reading(READING, list(enumerate(SOURCES)), range(4, 9), assets, tmp_path / READING, 1, CPU)
    assert not list(tmp_path.iterdir())


def test_captions_that_are_left_out_are_named(
    assets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def speak(_self: Synthesisers, text: str, *_: Any) -> np.ndarray:
        if text == "nothing":
            raise UnspokenError("somebody said nothing")
        return noise(12.0 if text == "long" else 1.0)

    monkeypatch.setattr(Synthesisers, "speak", speak)
    captions = ((0, "short"), (1, "nothing"), (2, "long"), (3, "short"))
    clips = list(spoken(ReadingJob("mixed-0", captions, assets, assets / "0000.npz")))
    assert [number for number, *_ in clips if number != NO_CAPTION] == [0, 3]
    said = capsys.readouterr().out
    assert "caption 1 is left out: somebody said nothing" in said
    assert "caption 2 is left out: it lasts 12" in said


def test_no_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no finished shards"):
        Features([tmp_path])


def test_recording_conditions_keep_speech_recognisable() -> None:
    speech = synthesizer().speak("A man in an orange hat.")
    for seed in range(60):
        samples = record(speech, [speech[::-1]], np.random.default_rng(seed))
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() <= 1
        said, heard = (np.convolve(np.abs(part), np.ones(800), "valid")[::80] for part in (speech, samples))
        lags = range(len(heard) - len(said) + 1)
        assert max(np.corrcoef(said, heard[lag : lag + len(said)])[0, 1] for lag in lags) > 0.75


def test_sounds_are_finite_and_as_long_as_asked() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for sound in (without_speech(1.5, rng), music(24_000, rng), over_telephone(noise(1.5, seed))):
            assert len(sound) == 24_000
            assert np.isfinite(sound).all()


def test_coding_keeps_the_length_and_mp3_the_bit_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    speech = synthesizer().speak("A man in an orange hat.")
    for container, codec in (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")):
        assert len(through_codec(speech, container, codec, 0.5)) == len(speech)
    sizes: list[int] = []

    class File(__import__("io").BytesIO):  # type: ignore[name-defined, misc]
        def seek(self, *place: int) -> int:
            sizes.append(self.tell())
            return int(super().seek(*place))

    monkeypatch.setattr("recipes.base.scores.io.BytesIO", File)
    through_mp3(noise(10), [], np.random.default_rng(0))
    assert max(sizes) * 8 / 10 == pytest.approx(MP3_BITS_PER_S, rel=0.05)


def test_formants_move_with_the_vocal_tract() -> None:
    spectrum = np.zeros((601, 3), np.float32)
    spectrum[100] = 1
    assert warped(spectrum, 0.8)[:, 0].argmax() == 80
    assert warped(spectrum, 1.0).tolist() == spectrum.tolist()


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesisers, rng = Synthesisers(tmp_path), np.random.default_rng(0)
    with pytest.raises(FileNotFoundError, match=r"fetch\.sh"):
        synthesisers.speak("A dog.", Speaker(KOKORO, "af_heart"), rng)
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(RuntimeError, match=r"pip install -r recipes/base/requirements\.txt"):
        synthesisers.speak("A dog.", Speaker(HIBARI, "american"), rng)
    with pytest.raises(FileNotFoundError, match=r"fetch\.sh"):
        build_encoder(tmp_path)


def test_speech_is_trimmed_and_loud() -> None:
    quiet = np.concatenate([np.zeros(500), 0.01 * np.ones(100), np.zeros(300)]).astype(np.float32)
    assert trimmed(quiet, "somebody").tolist() == [1.0] * 100
    with pytest.raises(UnspokenError, match="somebody said nothing"):
        trimmed(np.zeros(100, np.float32), "somebody")


def test_hibari_becomes_other_speakers() -> None:
    pytest.importorskip("hibari")
    synthesisers, text = Synthesisers(Path()), "A man in an orange hat."

    def centre_hz(speaker: Speaker) -> float:
        spectrum = np.abs(np.fft.rfft(synthesisers.speak(text, speaker, np.random.default_rng(0)))) ** 2
        return float((spectrum * np.linspace(0, SAMPLE_RATE / 2, len(spectrum))).sum() / spectrum.sum())

    assert centre_hz(Speaker(HIBARI, "american", tract=0.8)) < centre_hz(Speaker(HIBARI, "american", tract=1.2))
    slow, fast = (synthesisers.speak(text, Speaker(HIBARI, "british", speed), np.random.default_rng(0)) for speed in (0.8, 1.3))
    assert len(slow) > 1.3 * len(fast)


def test_each_epoch_masks_other_stretches_of_a_clip(dataset: Dataset, decoder: Decoder) -> None:
    texts = dataset.text * len(dataset.captions)
    batch = dataset.load([*range(texts, len(dataset)), *range(texts)])  # clips and text
    batch = replace(batch, audio=torch.ones(len(batch.audio), 4))
    counts = (batch.ids == decoder.audio_token).sum(1).tolist()
    assert len(batch.audio) == sum(counts)
    torch.manual_seed(0)
    drawn = [batch.time_masked(decoder.audio_token).audio for _ in range(40)]
    masked = torch.stack([(audio == 0).all(1) for audio in drawn])
    assert all(torch.equal((audio == 0).all(1), (audio == 0).any(1)) for audio in drawn)
    for of_row in masked.split(counts, dim=1):
        longest = min(8, of_row.shape[1] // 6)
        assert (of_row.sum(1) <= 2 * longest).all()
        if longest:
            assert of_row.any(1).float().mean() > 0.5
            assert of_row.any(0).float().mean() > 0.9  # no place is safe
    assert len({audio.numpy().tobytes() for audio in drawn}) > 20


def test_the_learning_rate_rises_stays_and_falls() -> None:
    stage = Stage("speech", epochs=1, warmup_steps=10, decay=0.2, learning_rate=1.0, projector_rate=2.0)
    rates = [stage.rates_at(step, 100)[1] for step in range(101)]
    assert [2 * rate for rate in rates] == [stage.rates_at(step, 100)[0] for step in range(101)]
    assert rates[9] == rates[80] == max(rates) == 1.0
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0


def test_an_interrupted_stage_ends_as_an_uninterrupted_one(
    decoder: Decoder, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage("speech", epochs=3, batch_size=3, warmup_steps=2, text=1)
    # products in bfloat16 may round anew in every run
    monkeypatch.setattr("recipes.base.training.has_bfloat16", lambda device: False)
    start = {name: value.clone() for name, value in decoder.state_dict().items()}
    run_stage(decoder, stage, dataset, tmp_path / "whole", CPU)
    expected = {name: value.clone() for name, value in decoder.state_dict().items()}
    assert any(not torch.equal(expected[name], start[name]) for name in start)

    class KilledError(Exception):
        pass

    def load(self: Dataset, items: list[int], seed: int, steps: list[int] = []) -> Any:  # noqa: B006
        steps.append(len(steps))
        if len(steps) == 4:
            raise KilledError
        return original(self, items, seed)

    decoder.load_state_dict(start)
    original = Dataset.load
    monkeypatch.setattr("recipes.base.training.CHECKPOINT_EVERY_S", -1)
    monkeypatch.setattr("recipes.base.training.AHEAD", 0)
    monkeypatch.setattr(Dataset, "load", load)
    with pytest.raises(KilledError):
        run_stage(decoder, stage, dataset, tmp_path / "killed", CPU)
    monkeypatch.setattr(Dataset, "load", original)
    decoder.load_state_dict(start)
    run_stage(decoder, stage, dataset, tmp_path / "killed", CPU)
    for name, value in decoder.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=2e-4, rtol=1e-3)  # a step moves a weight by 1e-3
    with pytest.raises(ValueError, match="learning_rate"):
        run_stage(decoder, replace(stage, learning_rate=0.5), dataset, tmp_path / "killed", CPU)


def captions_folder(folder: Path, splits: tuple[str, ...]) -> Path:
    for split in splits:
        for lang, texts in (("en", SOURCES), ("de", TARGETS)):
            with gzip.open(folder / f"{split}.{lang}.gz", "wt", encoding="utf-8") as file:
                file.writelines(text + "\n" for text in texts)
    return folder


def test_from_text_to_a_model_that_loads(tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulsa.lalm.load import load

    data = captions_folder(tmp_path, ("train", "test_2016_flickr", "test_2017_flickr"))
    config = BuildConfig(
        data=data,
        assets=assets,
        work=tmp_path / "work",
        out=tmp_path / "model",
        readings=(READING,),
        shape=SHAPE,
        processes=1,
        device="cpu",
        text_epochs=1,
        speech_epochs=1,
    )
    build(config)
    lalm = load(str(config.out), device="cpu")
    assert lalm.continue_(lalm.hear([np.zeros(SAMPLE_RATE, np.float32)], [Direction("en", "de")]), [lalm.encode("Ein")])
    # a second run finds everything and gives the same weights
    weights = config.out / "model.safetensors"
    before = weights.read_bytes()
    build(config)
    assert weights.read_bytes() == before
    # the last checkpoint is small and enough: the speech is not wanted again
    (config.work / "readings").rename(tmp_path / "readings")
    build(config)
    assert weights.read_bytes() == before
    (tmp_path / "readings").rename(config.work / "readings")
    # further passes that train the encoder, and again from the last checkpoint alone
    tuning = replace(config, tuning_epochs=1, encoder_rate=1.0, out=tmp_path / "tuned")  # a step of the warm-up
    build(tuning)
    was, tuned = (load_file(folder / "model.safetensors") for folder in (config.out, tuning.out))
    parts = ("audio_tower.conv1", "audio_tower.layers.1", "audio_tower.layer_norm")
    assert all(any(part in name and not torch.equal(was[name], tuned[name]) for name in was) for part in parts)
    assert all(torch.equal(was[name], tuned[name]) for name in was if "embed_positions" in name)
    before_tuned = (tuning.out / "model.safetensors").read_bytes()
    build(tuning)
    assert (tuning.out / "model.safetensors").read_bytes() == before_tuned
    # half of the captions: another model out of the same reading
    half = replace(config, captions=(0, 2), out=tmp_path / "half")
    build(half)
    assert (half.out / "model.safetensors").read_bytes() != before
    assert {path.name for path in config.work.iterdir()} == {"readings", "checkpoints", "checkpoints-0-2"}

    # an earlier edition's decoder goes on without the stage of text
    further = replace(config, work=tmp_path / "further", out=tmp_path / "further-model", start=config.out)
    (tmp_path / "further").mkdir()
    (config.work / "readings").rename(further.work / "readings")
    build(further)
    assert [path.name for path in further.checkpoints.iterdir()] == ["speech.pt"]
    assert (further.out / "model.safetensors").read_bytes() != before
    assert "local" not in (further.out / "tokenizer_config.json").read_text(encoding="utf-8")

    monkeypatch.setattr("recipes.base.scores.silent_clips", lambda: [noise(0.5)])  # of a hundred clips of up to nine seconds
    first = ScoresConfig(
        *(str(config.out), data, assets, config.work, tmp_path), voices=("espeak",), splits=("test_2016_flickr",), limit=2
    )
    report = score(first)
    assert report.count("test_2016_flickr") == report.count(" | 2 | ") == 4
    assert "of 100 texts are empty" in report
    # another run on the same weights adds its lines, and measures none again that has as many utterances
    report = score(replace(first, splits=("test_2016_flickr", "test_2017_flickr"), limit=1))
    assert report.count(" | 2 | ") == 4
    assert report.count("| test_2017_flickr | espeak | as spoken | 1 |") == 1
    monkeypatch.setattr("recipes.base.scores.spoken_split", None)
    assert score(replace(first, limit=1)) == report
    rows = spoken_split(data, "test_2016_flickr", "espeak", 2, assets, config.work / "test")
    assert [row.extra["voice"] for row in rows] == [f"espeak:{voice}" for voice in UNHEARD_ESPEAK[:2]]


def test_a_clip_longer_than_the_window_counts_as_untranslated(capsys: pytest.CaptureFixture[str]) -> None:
    lalm = FakeLALM(lambda audio: f"{len(audio)} samples", max_samples=SAMPLE_RATE)
    assert translations(lalm, [noise(1), noise(1.5), noise(0.5)]) == ["16000 samples", "", "8000 samples"]
    assert "1 of 3 clips" in capsys.readouterr().out
