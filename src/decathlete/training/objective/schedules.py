"""Schedules as pure functions of progress, 0..1, whether epochs or time measure it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from decathlete.core.choices import ScheduleName

EMA_WINDOW_SHARE = 0.03
POLY_POWER = 0.9
FINAL_SHARE = 1e-3


def learning_rate(
    progress: float,
    *,
    peak: float,
    schedule: ScheduleName,
    warmup: float,
    restarts: int = 0,
    drops: Sequence[float] = (),
    factor: float = 1.0,
    lowered: float = 1.0,
) -> float:
    """The learning rate at ``progress`` (0..1, clamped).

    Rises linearly from a hundredth of ``peak`` over the first ``warmup`` (not with ``none``, which is ``peak``
    throughout). From then on ``constant`` stays, ``cosine`` (Loshchilov & Hutter 2017; back to ``peak`` after each of
    its ``restarts``) and ``poly`` with power 0.9 (nnU-Net) fall to ``FINAL_SHARE`` of it.

    Args:
        drops: ``multistep``: at each of these points of the progress the rate is multiplied by ``factor``.
        lowered: ``plateau``: share of ``peak`` that is left after the plateaus so far (``RunState.lowered``).
    """
    progress = min(max(progress, 0.0), 1.0)
    if schedule == "none":
        return peak
    if progress < warmup:
        return peak * (0.01 + 0.99 * progress / warmup)
    if schedule == "constant":
        return peak
    if schedule == "multistep":
        return peak * factor ** sum(progress >= drop for drop in drops)
    if schedule == "plateau":
        return peak * lowered
    fallen = (progress - warmup) / (1.0 - warmup)
    share = _cosine(fallen, restarts) if schedule == "cosine" else (1.0 - fallen) ** POLY_POWER
    return peak * max(share, FINAL_SHARE)


def _cosine(fallen: float, restarts: int) -> float:
    cycles = fallen * (restarts + 1)
    part = 1.0 if fallen >= 1.0 else math.fmod(cycles, 1.0)
    return (1.0 + math.cos(math.pi * part)) / 2


def ema_decay(step: int, *, progress: float, limit: float) -> float:
    """The decay of the averaged weights after ``step`` steps (the one just made included).

    Its window (1 / (1 - decay), in steps) is at most ``limit``'s, at most ``EMA_WINDOW_SHARE`` of the steps that
    the whole training is expected to make (``step / progress``), and at most about a ninth of the steps made, so
    that neither the first weights nor a short budget spoil the average.
    """
    if limit <= 0.0 or step <= 1:
        return 0.0
    expected = step / min(max(progress, 1e-6), 1.0)
    window = min(1.0 / (1.0 - limit), EMA_WINDOW_SHARE * expected, (10 + step) / 9)
    return 1.0 - 1.0 / max(window, 1.0)
