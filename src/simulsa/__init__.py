"""Turn any audio-language model into a simultaneous speech translator with SimulSA (arXiv 2509.15692).

Names are imported on first use, so that `import simulsa` and `simulsa --help` stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simulsa._version import __version__ as __version__

_HOMES = {
    "load": "simulsa.lalm.load",
    "merge": "simulsa.lalm.merge",
    "preflight": "simulsa.lalm.preflight",
    "LALMError": "simulsa.lalm.interface",
    "Direction": "simulsa.languages",
    "Utterance": "simulsa.manifest",
    "read_manifest": "simulsa.manifest",
    "write_manifest": "simulsa.manifest",
    "load_audio": "simulsa.audio",
    "augment": "simulsa.augmentation.augment",
    "AugmentConfig": "simulsa.augmentation.config",
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
    "EvaluateConfig": "simulsa.evaluation.config",
    "score_log": "simulsa.evaluation.score",
    "ScoreConfig": "simulsa.evaluation.score",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from simulsa.audio import load_audio as load_audio
    from simulsa.augmentation.augment import augment as augment
    from simulsa.augmentation.config import AugmentConfig as AugmentConfig
    from simulsa.evaluation.config import EvaluateConfig as EvaluateConfig
    from simulsa.evaluation.evaluate import evaluate as evaluate
    from simulsa.evaluation.score import ScoreConfig as ScoreConfig
    from simulsa.evaluation.score import score_log as score_log
    from simulsa.lalm.interface import LALMError as LALMError
    from simulsa.lalm.load import load as load
    from simulsa.lalm.merge import merge as merge
    from simulsa.lalm.preflight import preflight as preflight
    from simulsa.languages import Direction as Direction
    from simulsa.manifest import Utterance as Utterance
    from simulsa.manifest import read_manifest as read_manifest
    from simulsa.manifest import write_manifest as write_manifest
    from simulsa.streaming.config import StreamConfig as StreamConfig
    from simulsa.streaming.policies import Policy as Policy
    from simulsa.streaming.segmentation import SegmentationConfig as SegmentationConfig
    from simulsa.streaming.state import StreamState as StreamState
    from simulsa.streaming.state import Update as Update
    from simulsa.streaming.step import step as step
    from simulsa.streaming.stream import Stream as Stream
    from simulsa.training.config import TrainConfig as TrainConfig
    from simulsa.training.train import train as train


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'simulsa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
