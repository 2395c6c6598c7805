"""Whether an image is like those that a model was trained on: a prediction far from them is not to be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decathlete.io.images import Image
from decathlete.planning.plan import Plan, Range
from decathlete.preprocessing.prepared import Restoration

SPACING_TOLERANCE = 0.1
"""Part by which spacing may leave the training range before a warning."""
SIZE_TOLERANCE = 0.25
"""Part by which the extent after cropping may leave the training range."""
INTENSITY_TOLERANCE = 0.5
"""Part of the training range's own width by which a mean intensity may leave it."""


def channel_means(image: Image, restoration: Restoration) -> tuple[float, ...]:
    """Mean intensity of each channel of a raw image inside the crop box of its preparation."""
    cropped_CZYX = restoration.axes.apply(image.array_CZYX)[:, *restoration.crop.slices]
    return tuple(cropped_CZYX.mean(axis=(1, 2, 3), dtype=np.float64).tolist())


def input_range_warnings(means: Sequence[float], restoration: Restoration, plan: Plan) -> tuple[str, ...]:
    """In what an image leaves the range of the training images (``plan.training_ranges``), a sentence each.

    Args:
        means: its :func:`channel_means`.
        restoration: how it was prepared by ``plan``; size and intensity are taken inside its crop box.
    """
    axes, crop = restoration.axes, restoration.crop
    spacing = axes.geometry(restoration.geometry).spacing_ZYX
    size = [s * n for s, n in zip(spacing, crop.shape, strict=True)]
    seen = plan.training_ranges
    found = []
    for axis in range(3):
        found += _leaves(
            f"spacing along axis {axis}", spacing[axis], _scaled(seen.spacing[axis], SPACING_TOLERANCE), "mm"
        )
        found += _leaves(f"size along axis {axis}", size[axis], _scaled(seen.size[axis], SIZE_TOLERANCE), "mm")
    for name, mean, known in zip(plan.channels, means, seen.intensity, strict=True):
        found += _leaves(f"mean intensity of channel {name!r}", mean, _widened(known), "")
    return tuple(found)


def _scaled(seen: Range, tolerance: float) -> tuple[Range, Range]:
    return seen, Range(low=seen.low / (1 + tolerance), high=seen.high * (1 + tolerance))


def _widened(seen: Range) -> tuple[Range, Range]:
    margin = INTENSITY_TOLERANCE * max(seen.high - seen.low, 0.1 * max(abs(seen.low), abs(seen.high)))
    return seen, Range(low=seen.low - margin, high=seen.high + margin)


def _leaves(what: str, value: float, seen_and_allowed: tuple[Range, Range], unit: str) -> list[str]:
    seen, allowed = seen_and_allowed
    if allowed.low <= value <= allowed.high:
        return []
    tail = f" {unit}" if unit else ""
    return [f"{what} is {value:.4g}{tail}; the model was trained on {seen.low:.4g} to {seen.high:.4g}{tail}"]
