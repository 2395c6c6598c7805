"""From sizes and what they cost: how steeply the cost grows, and whether it grows too much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEEPEST = 1.15
"""An exponent up to here counts as linear: a machine with other work is never more exact."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One command at one size; medians and the greatest peak of its rounds."""

    amount: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def exponent(amounts: Sequence[float], costs: Sequence[float]) -> float | None:
    """``p`` of a cost that grows like ``a + b * n**p``, for ``n`` far from the smallest; ``None`` of a single amount.

    What the smallest size costs is taken off both amounts and costs, so that a fixed cost does not hide how the rest
    grows (of ``a + b * n`` exactly 1 is left). The line through the logarithms is fitted to the upper half of what
    remains, since small differences are noise. A cost that does not grow has the exponent 0.
    """
    base_amount, base_cost = amounts[0], costs[0]
    pairs = [(n - base_amount, c - base_cost) for n, c in zip(amounts[1:], costs[1:], strict=True)]
    upper = pairs[-max(2, (len(pairs) + 1) // 2) :]
    if len(upper) < 2:
        return None
    if any(cost <= 0 for _, cost in upper):
        return 0.0
    x, y = ([math.log(value) for value in values] for values in zip(*upper, strict=True))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return slope / sum((a - mean_x) ** 2 for a in x)


def bytes_per_unit(points: Sequence[Point], *, start: int = 0) -> float | None:
    """By how much the peak grew from the first point with ``start`` units to the last, for each of the last's units."""
    first = next((point for point in points if point.amount >= start), points[0])
    last = points[-1]
    if last.amount <= first.amount:
        return None
    return (last.peak_bytes - first.peak_bytes) / last.amount
