"""How much a network learns in a number of training steps, with patches that cover a part of the image.

Small patches allow more steps in the same time, and large ones show more of the image. The formula weighs both. It was
fitted to trainings of 2 and 10 minutes on four datasets (docs/explanation/recipe-search.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

STEPS_HALF, STEPS_POWER = 86.0, 0.9
"""Number of training steps in which half of what can be learned is learned, and how fast the rest follows."""
COVERAGE_HALF, COVERAGE_POWER = 0.1, 1.4
"""The same for :func:`coverage`."""
COMFORTABLE_STEPS = 4000
"""Number of training steps that are enough: a plan of which so many fit into the time stays as it is."""


def learned_share(*, steps: float, coverage: float) -> float:
    """Return the share of the reachable Dice that a training is expected to reach, 0..1.

    >>> round(learned_share(steps=300, coverage=1.0), 3)
    0.726
    >>> round(learned_share(steps=3000, coverage=0.4), 3)
    0.84
    """
    by_steps = _saturating(steps, STEPS_HALF, STEPS_POWER)
    return by_steps * _saturating(coverage, COVERAGE_HALF, COVERAGE_POWER)


def coverage(patch: Sequence[int], image: Sequence[float]) -> float:
    """Return the length of a patch divided by that of the image, 0..1: the geometric mean over the axes.

    >>> round(coverage((10, 64, 64), (10, 256, 256)), 3)
    0.397
    """
    shares = [min(size / whole, 1.0) for size, whole in zip(patch, image, strict=True)]
    return float(math.prod(shares) ** (1 / len(shares)))


def _saturating(value: float, half: float, power: float) -> float:
    return float(1 / (1 + (half / max(value, 1e-9)) ** power))
