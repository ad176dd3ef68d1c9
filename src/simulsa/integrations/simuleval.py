"""simulsa in SimulEval (https://github.com/facebookresearch/SimulEval, version 1.1): a speech-to-text agent.

    simuleval --agent-class simulsa.integrations.simuleval.SimulsaAgent --settings docs/simuleval.yaml \
        --source-segment-size 500 --source wavs.txt --target references.txt --output OUT

SimulEval's dependencies conflict with simulsa's; docs/interop.md has the commands for an environment with both.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from simuleval.agents import Action, ReadAction, SpeechToTextAgent, WriteAction
from simuleval.data.segments import TextSegment
from simuleval.evaluator.instance import INSTANCE_TYPE_DICT, SpeechToTextInstance

from simulsa.audio import SAMPLE_RATE
from simulsa.integrations.tools import AppendOnlyText, Setup
from simulsa.settings import SettingsError, read_yaml_mapping
from simulsa.streaming.config import MIN_CHUNK_MS
from simulsa.streaming.stream import Stream


class SimulsaAgent(SpeechToTextAgent):  # type: ignore[misc]  # SimulEval has no types
    """Writes what each segment of the source adds to the committed text; the segment size is SimulSA's k."""

    def __init__(self, args: argparse.Namespace) -> None:
        values: Mapping[str, Any] = {} if args.settings is None else read_yaml_mapping(args.settings)
        chunk_ms = args.source_segment_size
        if chunk_ms < MIN_CHUNK_MS:
            raise SettingsError(
                f"--source-segment-size is {chunk_ms} ms; it is the audio between two hypotheses and must be at least "
                f"{MIN_CHUNK_MS}, such as 500"
            )
        self._setup = Setup.of(values, chunk_ms, args.settings or "settings")
        self._lalm = self._setup.model.load()
        super().__init__(args)

    @staticmethod
    def add_args(parser: argparse.ArgumentParser) -> None:
        """Add the agent's only flag."""
        parser.add_argument("--settings", help="YAML file with simulsa's settings: model, rollback, target_lang, ...")

    def reset(self) -> None:
        """Get ready for the next source."""
        super().reset()
        self._stream: Stream | None = None
        self._heard = 0  # samples
        self._growth = AppendOnlyText()

    def policy(self) -> Action:
        """Process the audio received since the last call, and write the text that it made final."""
        stream = self._stream = self._stream or self._start()
        updates = [*stream.push(np.asarray(self.states.source[self._heard :], dtype=np.float32))]
        self._heard = len(self.states.source)
        finished = self.states.source_finished
        if finished:
            updates += stream.finish()
        text = self._growth.of(updates)
        return WriteAction(text, finished) if text or finished else ReadAction()

    def _start(self) -> Stream:
        rate, lang = self.states.source_sample_rate, self.states.tgt_lang
        if rate != SAMPLE_RATE:
            raise ValueError(f"SimulEval sends audio at {rate} Hz; {SAMPLE_RATE} is needed: resample the files first")
        # the file given with --tgt-lang has a language for each source
        stream = self._setup.stream
        return self._setup.start(self._lalm, dataclasses.replace(stream, target_lang=lang) if isinstance(lang, str) else stream)


class SpacedInstance(SpeechToTextInstance):  # type: ignore[misc]
    """Appends text that begins without a space to the last word, such as a comma that comes a chunk later.

    SimulEval's own class puts a space between all texts written at different times. A word's delay is that of its last part.
    """

    def receive_prediction(self, prediction: TextSegment) -> None:
        """Receive what the agent wrote."""
        before = len(self.prediction_list)
        continues = bool(before and prediction.content and not prediction.content[0].isspace()) and self.latency_unit == "word"
        super().receive_prediction(prediction)
        if continues:
            self.prediction_list[before - 1] += self.prediction_list.pop(before)
            self.delays[before - 1] = self.delays.pop(before)
            self.elapsed[before - 1] = self.elapsed.pop(before)


# the evaluator looks the class up here; it is created after the agent's module is imported
INSTANCE_TYPE_DICT["speech-text"] = SpacedInstance
