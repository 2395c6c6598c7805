"""Draws the charts of a report as inline SVG. Text and lines have CSS variables as colours (light and dark theme)."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import cycle, islice

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from decathlete.errors import printable
from decathlete.evaluation.scores import Scores
from decathlete.training.reporting.records import EpochRecord, Logs

# Okabe and Ito's colour-blind safe colours; those with good contrast on white and on black come first.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
_THEME = {"#010203": "var(--ink)", "#040506": "var(--line)", "#070809": "var(--muted)"}
_INK, _LINE, _MUTED = _THEME
_SETTINGS = {"svg.fonttype": "none", "font.size": 9.5, "axes.titlesize": 10.5}


def make_class_colours(n: int) -> list[str]:
    """Return ``n`` hex colours; the first seven are colour-blind safe."""
    if n <= len(CLASS_COLOURS):
        return list(CLASS_COLOURS[:n])
    return list(islice(cycle([*CLASS_COLOURS, *(to_hex(colormaps["tab20"](i)) for i in range(20))]), n))


def draw_losses(logs: Logs) -> str:
    """Draw the training and validation loss over epochs."""
    figure, axes = _make_axes("Loss")
    _draw_line(axes, logs.epochs, [e.train_loss for e in logs.epochs], "training", CLASS_COLOURS[1])
    _draw_line(axes, logs.epochs, [e.val_loss for e in logs.epochs], "validation", CLASS_COLOURS[0])
    _mark_coarse_start(axes, logs)
    _draw_legend(axes)
    return _to_svg(figure, "Training and validation loss over epochs")


def _label(name: str) -> str:
    """Return a name for matplotlib: fonts have no control characters, and two dollar signs enclose a formula."""
    return printable(name).replace("$", r"\$")


def draw_dice(logs: Logs) -> str:
    """Draw the validation Dice of each class and their mean over epochs."""
    figure, axes = _make_axes("Dice in validation")
    names = logs.classes if len(logs.classes) <= 10 else ()
    for name, colour in zip(names, make_class_colours(len(names)), strict=True):
        _draw_line(axes, logs.epochs, [e.dice.get(name) for e in logs.epochs], _label(name), colour)
    _draw_line(axes, logs.epochs, [e.mean_dice for e in logs.epochs], "mean", _INK, width=2.2)
    top = axes.get_ylim()[1]
    axes.set_ylim(max(0.0, axes.get_ylim()[0]), min(1.0, top))
    _mark_coarse_start(axes, logs)
    _draw_legend(axes)
    return _to_svg(figure, "Validation Dice per class over epochs")


def draw_learning_rate(logs: Logs) -> str:
    """Draw the learning rate over epochs."""
    figure, axes = _make_axes("Learning rate")
    _draw_line(axes, logs.epochs, [e.learning_rate for e in logs.epochs], "learning rate", CLASS_COLOURS[2])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    return _to_svg(figure, "Learning rate over epochs")


def draw_distribution(scores: Scores) -> str:
    """Draw the main metric (Dice) of every case, one row per class: a box (quartiles) and a point for each case."""
    metric = scores.main_metric
    names = [_label(c.name) for c in scores.classes]
    figure, axes = _make_axes("", height=0.75 + 0.5 * len(names), width=9.6)
    for row, colour in enumerate(make_class_colours(len(names))):
        values = [v for c in scores.cases if (v := c.classes[row].values[metric.name]) is not None]
        _draw_row(axes, len(names) - 1 - row, np.array(values, dtype=float), colour)
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set_ylim(-0.6, len(names) - 0.4)
    if metric.is_share:
        lowest = min((s.minimum for c in scores.classes if (s := c.values[metric.name])), default=0.0)
        axes.set_xlim(np.floor(max(lowest - 0.02, 0) * 10) / 10 - 0.01, 1.01)
    axes.set_xlabel(f"{metric.title} of a case" + (f" ({metric.unit})" if metric.unit else ""))
    axes.grid(visible=False, axis="y")
    return _to_svg(figure, f"Distribution of {metric.title} over cases for each class")


def _draw_row(axes: Axes, row: int, values: NDArray[np.float64], colour: str) -> None:
    if not values.size:
        return
    if values.size >= 4:
        axes.boxplot(
            values,
            positions=[row],
            orientation="horizontal",
            widths=0.5,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.25, "edgecolor": "none"},
            medianprops={"color": colour, "linewidth": 2.4},
            whiskerprops={"color": colour, "linewidth": 1.2},
            capprops={"color": colour, "linewidth": 1.2},
        )
    spread = np.random.default_rng(row).uniform(-0.16, 0.16, values.size)  # so that points do not hide each other
    axes.scatter(values, row + spread, s=16, color=colour, alpha=0.75, linewidths=0, zorder=3)


def _make_axes(title: str, *, width: float = 3.9, height: float = 2.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_title(title, loc="left", color=_INK, fontweight="bold")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(colors=_MUTED, length=0)
    axes.xaxis.label.set_color(_MUTED)
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _draw_line(
    axes: Axes,
    epochs: Sequence[EpochRecord],
    values: Sequence[float | None],
    name: str,
    colour: str,
    width: float = 1.7,
) -> None:
    points = [(e.epoch + 1, v) for e, v in zip(epochs, values, strict=True) if v is not None and np.isfinite(v)]
    if not points:
        return
    x, y = zip(*points, strict=True)
    marker = "o" if len(points) == 1 else None
    axes.plot(x, y, color=colour, linewidth=width, label=name, marker=marker, solid_capstyle="round")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def _mark_coarse_start(axes: Axes, logs: Logs) -> None:
    """Mark with a dashed line where the training left the coarse grid: values on its two sides do not compare."""
    n_coarse = sum(e.coarse for e in logs.epochs)
    if n_coarse:
        axes.axvline(n_coarse + 0.5, color=_MUTED, linewidth=1.2, linestyle="--", label="end of the coarse grid")


def _draw_legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=_INK, fontsize=8.5, ncols=2)


def _to_svg(figure: Figure, description: str) -> str:
    """Convert a figure to inline SVG with the width of its container and the theme's variables as colours."""
    buffer = io.StringIO()
    # The salt makes ids unique among the charts of a page, and the same in each run.
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    for placeholder, variable in _THEME.items():
        svg = svg.replace(placeholder, variable)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(<svg[^>]*?) width="[^"]*pt"| height="[^"]*pt"', r"\1", svg, count=2).replace(
        "<svg", f'<svg class="chart" role="img" aria-label="{description}"', 1
    )
