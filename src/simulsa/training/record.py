"""The record stored with an adapter: its base, its training data, and its settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulsa import strict_json
from simulsa._version import __version__
from simulsa.lalm.parts import EMBEDDED_MODELS, local_folder
from simulsa.lalm.signature import audio_signature, text_signature
from simulsa.manifest import Utterance
from simulsa.settings import to_mapping
from simulsa.training.config import TrainConfig

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM


def make_record(lalm: HuggingFaceLALM, rows: Sequence[Utterance], config: TrainConfig) -> dict[str, Any]:
    """The record of training on `rows`, before it is known which rows are left out and how training ends."""
    base = base_name(lalm)
    augmented = sum(row.is_augmented for row in rows)
    return {
        "base_model": base,
        "base_signature": f"{base}@{lalm.signature.rpartition('@')[2]}",
        **({"instruction": lalm.instruction} if lalm.instruction else {}),
        "directions": [list(direction) for direction in _directions(rows)],
        "data": {
            "offline_rows": len(rows) - augmented,
            "augmented_rows": augmented,
            "hash": rows_hash(rows),
            "audio": audio_signature(rows),
            "left_out": [],
        },
        "settings": to_mapping(config),
        "versions": {"simulsa": __version__, **{name: version(name) for name in ("transformers", "peft", "torch")}},
        "final_loss": None,
    }


def _directions(rows: Sequence[Utterance]) -> list[tuple[str, str]]:
    """The source and target languages of the rows, the most frequent first."""
    counted = Counter((row.source_lang, row.target_lang) for row in rows)
    return sorted(counted, key=lambda languages: (-counted[languages], languages))


def base_name(lalm: HuggingFaceLALM) -> str:
    """A name that loads the base from any directory: a bundled model's name, a hub id, or an absolute path."""
    folder = local_folder(lalm.name)
    return lalm.name if folder is None or folder.parent == EMBEDDED_MODELS else str(folder.resolve())


def rows_hash(rows: Sequence[Utterance]) -> str:
    """The signature of everything that training reads from the rows, and of their order, but not of audio paths and content."""
    return text_signature(
        strict_json.dumps(
            [
                *(row.id, row.parent_id, Path(row.audio).name, row.start_s, row.duration_s),
                *(row.source_lang, row.target_lang, row.target_text, row.target_tokens),
                None,  # earlier versions had a latency word here; this keeps their training runs recognisable
            ],
            escape=True,
        )
        for row in rows
    )
