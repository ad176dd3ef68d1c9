"""The commands of recipes/covost2/README.md, run on folders in the layout and format of the real ones."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import yaml

from simulsa.audio import SAMPLE_RATE, resample
from simulsa.lalm.load import load
from simulsa.languages import Direction
from simulsa.manifest import read_manifest
from tests import qwen2_audio
from tests.conftest import noise
from tests.made_corpora import lines

ROOT = Path(__file__).parent.parent
PAIRS = [
    ("A man in a red shirt rides a bicycle.", "一个穿红衬衫的男人骑着自行车。"),
    ("Two dogs play in the snow.", "两只狗在雪地里玩耍。"),
    ("A woman sells fruit at a market.", "一位女士在市场上卖水果。"),
    ("Children climb over a wooden fence.", "孩子们爬过木栅栏。"),
    ('He says \\"no\\".', "他说“不”。"),
    ("It is late.", "REMOVE"),
]


def corpus(root: Path) -> None:
    """Common Voice's MP3 clips at 48 kHz and its table in `cv/en`, CoVoST 2's table in `covost2`."""
    english, chinese = ["client_id\tpath\tsentence\tup_votes\tdown_votes"], ["path\ttranslation\tsplit\tclient_id"]
    (root / "cv" / "en" / "clips").mkdir(parents=True)
    for number, (source, target) in enumerate(PAIRS * 2):
        name = f"common_voice_en_{17_000_000 + number}.mp3"
        soundfile.write(
            root / "cv" / "en" / "clips" / name, resample(noise(0.9 + number / 20, number), SAMPLE_RATE, 48_000), 48_000
        )
        english.append(f"speaker{number % 3}\t{name}\t{source}\t2\t0")
        chinese.append(f"{name}\t{target}\t{'test' if number % len(PAIRS) == 1 else 'train'}\tspeaker{number % 3}")
    lines(root / "cv" / "en" / "validated.tsv", *english)
    lines(root / "covost2" / "covost_v2.en_zh-CN.tsv", *chinese)


def readme_command() -> list[str]:
    """The recipe's command, as its page has it."""
    text = (ROOT / "recipes" / "covost2" / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ *(python -m recipes\.covost2\.run .*?)(?: +#.*)?$", text, re.MULTILINE)
    return shlex.split(line)[1:]


def fewer(folder: Path, name: str, **values: object) -> list[str]:
    """The flag for the recipe's settings of a step, with `values` for a small corpus."""
    settings = yaml.safe_load((ROOT / "recipes" / "covost2" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert settings.keys() >= values.keys()
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**settings, **values}), encoding="utf-8")
    return [f"--{name}", str(path)]


def test_the_recipes_command_runs_on_the_real_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step in one process with the recipe's own settings, but for the number of rows that are cut and of settings."""
    corpus(tmp_path)
    model = qwen2_audio.build(tmp_path / "Qwen2-Audio", [text for pair in PAIRS for text in pair])
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    command = [*readme_command(), "--model", str(model), *fewer(tmp_path, "augment", num=4)]
    command += fewer(tmp_path, "evaluate", **{"chunk-ms": [1000, "inf"], "rollback": [3]})
    command[command.index("--gpus") + 1] = "1"
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    work = tmp_path / ".covost2"
    rows = read_manifest(work / "train.jsonl")
    assert len(rows) == 8
    assert rows[0].target_text == PAIRS[0][1]
    assert "REMOVE" not in (work / "train.jsonl").read_text(encoding="utf-8")
    assert len((work / "train-all.jsonl.missing.txt").read_text().splitlines()) == 2
    assert len(read_manifest(work / "cut.jsonl")) == 4
    for name, kept in (("sft", 0), ("simulsa", 4)):
        record = json.loads((work / name / "simulsa.json").read_text())
        assert record["data"]["augmented_rows"] == kept
    table = (work / "table-1" / "table.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in table for name in ("base", "sft", "simulsa"))
    scores = json.loads((work / "scores" / "simulsa" / "scores.json").read_text())
    assert [score["skipped"] for score in scores] == [0, 0]
    assert "tok:zh" in scores[0]["bleu_signature"]


def test_the_published_files_load_as_they_should(tmp_path: Path) -> None:
    """Both end tokens of the generation config end an answer, the chat's is trained; its sampling is not used."""
    folder = qwen2_audio.build(tmp_path / "Qwen2-Audio", [text for pair in PAIRS for text in pair])
    lalm = load(str(folder), device="cpu")
    ids = lalm.tokenizer.convert_tokens_to_ids
    assert lalm.eos_ids == [ids("<|im_end|>"), ids("<|endoftext|>")]
    assert lalm.max_samples == 30 * SAMPLE_RATE
    assert lalm.decode(lalm.encode(PAIRS[1][1])) == PAIRS[1][1]
    assert len(lalm.encode("一 <|0.50|>")) < len(lalm.encode("一 <|0.51|>")), "a mark of time is one token"
    lalm.max_target_tokens = 12
    direction = [Direction("en", "zh-CN")]
    first, second = (lalm.continue_(lalm.hear([noise(2)], direction), [[]])[0].tokens for _ in range(2))
    assert first == second
    prompt = lalm.processor.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=False)
    assert "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>" in prompt, "the published template, from chat_template.json"
