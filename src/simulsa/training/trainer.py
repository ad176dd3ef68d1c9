"""transformers' `Trainer` with the LALM's loss, and its log."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from simulsa.files import append_jsonl, atomic_write
from simulsa.lalm.cache import EncoderCache
from simulsa.lalm.decoder import HeardClip
from simulsa.lalm.device import copied
from simulsa.lalm.frontend import PreparedClip
from simulsa.lalm.model import HuggingFaceLALM
from simulsa.lalm.workers import announce
from simulsa.loading import data_loader, deaths_explained, processes_for, unpacked
from simulsa.training import processes
from simulsa.training.collator import Collator
from simulsa.training.compiled import compile_layers
from simulsa.training.config import TrainConfig
from simulsa.training.examples import Example, TrainError
from simulsa.training.folder import Folder
from simulsa.training.lora import train_mode
from simulsa.training.order import passed_examples

logger = logging.getLogger("simulsa")


def fit(lalm: HuggingFaceLALM, examples: Sequence[Example], config: TrainConfig, folder: Folder, resume: Path | None) -> None:
    """Train the LoRA weights of `lalm.model`, from the checkpoint `resume` if given; the last step writes a checkpoint.

    Raises `TrainError` if the loss becomes NaN or infinite, and `LoadingError` when a loader process dies.
    """
    with Progress(
        console=Console(stderr=True), transient=True, disable=not (sys.stderr.isatty() and processes.is_main())
    ) as progress:
        trainer = TokenMeanTrainer(
            lalm,
            args=_arguments(lalm, config, config.optimiser_steps(len(examples)), folder),
            train_dataset=passed_examples(examples, config),
            config=config,
            callbacks=[_Bookkeeping(folder, progress)],
        )
        trainer.remove_callback(PrinterCallback)
        with deaths_explained():
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)


class TokenMeanTrainer(Trainer):  # type: ignore[misc]  # transformers is not followed
    """A `Trainer` whose optimiser steps minimise the mean over all of the step's target tokens, however it is split into passes.

    Averaging the means of the passes would give tokens in short rows more weight, so 1×8 rows would not equal 8×1. Logits are
    computed only where there are labels, because the vocabulary may have 150,000 entries.
    """

    # Trainer must not divide by the number of passes again. Newer releases check `loss_is_scaled_for_ga`. Older ones check
    # `model_accepts_loss_kwargs`, as does the counting of a step's labels; it normally says that the model scales its own loss.
    loss_is_scaled_for_ga = True

    def __init__(self, lalm: HuggingFaceLALM, config: TrainConfig, **options: Any) -> None:
        collator = Collator(lalm.frontend, lalm.eos_id, config.on_error)
        # the wrappers for several processes (DDP, FSDP) must see one pass through the model's own forward
        lalm.model.forward = self._summed_loss
        self._trained = train_mode(lalm.model)
        lalm.model.train = lambda *_: lalm.model  # Trainer calls it in every pass, which would walk all modules
        super().__init__(model=lalm.model, data_collator=collator, **options)
        self.model_accepts_loss_kwargs = True
        self._lalm = lalm
        self._config = config
        self._cache = EncoderCache(config.encoder_cache_mib, drop=False)
        self._broken: set[str] = set()
        self._precision = torch.autocast(lalm.device.type, torch.bfloat16, enabled=_autocasts(lalm, config))
        if config.compiles(lalm.device.type):
            with self._precision:
                compile_layers(lalm, config.micro_batch_size)

    def get_train_dataloader(self) -> Any:
        """The batches in the order of the rows, from loader processes if there are any."""
        announce(self._lalm, (example.row.direction for example in self.train_dataset if example is not None))
        workers = processes_for(self._config.workers, self._lalm.device, processes.count_here())
        loader = data_loader(self.train_dataset, self._config.micro_batch_size, self.data_collator, workers)
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator: Any, *args: Any) -> Any:
        """The batches of a step, on the model's device, and their number of labels."""
        batches, labels = super().get_batch_samples(unpacked(epoch_iterator), *args)
        for batch in batches:
            for row, problem in batch.pop("broken").items():
                if row not in self._broken:
                    self._broken.add(row)
                    logger.warning("train: row %r skipped: %s", row, problem)
            for name, value in batch.items():
                if isinstance(value, torch.Tensor):
                    batch[name] = copied(value, self._lalm.device)
        return batches, labels

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the count is not used, and computing it would walk all parameters in every pass."""
        return 0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Sum of the pass's losses, in nats, over `num_items_in_batch`, the step's target tokens in all processes."""
        if num_items_in_batch is None:
            raise TrainError("Trainer did not count the step's labels; use a transformers release within simulsa's bounds")
        # undoes the division that comes with averaging gradients over processes
        loss: torch.Tensor = model(inputs) * processes.count()
        return loss / torch.as_tensor(num_items_in_batch, device=loss.device).clamp(min=1)

    def _summed_loss(self, inputs: dict[str, Any]) -> torch.Tensor:
        label_indices, width = inputs["label_indices"], inputs["labels"].shape[1]
        labels, offline = (inputs[name].flatten()[label_indices] for name in ("labels", "offline"))
        share = self._config.self_distillation
        heard = self._hear(inputs["clips"])
        own = self._base_probabilities(heard, inputs["answers"], label_indices, width) if share else None
        logits = self._logits(heard, inputs["answers"], label_indices, width)
        losses = cross_entropy(logits, labels, reduction="none")
        if own is not None:
            losses = torch.where(offline, (1 - share) * losses + share * divergence(own, logits), losses)
        return losses.sum()

    def _hear(self, clips: Sequence[PreparedClip]) -> list[HeardClip]:
        with self._precision:
            return self._cache.fetch([clip.key for clip in clips], lambda rows: self._lalm.listen([clips[row] for row in rows]))

    def _logits(
        self, heard: Sequence[HeardClip], answers: Sequence[Sequence[int]], label_indices: torch.Tensor, width: int
    ) -> torch.Tensor:
        """Float32 `[labels, vocabulary]` logits at the `label_indices` of `[rows, width]` (see `Collator`)."""
        with self._precision:
            hidden = self._lalm.forward(heard, answers)
            # rows end with their answers, and the logits at position i predict token i + 1
            return self._lalm.decoder.logits(hidden[:, -width - 1 : -1].flatten(0, 1)[label_indices])

    @torch.no_grad()
    def _base_probabilities(
        self, heard: Sequence[HeardClip], answers: Sequence[Sequence[int]], label_indices: torch.Tensor, width: int
    ) -> torch.Tensor:
        """The probabilities `[labels, vocabulary]` of the model without the adapter on the same rows."""
        for module in self._trained:
            module.training = False
        try:
            with self._lalm.model.disable_adapter():
                return self._logits(heard, answers, label_indices, width).softmax(-1)
        finally:
            for module in self._trained:
                module.training = True


