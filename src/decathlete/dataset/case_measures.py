"""Measure the properties of one case that are compared with those of the other cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, Shape, Triple, reorientation
from decathlete.core.schema import Schema
from decathlete.io.volumes import Image, LabelMap

N_SAMPLES = 200_000
"""Voxels of a channel or of the foreground whose values are sorted for the quantiles, about (3 ms)."""

_LETTERS = (("S", "I"), ("A", "P"), ("R", "L"))


class CaseMeasures(Schema):
    """Properties of one case that are compared with those of the other cases.

    Attributes:
        shape: voxels along superior, anterior and right.
        spacing: mm, of the same axes.
        orientation: direction of the stored axes, as ``RAS``.
        ct: values of the first CT channel: 5 %, 50 % and 95 % quantile, and the median of the foreground (NaN without
            foreground); ``None`` without CT.
    """

    shape: Shape
    spacing: Triple
    orientation: str
    ct: tuple[float, float, float, float] | None = None


def measure_case(channels: Sequence[str], images: Sequence[Image], label: LabelMap | None) -> CaseMeasures:
    """Measure a case that has been read.

    Args:
        channels: names of all channels of ``images``.
    """
    geometry = images[0].geometry
    axes = reorientation(geometry, "canonical")
    return CaseMeasures(
        shape=axes.shape(geometry.shape_ZYX),
        spacing=axes.geometry(geometry).spacing_ZYX,
        orientation=orientation_letters(geometry),
        ct=_measure_ct(channels, images, label),
    )


def orientation_letters(geometry: Geometry) -> str:
    """Return the world directions to which the stored axes point, in the order of NIfTI's i, j, k.

    >>> orientation_letters(Geometry.plain((4, 5, 6)))
    'RAS'
    """
    axes = reorientation(geometry, "canonical")
    letters = {p: _LETTERS[world][axes.flips[world]] for world, p in enumerate(axes.permutation)}
    return "".join(letters[array_axis] for array_axis in (2, 1, 0))


def _measure_ct(
    channels: Sequence[str], images: Sequence[Image], label: LabelMap | None
) -> tuple[float, float, float, float] | None:
    number = next((c for c, name in enumerate(channels) if name.strip().casefold() == "ct"), None)
    flat = [channel for image in images for channel in image.array_CZYX]
    if number is None or number >= len(flat):
        return None
    values_ZYX = flat[number]
    low, middle, high = np.quantile(_sample(values_ZYX.ravel()), (0.05, 0.5, 0.95)).tolist()
    foreground = np.nan
    if label is not None and label.array_ZYX.shape == values_ZYX.shape:
        places = _sample(np.flatnonzero(label.array_ZYX))
        foreground = float(np.median(values_ZYX.ravel()[places])) if places.size else np.nan
    return (low, middle, high, foreground)


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    return values[:: max(1, values.size // N_SAMPLES)]
