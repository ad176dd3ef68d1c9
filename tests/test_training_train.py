"""Training on the random model: LoRA, the loss, gradient accumulation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from simulsa.lalm.interface import LALMError
from simulsa.manifest import Utterance
from simulsa.training.config import TrainConfig
from simulsa.training.lora import add_lora, shared_copy, target_modules
from simulsa.training.train import TrainError, train
from simulsa.training.trainer import TokenMeanTrainer, divergence
from tests.trainings import (
    Rows,
    difference,
    log,
    negative_log_probs,
    settings,
    weights,
)

# LoRA


def test_lora_lies_in_the_language_models_layers_only(random_lalm: Any) -> None:
    names = target_modules(random_lalm.model)
    assert len(names) == 7  # q, k, v, o and the three of the MLP, in one layer
    assert all(name.startswith("model.language_model.layers.0.") for name in names)
    model = add_lora(random_lalm.model, TrainConfig())
    adapted = [name for name, _ in model.named_modules() if name.endswith(".lora_A")]
    assert sorted(name.removeprefix("base_model.model.").removesuffix(".lora_A") for name in adapted) == sorted(names)


def test_a_model_without_known_layers_is_refused() -> None:
    with pytest.raises(LALMError, match=r"a Sequential has no linear layers under model\.language_model"):
        target_modules(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_lora_on_a_copy_uses_the_same_memory_and_leaves_the_model_alone(random_lalm: Any) -> None:
    before = [name for name, _ in random_lalm.model.named_modules()]
    copied = add_lora(random_lalm.model, TrainConfig()).get_base_model()
    assert [name for name, _ in random_lalm.model.named_modules()] == before
    assert all(weight.requires_grad for weight in random_lalm.model.model.language_model.parameters())
    tower, copied_tower = random_lalm.model.model.audio_tower, copied.model.audio_tower
    assert tower.conv1.weight.data_ptr() == copied_tower.conv1.weight.data_ptr()


def test_tied_weights_stay_tied_in_a_copy() -> None:
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    second.weight = first.weight
    copied = shared_copy(torch.nn.Sequential(first, second))
    assert copied[0].weight is copied[1].weight
    assert copied[0].weight is not first.weight
    assert copied[0].weight.data_ptr() == first.weight.data_ptr()


def test_everything_but_the_adapted_layers_stays_in_evaluation_mode(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training: set[str] = set()
    original = TokenMeanTrainer._clip_grad_norm

    def clip(self: Any, model: Any) -> Any:
        training.update(name for name, module in model.named_modules() if module.training)
        return original(self, model)

    monkeypatch.setattr(TokenMeanTrainer, "_clip_grad_norm", clip)
    train(random_lalm, make_rows(1), settings(tmp_path / "run", lora_dropout=0.1))
    assert "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_dropout.default" in training
    assert all(name.startswith("base_model.model.model.language_model.layers") for name in training)


# the loss


def test_the_first_loss_is_the_mean_over_all_target_tokens_and_eos(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(8)
    train(random_lalm, rows, settings(tmp_path / "run", micro_batch_size=2))
    # LoRA starts as no change at all, so the base's own scores say what the first loss must be
    assert log(tmp_path / "run")[0]["loss"] == pytest.approx(negative_log_probs(random_lalm, rows).mean(), abs=1e-4)


@pytest.mark.parametrize(("micro_batch_size", "accepts_loss_kwargs"), [(1, True), (2, False)])
def test_accumulated_gradients_equal_one_large_batch(
    micro_batch_size: int,
    accepts_loss_kwargs: bool,
    make_rows: Rows,
    random_lalm: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # what a model says here changes whether Trainer counts tokens and divides by the number of passes
    monkeypatch.setattr(random_lalm.model, "accepts_loss_kwargs", accepts_loss_kwargs, raising=False)
    rows = make_rows(8)
    lengths = [len(random_lalm.encode(row.target_text)) for row in rows]
    assert len(set(lengths)) > 2  # a mean of the passes' means would differ
    # plain gradients: AdamW's first step is their sign, which hides most errors
    gradients = []
    for size in (8, micro_batch_size):
        config = settings(tmp_path / str(size), micro_batch_size=size, learning_rate=1e-3)
        gradients.append(first_gradients(random_lalm, rows, config))
    assert max(float(gradient.abs().max()) for gradient in gradients[0].values()) > 1e-3
    assert difference(*gradients) < 1e-6
    assert difference(weights(tmp_path / "8"), weights(tmp_path / str(micro_batch_size))) < 3e-5


def test_mixed_precision_rounds_and_keeps_float32_weights(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(8)
    train(random_lalm, rows, settings(tmp_path / "full"))
    train(random_lalm, rows, settings(tmp_path / "mixed", mixed_precision=True))
    full, mixed = (log(tmp_path / name)[0]["loss"] for name in ("full", "mixed"))
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.01)
    assert all(weight.dtype == torch.float32 for weight in weights(tmp_path / "mixed").values())


def first_gradients(lalm: Any, rows: list[Utterance], config: TrainConfig) -> dict[str, torch.Tensor]:
    """The gradients with which the optimiser steps first, by parameter."""
    found: dict[str, torch.Tensor] = {}
    original = TokenMeanTrainer._clip_grad_norm

    def clip(self: Any, model: Any) -> Any:
        if not found:
            found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        return original(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenMeanTrainer, "_clip_grad_norm", clip)
        train(lalm, rows, config)
    return found


def test_only_lora_weights_of_the_language_model_get_gradients(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    gradients = first_gradients(random_lalm, make_rows(4), settings(tmp_path / "run"))
    assert gradients
    assert all(".language_model.layers." in name and ".lora_" in name for name in gradients)


def test_the_loss_falls_and_the_answers_are_learnt(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(8)
    config = settings(tmp_path / "run", learning_rate=3e-3, epochs=16, logging_every_steps=1, lora_r=16)
    tuned = train(random_lalm, rows, config)
    losses = [entry["loss"] for entry in log(tmp_path / "run")]
    assert len(losses) == 16
    assert losses[-1] < 0.7 * losses[0]
    assert negative_log_probs(tuned, rows).mean() < 0.7 * negative_log_probs(random_lalm, rows).mean()


def test_gradient_checkpointing_changes_nothing(make_rows: Rows, random_lalm: Any, tmp_path: Path) -> None:
    rows = make_rows(4)
    for name, wanted in (("plain", "off"), ("checkpointed", "on")):
        train(random_lalm, rows, settings(tmp_path / name, gradient_checkpointing=wanted))
    assert difference(weights(tmp_path / "plain"), weights(tmp_path / "checkpointed")) < 1e-6


def test_the_divergence_is_pytorchs_and_does_not_mind_what_cannot_be_said() -> None:
    logits, others = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.kl_div(logits.log_softmax(-1), others.softmax(-1), reduction="none").sum(-1)
    assert torch.allclose(divergence(others.softmax(-1), logits), expected, atol=1e-6)
    logits[:, 3] = others[:, 3] = -torch.inf
    logits.requires_grad_()
    losses = divergence(others.softmax(-1), logits)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_self_distillation_keeps_the_base_on_offline_rows_and_learns_the_cut_ones(
    make_rows: Rows, random_lalm: Any, tmp_path: Path
) -> None:
    rows = make_rows(4)
    cut = dataclasses.replace(rows[0], id="cut", parent_id=rows[0].id, duration_s=0.7)
    only_offline = settings(tmp_path / "offline", self_distillation=1.0)
    # what the base says of a whole row is what is wanted of it, so there is nothing to learn
    assert all(gradient.abs().max() < 1e-6 for gradient in first_gradients(random_lalm, rows, only_offline).values())
    assert log(tmp_path / "offline")[0]["loss"] == pytest.approx(0, abs=1e-5)
    for share in (0.5, 1.0):
        train(random_lalm, [*rows, cut], settings(tmp_path / str(share), self_distillation=share))
        offline, simultaneous = (negative_log_probs(random_lalm, some) for some in (rows, [cut]))
        expected = ((1 - share) * offline.sum() + simultaneous.sum()) / (len(offline) + len(simultaneous))
        assert log(tmp_path / str(share))[0]["loss"] == pytest.approx(expected, abs=1e-4)


def test_a_loss_that_is_no_number_ends_the_training(
    make_rows: Rows, random_lalm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TokenMeanTrainer.compute_loss
    monkeypatch.setattr(TokenMeanTrainer, "compute_loss", lambda *args, **kwargs: original(*args, **kwargs) * torch.nan)
    with pytest.raises(TrainError, match=r"the loss is nan at step 1.*lower --learning-rate"):
        train(random_lalm, make_rows(2), settings(tmp_path / "run"))
