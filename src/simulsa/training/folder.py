"""The folder of a training: the adapter, the record of how it was made, log, loss curve and checkpoints."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from simulsa import strict_json
from simulsa.files import atomic_write, write_json
from simulsa.lalm.parts import ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECORD, read_adapter_config
from simulsa.lalm.signature import same_audio
from simulsa.training.config import DECISIVE_SETTINGS, TrainConfig
from simulsa.training.examples import TrainError

_AUDIO = "the audio's signature"
_STATE = "trainer_state.json"  # the file that Trainer writes last in a checkpoint

logger = logging.getLogger("simulsa")


class Checkpoint(NamedTuple):
    """A complete checkpoint: its folder, and the `state` that Trainer wrote there."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """The optimiser step after which it was written."""
        return int(self.state["global_step"])


@dataclass(frozen=True)
class Folder:
    """The output folder of a training run. A finished one holds a record; until then the record is with the checkpoints."""

    out: Path

    @property
    def checkpoints(self) -> Path:
        """Where Trainer keeps its checkpoints."""
        return self.out / "checkpoints"

    @property
    def log(self) -> Path:
        """The log of loss and learning rate, one JSON object per value."""
        return self.out / "log.jsonl"

    @property
    def curve(self) -> Path:
        """The figure of the loss curve."""
        return self.out / "loss.png"

    @property
    def _unfinished(self) -> Path:
        return self.checkpoints / RECORD

    def is_finished(self, record: dict[str, Any]) -> bool:
        """Whether this training run is complete. Raises `TrainError` when the folder holds something else."""
        if (self.out / ADAPTER_CONFIG).exists() and not (self.out / RECORD).exists():
            raise TrainError(f"{self.out}: holds an adapter of another trainer; choose another --out or use --overwrite")
        for path in (self.out / RECORD, self._unfinished):
            if path.exists():
                self._check_same(path, record)
        return (self.out / RECORD).exists() and (self.out / ADAPTER_CONFIG).exists()

    def begin(self, record: dict[str, Any], overwrite: bool) -> None:
        """Start or resume a training run.

        Raises `TrainError` if the folder is a model's, or if the usable rows are no longer the same.
        """
        if (self.out / "config.json").exists():
            raise TrainError(f"{self.out}: holds a model; choose another --out")
        if overwrite:
            self.clear()
        now = record["data"]["left_out"]
        if self._unfinished.exists() and (before := self._read(self._unfinished)["data"]["left_out"]) != now:
            raise TrainError(
                f"{self.out}: an unfinished training left out the rows {before}, now {now} cannot be used; restore the audio, or "
                "start over with --overwrite"
            )
        write_json(self._unfinished, record)

    def last_checkpoint(self) -> Checkpoint | None:
        """The latest complete checkpoint; an incomplete one is skipped."""
        for path in reversed(self._complete()):
            try:
                # transformers' own file may contain a gradient norm of NaN, which is no reason to skip the checkpoint
                return Checkpoint(path, json.loads((path / _STATE).read_text(encoding="utf-8")))
            except ValueError:
                continue
        return None

    def drop_old_checkpoints(self) -> None:
        """Remove all complete checkpoints but the last two, so that one is left if the last turns out to be damaged."""
        for path in self._complete()[:-2]:
            shutil.rmtree(path, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return [path for path in self._written() if (path / _STATE).exists()]

    def _written(self) -> list[Path]:
        """The checkpoints of the run in the order of their steps, also incomplete ones, but no copies that a user made."""
        numbers = {path: path.name.removeprefix("checkpoint-") for path in self.checkpoints.glob("checkpoint-*/")}
        return sorted((path for path, number in numbers.items() if number.isdecimal()), key=lambda path: int(numbers[path]))

    def finish(self, checkpoint: Checkpoint, record: dict[str, Any]) -> None:
        """Turn a checkpoint into the adapter. The file by which `load` recognises an adapter is written last, so a killed run
        leaves a whole adapter or none."""
        with atomic_write(self.out / ADAPTER_WEIGHTS, "wb") as target, open(checkpoint.path / ADAPTER_WEIGHTS, "rb") as source:
            shutil.copyfileobj(source, target)
        write_json(self.out / RECORD, record)
        adapter = read_adapter_config(checkpoint.path)
        # PEFT lists the target modules in no fixed order, and the adapter's signature covers this file
        reached = {name: sorted(adapter[name]) for name in ("target_modules", "target_parameters") if adapter.get(name)}
        write_json(self.out / ADAPTER_CONFIG, {**adapter, "base_model_name_or_path": record["base_model"], **reached})

    def clear(self) -> None:
        """Remove the files of a training run, and nothing else, such as copies of checkpoints."""
        for path in (self.out / ADAPTER_CONFIG, self.out / RECORD, self.out / ADAPTER_WEIGHTS, self.log, self.curve):
            path.unlink(missing_ok=True)
        for path in self._written():
            shutil.rmtree(path)
        self._unfinished.unlink(missing_ok=True)  # last: without it, nothing says whose checkpoints are left after a kill

    def _check_same(self, path: Path, record: dict[str, Any]) -> None:
        found = self._read(path)
        before, now = _identity(found), _identity(record)
        if "+" not in before["the base model"]:  # the record predates number formats in signatures
            now["the base model"] = now["the base model"].partition("+")[0]
        if same_audio(before[_AUDIO], now[_AUDIO]):
            now[_AUDIO] = before[_AUDIO]
        if retired := sorted(found["settings"].keys() - {field.name for field in dataclasses.fields(TrainConfig)}):
            logger.warning("%s: has settings that simulsa no longer has (%s); they are ignored", path, ", ".join(retired))
        different = [f"{name} was {before[name]} and is {now[name]}" for name in now if before[name] != now[name]]
        if different:
            raise TrainError(
                f"{self.out}: holds another training ({'; '.join(different)}); choose another --out, or replace it "
                "with --overwrite"
            )

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            record = strict_json.loads(path.read_text(encoding="utf-8"))
            _identity(record)
        except (ValueError, TypeError, KeyError) as error:
            raise TrainError(f"{path}: not the record of a training; choose another --out, or use --overwrite") from error
        return dict(record)


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    """The parts of a record that determine the weights."""
    return {
        "the base model": record["base_signature"],
        "the rows' hash": record["data"]["hash"],
        _AUDIO: record["data"].get("audio"),
        # a setting added after the record was written had its present default
        **{name: record["settings"].get(name, getattr(TrainConfig, name)) for name in DECISIVE_SETTINGS},
    }
