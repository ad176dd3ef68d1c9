"""`train`: fine-tune a LoRA adapter on offline and simultaneous rows, mixed in one stage."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from simulsa.extras import require
from simulsa.files import sole_writer
from simulsa.lalm.interface import LALMError
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.lalm.parts import read_record, trained_directions
from simulsa.lalm.precision import warn_of_slow_bfloat16
from simulsa.lalm.preflight import preflight
from simulsa.lalm.signature import folder_signature
from simulsa.manifest import Utterance, check_ids
from simulsa.training import processes
from simulsa.training.config import TrainConfig
from simulsa.training.curve import plot_log
from simulsa.training.examples import Example, TrainError, make_examples, summary
from simulsa.training.folder import Checkpoint, Folder
from simulsa.training.lora import add_lora, target_parameters, with_adapter
from simulsa.training.memory import advice, checkpoints
from simulsa.training.record import make_record
from simulsa.training.trainer import fit

__all__ = ["TrainConfig", "TrainError", "train", "train_adapter"]

logger = logging.getLogger("simulsa")


def train(lalm: HuggingFaceLALM, rows: Sequence[Utterance], config: TrainConfig | None = None) -> HuggingFaceLALM:
    """Fine-tune `lalm` on `rows` by LoRA and return the tuned model; see `train_adapter` for the folder and the errors.

    `lalm` itself does not change. The tuned model shares its weights, so both fit into the memory of one.
    """
    return adapted(lalm, train_adapter(lalm, rows, config or TrainConfig()))


def adapted(lalm: HuggingFaceLALM, folder: Path) -> HuggingFaceLALM:
    """`lalm` with the adapter that `train_adapter` left in `folder`; it shares the weights of `lalm`, which is unchanged."""
    model = with_adapter(lalm.model, folder)
    return lalm.carrying(model, str(folder), f"{folder}@{folder_signature(folder)}", trained_directions(read_record(folder)))


def train_adapter(lalm: HuggingFaceLALM, rows: Sequence[Utterance], config: TrainConfig) -> Path:
    """Fine-tune `lalm` on `rows` by LoRA; writes the adapter to `config.out` for `simulsa.load`, and keeps none in memory.

    Offline and augmented rows are shuffled together. Only the language model's layers are trained; audio tower and projector
    are frozen. Every optimiser step minimises the mean cross-entropy of its target tokens and EOS. The folder also holds the
    adapter's record (`simulsa.json`), `log.jsonl`, `loss.png` and `checkpoints/`. An interrupted training run resumes from its
    last checkpoint, and a finished one is not repeated.

    Raises `ManifestError` for ids that occur twice, `TrainError` for rows with unusable audio or a target that the model cannot
    generate, and for a folder that holds another training run (unless overwritten) or that another process trains into;
    `AudioError` for audio that cannot be decoded (unless skipped); `LALMError` for a model that cannot be trained or fails the
    preflight.
    """
    require("training", "train")
    _check_model(lalm)
    processes.join(lalm.device)
    if not rows:
        raise TrainError("no rows to train on; give at least one")
    check_ids(rows, " over all rows of a training")
    busy = TrainError(f"{config.out}: another process is training into it; wait for it, or choose another --out")
    with sole_writer(config.out, busy) if processes.is_main() else contextlib.nullcontext():
        return _finished_or_trained(lalm, rows, config)


def _finished_or_trained(lalm: HuggingFaceLALM, rows: Sequence[Utterance], config: TrainConfig) -> Path:
    folder = Folder(config.out)
    record = make_record(lalm, rows, config)
    if not config.overwrite and folder.is_finished(record):
        logger.info("train: %s is already complete", config.out)
        return config.out
    processes.wait()  # no process may begin before all have checked the folder
    examples, left_out = make_examples(rows, lalm, config.on_error)
    record["data"]["left_out"] = left_out
    if config.mixed_precision:
        warn_of_slow_bfloat16(lalm.device.type, "mixed_precision")
    if config.preflight:
        preflight(lalm, examples[0].row.direction)
    if processes.is_main():
        folder.begin(record, config.overwrite)  # with overwrite, this removes what is there
        _report(examples, config)
    processes.wait()
    checkpoint = _fit_to_the_end(lalm, examples, config, folder)
    if processes.is_main():
        final_loss = [entry["loss"] for entry in checkpoint.state["log_history"] if "loss" in entry][-1]
        plot_log(folder.log, folder.curve)
        folder.finish(checkpoint, {**record, "final_loss": final_loss})
        logger.info("train: the adapter is in %s, final loss %.4f", config.out, final_loss)
    processes.wait()
    return config.out


def _fit_to_the_end(lalm: HuggingFaceLALM, examples: Sequence[Example], config: TrainConfig, folder: Folder) -> Checkpoint:
    """Train to the last optimiser step, as far as needed; returns its checkpoint."""
    steps = config.optimiser_steps(len(examples))
    last = folder.last_checkpoint()
    if last is None or last.step < steps:
        if last is not None:
            logger.info("train: resuming after step %d of %d", last.step, steps)
        checkpointed = checkpoints(lalm, examples, config)
        model = add_lora(lalm.model, config, checkpointed)
        trainable, total = model.get_nb_trainable_parameters()
        logger.info("train: %d of %d parameters are trained (%.2f %%)", trainable, total, 100 * trainable / total)
        if experts := target_parameters(lalm.model):
            logger.info("train: LoRA also covers %d matrices of experts, but not their routers", len(experts))
        student = lalm.carrying(model, lalm.name, lalm.content)
        try:
            fit(student, examples, config, folder, None if last is None else last.path)
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]  # the rest is advice for programmers
            raise TrainError(f"a pass did not fit into the GPU's memory ({reason}): {advice(config, checkpointed)}") from error
        processes.wait()  # the main process writes the last checkpoint
        last = folder.last_checkpoint()
    if last is None or last.step < steps:
        raise TrainError(f"{folder.checkpoints}: the last step's checkpoint is missing; is another process writing there?")
    return last


def _check_model(lalm: HuggingFaceLALM) -> None:
    if not hasattr(lalm, "model"):
        raise LALMError(f"{lalm.name}: its weights are not in this process, and training needs them; load it without engine_url")
    if lalm.has_adapter:
        raise LALMError(f"{lalm.name}: carries an adapter already; train on its base model, with all rows in one stage")
    if lalm.dtype == torch.float16:
        raise LALMError(f"{lalm.name}: gradients underflow in float16; load the model with --dtype bfloat16 or float32")


def _report(examples: Sequence[Example], config: TrainConfig) -> None:
    """Log the training data, and where each setting came from."""
    logger.info("train: %s", summary(examples))
    steps = config.optimiser_steps(len(examples))
    logger.info(
        "train: %d optimiser steps of %d rows (%d passes of %d in %d processes)",
        steps, config.batch_size, processes.accumulation_steps(config), config.micro_batch_size, processes.count(),
    )  # fmt: skip
    lines = [f"  {name:<24}{getattr(config, name)!s:<22}{origin}" for name, origin in config.origins().items()]
    logger.info("train: the settings and where they came from\n%s", "\n".join(lines))
