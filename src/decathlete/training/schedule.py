"""Schedules as pure functions of progress, 0..1, whether epochs or time measure it."""

from __future__ import annotations

import math

from decathlete.core.choices import ScheduleName

EMA_WINDOW_SHARE = 0.03
POLY_POWER = 0.9
FINAL_SHARE = 1e-3


def learning_rate(progress: float, *, peak: float, schedule: ScheduleName, warmup: float) -> float:
    """The learning rate at ``progress`` (0..1, clamped).

    Rises linearly from a hundredth of ``peak`` over the first ``warmup``, then falls to ``FINAL_SHARE`` of it:
    ``cosine`` (Loshchilov & Hutter 2017), ``poly`` with power 0.9 (nnU-Net), or stays (``constant``).
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return peak * (0.01 + 0.99 * progress / warmup)
    if schedule == "constant":
        return peak
    fallen = (progress - warmup) / (1.0 - warmup)
    share = (1.0 + math.cos(math.pi * fallen)) / 2 if schedule == "cosine" else (1.0 - fallen) ** POLY_POWER
    return peak * max(share, FINAL_SHARE)


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
