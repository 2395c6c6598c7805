"""Time and peak memory against what grows, as one small picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from axes import Axis
from tables import Found, plural


def plot(path: Path, axis: Axis, found: Found) -> None:
    """Both axes logarithmic; the grey line is what grows in proportion."""
    figure, (times, peaks) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for command, points in found.items():
        amounts = [p.amount for p in points]
        times.loglog(amounts, [p.cpu_seconds for p in points], "o-", label=command)
        peaks.semilogx(amounts, [p.peak_bytes / 1e6 for p in points], "o-", label=command)
    longest = max((points for points in found.values() if points), key=lambda points: points[-1].cpu_seconds)
    last = longest[-1]
    guide = [p.amount for p in longest]
    times.loglog(guide, [last.cpu_seconds * n / last.amount for n in guide], ":", color="grey", label="in proportion")
    times.set(xlabel=plural(axis.unit), ylabel="CPU time, s")
    peaks.set(xlabel=plural(axis.unit), ylabel="peak memory, MB")
    peaks.set_ylim(bottom=0)
    figure.legend(*times.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=80)
    plt.close(figure)
