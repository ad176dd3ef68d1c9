"""Settings from mappings and YAML; languages."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from simulsa.lalm.instructions import instruction
from simulsa.languages import Direction, base_language, bleu_tokenizer, is_spaced, language_name, latency_unit
from simulsa.settings import SettingsError, from_mapping, read_yaml_mapping, to_mapping
from simulsa.streaming.config import StreamConfig
from simulsa.streaming.policies import Policy


@dataclass(frozen=True)
class Example:
    out: Path
    sizes: tuple[float, ...] = (1.0, 2.0)
    learning_rate: float = 1e-4
    limit: int | None = None
    tau: float | Literal["auto"] = "auto"
    mode: Literal["fast", "exact"] = "exact"
    any: Any = None


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(kind: type[Any], path: Path) -> Any:
    return from_mapping(kind, read_yaml_mapping(path), str(path))


def test_yaml_gives_the_same_settings_as_python(tmp_path: Path) -> None:
    path = write(tmp_path, "# German\ntarget-lang: fr\nchunk_ms: .inf\nrollback: 0\n")
    assert read(StreamConfig, path) == StreamConfig(target_lang="fr", chunk_ms=math.inf, rollback=0)
    assert read(StreamConfig, write(tmp_path, "")) == StreamConfig()


def test_lists_become_tuples() -> None:
    assert from_mapping(Example, {"out": Path("x"), "sizes": [3.0, 4.0]}, "here").sizes == (3.0, 4.0)


def test_yaml_values_take_the_type_of_the_setting(tmp_path: Path) -> None:
    path = write(
        tmp_path, "out: runs/a\nsizes: [500, 1e3, inf]\nlearning_rate: 1e-4\nlimit: null\ntau: auto\nmode: fast\nany: true\n"
    )
    expected = Example(Path("runs/a"), (500, 1000.0, math.inf), 1e-4, None, "auto", "fast", any=True)
    assert read(Example, path) == expected
    assert from_mapping(Example, {"out": "x", "limit": 3, "tau": "0.5"}, "here") == Example(Path("x"), limit=3, tau=0.5)
    assert from_mapping(Example, to_mapping(expected), "again") == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sizes": 3}, r"sizes is 3; it must be of type tuple\[float, \.\.\.\]"),
        ({"sizes": ["a"]}, "sizes is 'a'; it must be of type float"),
        ({"learning_rate": True}, "learning_rate is True; it must be of type float"),
        ({"limit": 2.5}, r"limit is 2\.5; it must be of type int or null"),
        ({"limit": True}, "limit is True"),
        ({"tau": "often"}, "tau is 'often'; it must be of type"),
        ({"mode": "slow"}, r"mode is 'slow'; it must be one of fast, exact"),
        ({"out": 5}, "out is 5; it must be of type Path"),
        ({"out": None}, "out is None; it must be of type Path"),
    ],
)
def test_a_value_of_another_type_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"here: {message}"):
        from_mapping(Example, {"out": "x", **values}, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chunk_sm: 500\n", r"settings\.yaml: unknown key 'chunk_sm'; did you mean 'chunk_ms'\?"),
        ("rolback: 5\n", r"unknown key 'rolback'; did you mean 'rollback'\? \(known: target_lang, "),
        ("1: 2\n", r"settings\.yaml: unknown key '1'; did you mean"),
        ("zzz: 2\n", r"settings\.yaml: unknown key 'zzz'; did you mean"),
        ("chunk_ms: 10\n", r"settings\.yaml: chunk_ms is 10; it must be at least 40 or inf"),
        ("chunk_ms: long\n", r"settings\.yaml: chunk_ms is 'long'; it must be of type float"),
        ("rollback: 2.5\n", r"settings\.yaml: rollback is 2\.5; it must be of type int"),
        ("drafts: maybe\n", r"settings\.yaml: drafts is 'maybe'; it must be of type bool"),
        ("target_lang: klingonish\n", r"settings\.yaml: unknown language 'klingonish'"),
        ("chunk_ms: 300\nchunk-ms: 400\n", r"settings\.yaml: chunk_ms and chunk-ms are the same setting; keep one of them"),
        ("chunk_ms: 300\nchunk_ms: 400\n", r"settings\.yaml: chunk_ms is there twice; keep one of them"),
        ("- 1\n- 2\n", r"settings\.yaml: a list where `key: value` lines are needed"),
        ("a: [1\n", r"settings\.yaml: not YAML"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(StreamConfig, write(tmp_path, text))


def test_a_missing_file_and_a_missing_value(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: no such settings file"):
        read_yaml_mapping(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"seed: 1  # gr\xfc\xdfe")
    with pytest.raises(SettingsError, match=r"latin\.yaml: not UTF-8 text .*save it as UTF-8"):
        read_yaml_mapping(tmp_path / "latin.yaml")
    with pytest.raises(SettingsError, match=r"here: .*'out'"):
        from_mapping(Example, {}, "here")


def test_a_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parses: list[Any] = []
    parse = yaml.composer.Composer.get_single_node
    monkeypatch.setattr(yaml.composer.Composer, "get_single_node", lambda loader: parses.append(loader) or parse(loader))
    assert read_yaml_mapping(write(tmp_path, "base: &base {a: 1}\n<<: *base\nb: 2\n")) == {"base": {"a": 1}, "a": 1, "b": 2}
    assert len(parses) == 1


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not YAML"):
        read_yaml_mapping(write(tmp_path, "chunk_ms: !!python/object/apply:os.getcwd []\n"))


def test_settings_become_plain_values_and_settings_again() -> None:
    settings = StreamConfig(chunk_ms=math.inf, rollback=5)
    values = to_mapping(settings)
    shown = {"target_lang": "", "source_lang": "", "chunk_ms": math.inf, "rollback": 5, "drafts": True}
    assert values == {**shown, "policy": None}
    assert from_mapping(StreamConfig, values, "again") == settings
    chosen = StreamConfig(policy=Policy.parse("wait-k:3,2"))
    assert to_mapping(chosen)["policy"] == "wait-k:3,2"
    assert from_mapping(StreamConfig, to_mapping(chosen), "again") == chosen
    with pytest.raises(SettingsError, match=r"^here: policy is 'wait:3'; there is no 'wait', did you mean 'wait-k'"):
        from_mapping(StreamConfig, {"policy": "wait:3"}, "here")
    assert list(to_mapping(Example(Path("runs/a"))).values()) == ["runs/a", [1.0, 2.0], 1e-4, None, "auto", "exact", None]


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        StreamConfig().rollback = 1  # type: ignore[misc]


@pytest.mark.parametrize("chunk_ms", [0, 39.9, -1, -math.inf, math.nan])
def test_chunk_sizes_out_of_range(chunk_ms: float) -> None:
    with pytest.raises(ValueError, match=r"chunk_ms is .* it must be at least 40 or inf"):
        StreamConfig(chunk_ms=chunk_ms)


@pytest.mark.parametrize("chunk_ms", [86_400_000.1, 1e308, 10**307])
def test_finite_chunk_sizes_have_an_upper_limit(chunk_ms: float) -> None:
    with pytest.raises(ValueError, match=r"chunk_ms is .* it must be at most 86400000 \(a day\), or inf"):
        StreamConfig(chunk_ms=chunk_ms)
    assert StreamConfig(chunk_ms=86_400_000).chunk_samples == 16_000 * 86_400


@pytest.mark.parametrize("rollback", [-1, 1001])
def test_rollbacks_out_of_range(rollback: int) -> None:
    with pytest.raises(ValueError, match=f"rollback is {rollback}; it must be a number of tokens from 0 to 1000"):
        StreamConfig(rollback=rollback)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    assert StreamConfig(chunk_ms=40, rollback=0).chunk_samples == 640
    assert StreamConfig(chunk_ms=math.inf, rollback=1000).chunk_samples is None


@pytest.mark.parametrize(
    ("code", "name"), [("de", "German"), ("zh", "Chinese"), ("pt_BR", "Portuguese"), ("DE", "German"), ("yue", "Cantonese")]
)
def test_language_names(code: str, name: str) -> None:
    assert language_name(code).split(" (")[0].removeprefix("Brazilian ") == name


@pytest.mark.parametrize("code", ["", "xx", "german", "-", "zz-DE"])
def test_unknown_languages(code: str) -> None:
    with pytest.raises(ValueError, match=f"unknown language '{code}'; use an ISO 639 code"):
        language_name(code)


def test_how_languages_are_counted_and_scored() -> None:
    assert [base_language(code) for code in ("zh-Hant-TW", "pt_BR", "EN")] == ["zh", "pt", "en"]
    assert [latency_unit(code) for code in ("de", "ko", "hi", "zh-CN", "ja", "th")] == ["word"] * 3 + ["char"] * 3
    assert [bleu_tokenizer(code) for code in ("de", "zh_CN", "ja", "ko", "th")] == ["13a", "zh", "ja-mecab", "ko-mecab", "char"]
    assert is_spaced("de-CH")
    assert not is_spaced("zh-Hans")


def test_the_instruction_names_both_languages_or_asks_for_a_transcript() -> None:
    assert instruction(Direction("en", "de")) == "Translate the English speech into German."
    assert instruction(Direction("en", "en")) == "Transcribe the English speech."
