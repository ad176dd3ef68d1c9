"""Make any audio-language model translate while the speaker talks, by SimulSA (arXiv 2509.15692).

Names are imported on first use, so that `import simulsa` and `simulsa --help` stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": "simulsa.lalm.load",
    "merge": "simulsa.lalm.whole",
    "preflight": "simulsa.lalm.preflight",
    "LALMError": "simulsa.lalm.interface",
    "Direction": "simulsa.lalm.interface",
    "Utterance": "simulsa.manifest",
    "read_manifest": "simulsa.manifest",
    "write_manifest": "simulsa.manifest",
    "load_audio": "simulsa.audio",
    "augment": "simulsa.augmentation.augment",
    "AugmentConfig": "simulsa.augmentation.augment",
    "correct": "simulsa.augmentation.correct",
    "CorrectConfig": "simulsa.augmentation.correct",
    "train": "simulsa.training.train",
    "TrainConfig": "simulsa.training.config",
    "Stream": "simulsa.streaming.stream",
    "StreamConfig": "simulsa.streaming.state",
    "Update": "simulsa.streaming.state",
    "LongStream": "simulsa.streaming.longform",
    "LongState": "simulsa.streaming.longform",
    "LongUpdate": "simulsa.streaming.longform",
    "LongformConfig": "simulsa.streaming.segmentation",
    "step": "simulsa.streaming.step",
    "evaluate": "simulsa.evaluation.evaluate",
    "EvaluateConfig": "simulsa.evaluation.evaluate",
    "score_log": "simulsa.evaluation.score",
    "ScoreConfig": "simulsa.evaluation.score",
}
__all__ = [
    "AugmentConfig",
    "CorrectConfig",
    "Direction",
    "EvaluateConfig",
    "LALMError",
    "LongState",
    "LongStream",
    "LongUpdate",
    "LongformConfig",
    "ScoreConfig",
    "Stream",
    "StreamConfig",
    "TrainConfig",
    "Update",
    "Utterance",
    "__version__",
    "augment",
    "correct",
    "evaluate",
    "load",
    "load_audio",
    "merge",
    "preflight",
    "read_manifest",
    "score_log",
    "step",
    "train",
    "write_manifest",
]

if TYPE_CHECKING:
    from simulsa.audio import load_audio
    from simulsa.augmentation.augment import AugmentConfig, augment
    from simulsa.augmentation.correct import CorrectConfig, correct
    from simulsa.evaluation.evaluate import EvaluateConfig, evaluate
    from simulsa.evaluation.score import ScoreConfig, score_log
    from simulsa.lalm.interface import Direction, LALMError
    from simulsa.lalm.load import load
    from simulsa.lalm.preflight import preflight
    from simulsa.lalm.whole import merge
    from simulsa.manifest import Utterance, read_manifest, write_manifest
    from simulsa.streaming.longform import LongState, LongStream, LongUpdate
    from simulsa.streaming.segmentation import LongformConfig
    from simulsa.streaming.state import StreamConfig, Update
    from simulsa.streaming.step import step
    from simulsa.streaming.stream import Stream
    from simulsa.training.config import TrainConfig
    from simulsa.training.train import train


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'simulsa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
