"""Turn any audio-language model into a simultaneous speech translator with SimulSA (arXiv 2509.15692).

Names are imported on first use, so that `import simulsa` and `simulsa --help` stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simulsa._version import __version__

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
    "train": "simulsa.training.train",
    "TrainConfig": "simulsa.training.config",
    "Stream": "simulsa.streaming.stream",
    "StreamConfig": "simulsa.streaming.config",
    "Update": "simulsa.streaming.state",
    "SegmentationConfig": "simulsa.streaming.segmentation",
    "StreamState": "simulsa.streaming.state",
    "Policy": "simulsa.streaming.policies",
    "step": "simulsa.streaming.step",
    "evaluate": "simulsa.evaluation.evaluate",
    "EvaluateConfig": "simulsa.evaluation.evaluate",
    "score_log": "simulsa.evaluation.score",
    "ScoreConfig": "simulsa.evaluation.score",
}
__all__ = [
    "AugmentConfig",
    "Direction",
    "EvaluateConfig",
    "LALMError",
    "Policy",
    "ScoreConfig",
    "SegmentationConfig",
    "Stream",
    "StreamConfig",
    "StreamState",
    "TrainConfig",
    "Update",
    "Utterance",
    "__version__",
    "augment",
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
    from simulsa.evaluation.evaluate import EvaluateConfig, evaluate
    from simulsa.evaluation.score import ScoreConfig, score_log
    from simulsa.lalm.interface import Direction, LALMError
    from simulsa.lalm.load import load
    from simulsa.lalm.preflight import preflight
    from simulsa.lalm.whole import merge
    from simulsa.manifest import Utterance, read_manifest, write_manifest
    from simulsa.streaming.config import StreamConfig
    from simulsa.streaming.policies import Policy
    from simulsa.streaming.segmentation import SegmentationConfig
    from simulsa.streaming.state import StreamState, Update
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
