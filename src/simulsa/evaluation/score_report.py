"""The scores of a log as a readable table."""

from __future__ import annotations

from simulsa.evaluation.report import markdown
from simulsa.evaluation.scores import Score

MS, RATIO, SHARE, POINTS, COUNT = "{:.0f} ms", "{:.3f}", "{:.1%}", "{:.2f}", "{:d}"
LATENCY = {
    "al_ms": ("AL", MS),
    "laal_ms": ("LAAL", MS),
    "ap": ("AP", RATIO),
    "dal_ms": ("DAL", MS),
    "yaal_ms": ("YAAL", MS),
    "long_yaal_ms": ("LongYAAL", MS),
    "stream_laal_ms": ("StreamLAAL (by SoftSegmenter)", MS),
    "long_al_ms": ("LongAL", MS),
    "long_ap": ("LongAP", RATIO),
    "long_dal_ms": ("LongDAL", MS),
}
ROWS = {
    "bleu": ("BLEU", POINTS),
    "chrf": ("chrF", POINTS),
    "comet": ("COMET", "{:.4f}"),
    **LATENCY,
    **{f"ca_{key}": (f"computation-aware {name}", form) for key, (name, form) in LATENCY.items()},
    "simultaneous_share": ("final before the speech ended", SHARE),
    "expected_simultaneous_share": ("the same, expected of this latency", SHARE),
    "degenerate_policy": ("degenerate policy (OmniSTEval)", "{!s}"),
    "empty": ("empty translations", COUNT),
    "repeated_4grams": ("repeated 4-grams", SHARE),
    "repeated_4grams_references": ("repeated 4-grams in the references", SHARE),
    "length_ratio": ("length against the references", RATIO),
    "too_short": ("under half the reference's length", COUNT),
    "too_long": ("over twice the reference's length", COUNT),
    "same_output": ("same output as another recording", COUNT),
    "copies": ("copies of the source", COUNT),
    "normalised_erasure": ("normalised erasure", RATIO),
    "units_at_once": ("units at once, mean", POINTS),
    "most_units_at_once": ("units at once, most", COUNT),
    "gap_ms": ("mean gap between outputs", MS),
    "longest_gap_ms": ("longest gap between outputs", MS),
    "first_output_ms": ("mean time to first output", MS),
}


def score_table(scores: Score) -> str:
    """All available scores as a Markdown table; what cannot be computed is a dash."""
    lines = [["metric", "value"]]
    for key, (name, form) in ROWS.items():
        if key in scores:
            lines.append([name, "–" if scores[key] is None else form.format(scores[key])])
    return markdown(lines)


def score_remarks(scores: Score) -> list[str]:
    """What a reader must know about the table: what was counted, how, and oddities in the log."""
    parts = f"{scores['segments']} segments of " if "segments" in scores else ""
    remarks = [
        f"{scores['log']}: {parts}{scores['recordings']} recordings, a log of {scores['tool']}; latency counts {scores['unit']}s"
    ]
    if scores["elapsed"]:
        remarks.append(f"computation-aware means: {scores['elapsed']}")
    remarks += [f"BLEU {scores['bleu_signature']}; latency by OmniSTEval {scores['omnisteval']}"]
    return [*remarks, *scores["notes"]]
