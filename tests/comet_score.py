"""A stand-in for unbabel-comet 2.2's `comet-score`: its options, the files that it reads and the JSON that it writes.

A segment's score is the share of the reference's words that its translation has, and a word more for the model's name, so that
models differ. Every call leaves a line with its options beside this file's copy, in `calls.jsonl`. Model names ask for faults.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

FAULTS = {
    "unknown": "KeyError: \"Model 'unknown' not supported by COMET.\"",
    "big": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "old": "ModuleNotFoundError: No module named 'pkg_resources'",
}


def lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return [line.strip() for line in file.readlines()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", "--sources", required=True)
    parser.add_argument("-t", "--translations", nargs="+", required=True)
    parser.add_argument("-r", "--references")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--only_system", action="store_true")
    parser.add_argument("--to_json", default="")
    parser.add_argument("--model", default="Unbabel/wmt22-comet-da")
    given = parser.parse_args()
    sources, references = lines(given.sources), lines(given.references)
    (path,) = given.translations
    translations = lines(path)
    with open(Path(__file__).parent / "calls.jsonl", "a", encoding="utf-8") as file:
        call = {"model": given.model, "gpus": given.gpus, "mt": translations, "src": sources}
        file.write(json.dumps({**call, "path": os.environ.get("PYTHONPATH")}) + "\n")
    if given.model in FAULTS:
        print("Traceback (most recent call last):\n  File ...\n" + FAULTS[given.model], file=sys.stderr)
        sys.exit(1)
    entries = [
        {"src": source, "mt": translation, "ref": reference, "COMET": score(translation, reference, given.model)}
        for source, translation, reference in zip(sources, translations, references, strict=True)
    ]
    if given.model == "short":
        entries.pop()
    print(f"{path}\tscore: {sum(entry['COMET'] for entry in entries) / len(entries):.4f}")
    if given.model != "silent":
        Path(given.to_json).write_text(json.dumps({path: entries}, ensure_ascii=False, indent=4), encoding="utf-8")


def score(translation: str, reference: str, model: str) -> float:
    if model == "nan":
        return float("nan")
    words = reference.split()
    return sum(word in translation.split() for word in words) / (len(words) + len(model))


if __name__ == "__main__":
    main()
