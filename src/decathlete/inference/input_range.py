"""Compare an image with the range of the training data: outside of it a prediction is not reliable."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from decathlete.io.images import Image
from decathlete.planning.plan import Plan, Range
from decathlete.preprocessing.prepared import Restoration

SPACING_TOLERANCE = 0.1
"""Share by which a spacing may leave the training range without a warning."""
SIZE_TOLERANCE = 0.25
"""Share by which the extent after cropping may leave the training range."""
INTENSITY_TOLERANCE = 0.5
"""Share of the width of the training range by which a mean intensity may leave it."""


def channel_means(image: Image, restoration: Restoration) -> tuple[float, ...]:
    """Return the mean intensity of each channel of a raw image inside the crop box of its preparation."""
    cropped_CZYX = restoration.axes.apply(image.array_CZYX)[:, *restoration.crop.slices]
    return tuple(cropped_CZYX.mean(axis=(1, 2, 3), dtype=np.float64).tolist())


def input_range_warnings(means: Sequence[float], restoration: Restoration, plan: Plan) -> tuple[str, ...]:
    """Return a sentence for each property of an image outside the range of the training data.

    Args:
        means: :func:`channel_means` of the image.
        restoration: of the image, prepared by ``plan``; size and intensity are those inside its crop box.
        plan: with the range of the training data.
    """
    axes, crop = restoration.axes, restoration.crop
    spacing = axes.geometry(restoration.geometry).spacing_ZYX
    size = [s * n for s, n in zip(spacing, crop.shape, strict=True)]
    trained = plan.training_ranges
    warnings = []
    if restoration.geometry.unit != plan.spacing_unit:
        warnings.append(f"lengths are in {restoration.geometry.unit}; the model was trained in {plan.spacing_unit}")
    for axis in range(3):
        warnings += _check(
            f"spacing along axis {axis}",
            spacing[axis],
            _scale(trained.spacing[axis], SPACING_TOLERANCE),
            plan.spacing_unit,
        )
        warnings += _check(
            f"size along axis {axis}", size[axis], _scale(trained.size[axis], SIZE_TOLERANCE), plan.spacing_unit
        )
    for name, mean, known in zip(plan.channels, means, trained.intensity, strict=True):
        warnings += _check(f"mean intensity of channel {name!r}", mean, _widen(known), "")
    return tuple(warnings)


def copied_channel_warnings(image: Image, means: Sequence[float], names: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence for each channel that repeats another one, as if one file had been given twice.

    Pictures are left out: a grey one may be read as three equal channels.

    Args:
        means: :func:`channel_means` of the image: channels of different means are not compared.
        names: of the channels.
    """
    if image.geometry.unit == "pixel":
        return ()
    return tuple(
        f"channels {names[first]!r} and {names[second]!r} are equal: one of their files was probably copied"
        for first, second in combinations(range(len(means)), 2)
        if means[first] == means[second] and _are_copies(*image.array_CZYX[[first, second]])
    )


def _are_copies(first_ZYX: NDArray[np.float32], second_ZYX: NDArray[np.float32]) -> bool:
    """Return whether two channels are equal, and not an empty one that stands for a missing sequence."""
    return bool(first_ZYX.min() < first_ZYX.max()) and np.array_equal(first_ZYX, second_ZYX)


def _scale(seen: Range, tolerance: float) -> tuple[Range, Range]:
    return seen, Range(low=seen.low / (1 + tolerance), high=seen.high * (1 + tolerance))


def _widen(seen: Range) -> tuple[Range, Range]:
    margin = INTENSITY_TOLERANCE * max(seen.high - seen.low, 0.1 * max(abs(seen.low), abs(seen.high)))
    return seen, Range(low=seen.low - margin, high=seen.high + margin)


def _check(what: str, value: float, trained_and_allowed: tuple[Range, Range], unit: str) -> list[str]:
    seen, allowed = trained_and_allowed
    if allowed.low <= value <= allowed.high:
        return []
    tail = f" {unit}" if unit else ""
    return [f"{what} is {value:.4g}{tail}; the model was trained on {seen.low:.4g} to {seen.high:.4g}{tail}"]
