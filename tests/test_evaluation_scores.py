"""Scores: by hand, and as OmniSTEval's own command line gives them."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest

from simulsa.evaluation.instances import EvaluationError, Instance, write_instances
from simulsa.evaluation.scores import score_instances


def instance(prediction: str, reference: str, delays: tuple[float, ...], source_ms: float = 4000, **other) -> Instance:
    values = {"id": "a", "index": 0, "source": "a.wav", "elapsed_ms": None, "steps": 8, **other}
    return Instance(prediction=prediction, reference=reference, delays_ms=delays, source_length_ms=source_ms, **values)


def test_latency_of_a_hand_made_example() -> None:
    # four words in the reference, one a second if they were spread evenly over the 4 s; five in the prediction
    scores = score_instances([instance("a b c d e", "a b c d", (1000, 2000, 4000, 4000, 4000))], "de")
    # AL: word i against i s, up to the first word at the end of the speech: (1 - 0) + (2 - 1) + (4 - 2) over 3
    assert scores["al_ms"] == pytest.approx(4000 / 3)
    # LAAL: five words make 0.8 s each: (1 - 0) + (2 - 0.8) + (4 - 1.6) over 3
    assert scores["laal_ms"] == pytest.approx(4600 / 3)
    # AP: the sum of the delays over 4 s times 4 words
    assert scores["ap"] == pytest.approx(15 / 16)
    # DAL: each word at least 0.8 s after the one before: 1, 2, 4, 4.8, 5.6 against 0, 0.8, 1.6, 2.4, 3.2
    assert scores["dal_ms"] == pytest.approx((1000 + 1200 + 2400 + 2400 + 2400) / 5)
    # YAAL: only the two words before the end: (1 - 0) + (2 - 0.8) over 2
    assert scores["yaal_ms"] == pytest.approx(1100)
    assert scores["simultaneous_share"] == pytest.approx(2 / 5)
    assert "ca_al_ms" not in scores


def test_computation_aware_latency_reads_elapsed() -> None:
    scores = score_instances(
        [instance("a b c d", "a b c d", (1000, 2000, 4000, 4000), elapsed_ms=(1500, 2500, 4500, 4500))], "de"
    )
    assert scores["al_ms"] == pytest.approx((1000 + 1000 + 2000) / 3)
    assert scores["ca_al_ms"] == pytest.approx((1500 + 1500 + 2500) / 3)
    assert scores["ca_yaal_ms"] == pytest.approx(1500)


def test_one_untimed_instance_leaves_no_computation_aware_score() -> None:
    timed = instance("a", "a", (1000,), elapsed_ms=(1200,))
    assert "ca_al_ms" in score_instances([timed], "de")
    assert "ca_al_ms" not in score_instances([timed, instance("a", "a", (1000,))], "de")


def test_what_cannot_be_computed_is_none_never_nan() -> None:
    offline = score_instances([instance("a b", "a b", (4000, 4000))], "de")
    assert offline["yaal_ms"] is None
    assert offline["laal_ms"] == 4000
    assert offline["simultaneous_share"] == 0
    silent = score_instances([instance("", "a b", ())], "de")
    assert silent["empty"] == 1
    assert all(silent[name] is None for name in ("al_ms", "laal_ms", "ap", "dal_ms", "yaal_ms", "simultaneous_share"))
    assert silent["bleu"] == 0


def test_quality_has_its_signatures() -> None:
    scores = score_instances([instance("das ist ein Haus .", "das ist ein Haus .", (4000,) * 5)], "de")
    assert scores["bleu"] == pytest.approx(100)
    assert scores["chrf"] == pytest.approx(100)
    assert "tok:13a" in scores["bleu_signature"]
    assert "nrefs:1" in scores["chrf_signature"]


def test_chinese_is_counted_in_characters() -> None:
    scores = score_instances([instance("你好世界", "你好世界", (1000, 2000, 3000, 4000))], "zh-CN")
    assert scores["bleu"] == pytest.approx(100)
    assert "tok:zh" in scores["bleu_signature"]
    assert scores["al_ms"] == pytest.approx(1000)
    with pytest.raises(EvaluationError, match="1 delays for '你好世界'; one for each char"):
        score_instances([instance("你好世界", "你好世界", (1000,))], "zh")


def test_a_missing_tokenizer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.tokenizers import tokenizer_ja_mecab

    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    with pytest.raises(EvaluationError, match=re.escape("pip install 'simulsa[ja]'")):
        score_instances([instance("はい", "はい", (1000, 2000))], "ja")


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="nothing to score"):
        score_instances([], "de")


@pytest.mark.parametrize(("lang", "level", "tokenizer"), [("de", "--word_level", "13a"), ("zh", "--char_level", "zh")])
def test_omnisteval_reads_the_log_and_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lang: str, level: str, tokenizer: str
) -> None:
    from omnisteval.cli import main

    texts = [
        ("Ein Mann fährt Rad", "Ein Mann fährt mit dem Rad"),
        ("", "Zwei Hunde"),
        ("Eine Frau singt laut", "Eine Frau singt"),
    ]
    instances = []
    for index, (prediction, reference) in enumerate(texts):
        units = list(prediction) if lang == "zh" else prediction.split()
        delays = tuple(min(500.0 * (i + index + 1), 2200.0) for i in range(len(units)))
        elapsed = tuple(delay + 130 for delay in delays)
        instances.append(instance(prediction, reference, delays, 2200, index=index, elapsed_ms=elapsed))
    scores = score_instances(instances, lang)
    write_instances(tmp_path / "log", instances)
    (tmp_path / "references").write_text("".join(f"{reference}\n" for _, reference in texts))
    arguments = ["shortform", "--hypothesis_file", str(tmp_path / "log"), "--ref_sentences_file", str(tmp_path / "references")]
    monkeypatch.setattr(sys, "argv", ["omnisteval", *arguments, level, "--bleu_tokenizer", tokenizer])
    main()
    printed = capsys.readouterr().out
    for name, key in {
        "BLEU": "bleu", "chrF": "chrf", "YAAL (CU)": "yaal_ms", "AL (CU)": "al_ms", "LAAL (CU)": "laal_ms", "AP (CU)": "ap",
        "DAL (CU)": "dal_ms", "YAAL (CA)": "ca_yaal_ms", "AL (CA)": "ca_al_ms", "LAAL (CA)": "ca_laal_ms",
    }.items():  # fmt: skip
        found = re.search(rf"^  {re.escape(name)}\s+(\S+)$", printed, re.MULTILINE)
        assert found, name
        assert math.isclose(float(found[1]), scores[key], abs_tol=1e-4), name
    share = re.search(r"Simultaneous Words Fraction \(%\)\s+(\S+)", printed)
    assert share
    assert float(share[1]) == pytest.approx(100 * scores["simultaneous_share"], abs=1e-4)
