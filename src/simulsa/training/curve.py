"""The loss curve of a training run as a figure."""

from __future__ import annotations

from pathlib import Path

from simulsa import strict_json
from simulsa.files import atomic_write


def plot_log(log: Path, picture: Path) -> None:
    """Draw the loss (nats per target token) and the learning rate of a log over the optimiser steps (PNG)."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    entries = [strict_json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [entry["step"] for entry in entries]
    figure = Figure(figsize=(7, 4), layout="constrained")
    loss = figure.subplots()
    loss.plot(steps, [entry["loss"] for entry in entries], color="#b3402a", marker=".", label="loss")
    loss.set(xlabel="optimiser step", ylabel="loss (nats per target token)")
    rate = loss.twinx()
    rate.plot(steps, [entry["learning_rate"] for entry in entries], color="#9db8d9", label="learning rate")
    rate.set(ylabel="learning rate", ylim=(0, None))
    for axes in (loss, rate):
        axes.spines["top"].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    with atomic_write(picture, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