def _autocasts(lalm: HuggingFaceLALM, config: TrainConfig) -> bool:
    """Whether products are computed in bfloat16: if requested, or on a GPU if the model, LoRA aside, is in bfloat16."""
    return config.mixed_precision or (lalm.device.type == "cuda" and lalm.dtype == torch.bfloat16)


def divergence(wanted: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence `[tokens]`, in nats, of the distribution given by `logits` from `wanted`.

    Both are `[tokens, vocabulary]`; a token that is impossible in both contributes nothing.
    """
    log_probs = logits.log_softmax(-1).masked_fill(wanted == 0, 0.0)
    return (torch.xlogy(wanted, wanted) - wanted * log_probs).sum(-1)


class _Bookkeeping(TrainerCallback):  # type: ignore[misc]
    """The log file, the loss in the library's log, the progress bar, and how many checkpoints are kept."""

    def __init__(self, folder: Folder, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # drop what a killed run logged after the checkpoint's step, because it will be logged again
        if processes.is_main():
            with atomic_write(self._folder.log):
                pass
            append_jsonl(self._folder.log, [_finite(entry) for entry in state.log_history if "loss" in entry])
        self._task = self._progress.add_task("training", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.update(self._task, completed=state.global_step)
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if processes.is_main():
            self._folder.drop_old_checkpoints()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainError(
                f"the loss is {logs['loss']} at step {state.global_step}; training has diverged: start over with a lower "
                f"--learning-rate (it is {args.learning_rate:g})"
            )
        if not processes.is_main():
            return
        append_jsonl(self._folder.log, [_finite(state.log_history[-1])])
        logger.info(
            "train: step %d of %d, loss %.4f, learning rate %.3g",
            state.global_step, state.max_steps, logs["loss"], logs["learning_rate"],
        )  # fmt: skip


def _finite(entry: dict[str, float]) -> dict[str, float | None]:
    """A log entry for JSON, which has no NaN or infinity: the norm of a gradient that overflowed is `None`."""
    return {name: value if math.isfinite(value) else None for name, value in entry.items()}


def _arguments(lalm: HuggingFaceLALM, config: TrainConfig, steps: int, folder: Folder) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder.checkpoints),
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=processes.accumulation_steps(config),
        num_train_epochs=1,  # the order holds all epochs
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=round(config.warmup_share * steps),
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=config.logging_every_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=config.save_every_steps,
        remove_unused_columns=False,
        label_names=["labels"],
        **({"optim": "adamw_torch_fused"} if lalm.device.type == "cuda" else {}),
        use_cpu=lalm.device.type == "cpu",
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=True,
        report_to=[],
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:  # prevents DataParallel: the loss does not go through its wrapper
        arguments._n_gpu = 1
    return arguments
