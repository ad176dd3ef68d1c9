"""The systems that the experiments compare: how their rows are made and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from simulsa.augmentation.config import AugmentConfig
from simulsa.lalm.precision import has_bfloat16
from simulsa.settings import from_mapping, read_yaml_mapping
from simulsa.training.config import TrainConfig

Settings = TypeVar("Settings")

RECIPES = Path(__file__).parents[1]
# M = 1.3 % of the offline rows, as in the paper
PAPER_SHARE = 0.013
# A model a thousandth the size of the paper's needs larger steps and smaller batches; the rest is as in the paper.
FINE_TUNING = TrainConfig(
    learning_rate=5e-4,
    batch_size=32,
    micro_batch_size=32,
    epochs=2,
    length_grouping=True,
    encoder_cache_mib=3072,  # 29,000 captions
    mixed_precision=has_bfloat16(),
    on_error="skip",
    preflight=False,
)
CUTTING = AugmentConfig(preflight=False, on_error="skip")


@dataclass(frozen=True)
class System:
    """A model to measure: the base fine-tuned on offline rows and on simultaneous ones.

    `share` is the number of simultaneous rows per offline row; they are made by the `augmentation` (whose `num` is ignored),
    with the base or another system. An epoch shows each of them `repeats` times. Without `training` the system is the base.
    """

    name: str
    training: TrainConfig | None = FINE_TUNING
    share: float = PAPER_SHARE
    repeats: int = 1
    augmentation: AugmentConfig | None = None
    augmented_by: System | None = None


BASE = System("Base", training=None)
SFT = System("+ SFT")
SIMULSA = System("+ SFT & SimulSA", augmentation=CUTTING)


def changed(system: System, name: str, training: dict[str, object] | None = None, **cutting: object) -> System:
    """`system` under another name and with other settings: keyword arguments for augmentation, a dictionary for training."""
    return replace(
        system,
        name=name,
        training=replace(system.training or FINE_TUNING, **(training or {})),  # type: ignore[arg-type]
        augmentation=replace(system.augmentation or CUTTING, **cutting),  # type: ignore[arg-type]
    )


def varied(
    name: str,
    share: float = PAPER_SHARE,
    system: System | None = None,
    training: dict[str, object] | None = None,
    repeats: int = 1,
    **cutting: object,
) -> System:
    """`system`, by default SimulSA, with a different share of rows, shown more often, or other settings (see `changed`)."""
    return replace(changed(system or SIMULSA, name, training, **cutting), share=share, repeats=repeats)


def _recipe(name: str, share: float) -> System:
    """The recipe of this name, from the settings files in its folder."""

    def read(kind: type[Settings], file: str, **more: object) -> Settings:
        path = RECIPES / name / file
        return from_mapping(kind, {**read_yaml_mapping(path), **more}, str(path))

    return System(
        f"+ SFT & {name} SimulSA",
        training=read(TrainConfig, "train.yaml", preflight=False, mixed_precision=has_bfloat16()),
        share=share,
        augmentation=read(AugmentConfig, "augment.yaml", preflight=False),
    )


MANY = _recipe("many", 0.4)
# the recipe of the bundled adapter
BEST = MANY
# of the table: with 10 % the best at most latencies, with 40 % nearly as good without a policy as offline
MANY_SHARES = (0.1, 0.4)


def with_references(share: float) -> System:
    """The recipe `many` with offline rows that keep their references, for captions that are new to the base."""
    return varied(f"{MANY.name}, M = {share:.0%}", share, MANY, {"self_distillation": 0.0})


# trained with every seed; the others with the first
WITH_EVERY_SEED = (SFT, SIMULSA, *map(with_references, MANY_SHARES))
