"""Dice against minutes, one small plot for each dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from cells import NNUNET, OURS, CellResult
from ladder_tables import make_rungs

NAMES = {OURS: "Decathlete", NNUNET: "nnU-Net v2"}


def plot(path: Path, results: Sequence[CellResult]) -> None:
    """Draw the mean over the seeds as a line, each seed as a dot; minutes are logarithmic."""
    rungs = list(make_rungs(results))
    datasets = sorted({rung.dataset for rung in rungs})
    if not datasets:
        return
    figure, row = plt.subplots(
        1, len(datasets), figsize=(3.6 * len(datasets), 3.2), layout="constrained", squeeze=False
    )
    for axes, dataset in zip(row[0], datasets, strict=True):
        for program, name in NAMES.items():
            own = [rung for rung in rungs if rung.dataset == dataset and rung.means(program)]
            means = [sum(rung.means(program)) / len(rung.means(program)) for rung in own]
            (line,) = axes.semilogx([rung.minutes for rung in own], means, "-", label=name)
            dots = [(rung.minutes, value) for rung in own for value in rung.means(program)]
            axes.plot([x for x, _ in dots], [y for _, y in dots], "o", color=line.get_color())
        axes.set(title=dataset, xlabel="minutes of training", ylabel="mean Dice", ylim=(0, 1))
        times = sorted({rung.minutes for rung in rungs if rung.dataset == dataset})
        axes.set_xticks(times, [f"{time:g}" for time in times], minor=False)
        axes.minorticks_off()
    figure.legend(*row[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=100)
    plt.close(figure)
