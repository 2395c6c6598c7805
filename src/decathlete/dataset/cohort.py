"""Compare the cases of a dataset with each other: spacing, size, intensity of CT, and orientation.

Every rule sorts the cases by one property and looks for a gap in it. The largest part of the cases is the reference;
the cases on the other side of a gap are named. Unlike a distance from the mean, this finds a fault that half of the
cases share, and it is silent for a dataset that varies much but without a gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Triple
from decathlete.dataset.case_measures import CaseMeasures

MIN_CASES = 3
"""Fewer cases are not compared: nothing says which of two is usual."""

SCALE_FACTOR = 4.0
"""Gap in the spacing or size along the median axis, as a factor. With slices of any thickness it is that in the plane
(0.4 to 1.5 mm are usual); a wrong unit changes it by 10 or more."""

AXIS_FACTOR = 16.0
"""Gap in the spacing or size along one axis, as a factor. Slices of 0.5 and 7 mm, or 30 and 450 slices, are usual in
one dataset."""

MAX_VOXELS = 2**32
"""Voxels of a deviating case at the spacing of the others, at most: 17 GB for each channel. No scanner makes more."""

CT_OFFSET = 500.0
"""Gap in the values of CT, HU. The usual mistake, a missing or doubled rescale intercept, shifts by 1000 or 1024; the
median of one structure varies by less than 300."""

BRIGHT, FOREGROUND = 2, 3
"""Places of the 95 % quantile and of the median of the foreground in the values of CT."""

RARE_ORIENTATION = 0.25
"""Share of the cases, at most, whose orientation is called unusual."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Cases that differ from the others in one property.

    Attributes:
        keys: keys of the cases.
        message: how they differ.
        remedy: what to look at.
        impossible: whether the cases cannot be used beside the others.
    """

    keys: tuple[str, ...]
    message: str
    remedy: str
    impossible: bool = False


def find_deviations(measures: Mapping[str, CaseMeasures]) -> list[Deviation]:
    """Compare the cases with each other; the keys of ``measures`` are those of the results."""
    if len(measures) < MIN_CASES:
        return []
    return [*_spacings(measures), *_sizes(measures), *_offsets(measures), *_orientations(measures)]


def _spacings(measures: Mapping[str, CaseMeasures]) -> list[Deviation]:
    spacings = {key: m.spacing for key, m in measures.items()}
    found = []
    for keys, axis in _gaps_of_axes(spacings):
        usual = _median_of_axes([s for key, s in spacings.items() if key not in keys])
        largest = max(_voxels_at(measures[key], usual) for key in keys)
        too_large = f", at which an image would have {largest:.2g} voxels" if largest > MAX_VOXELS else ""
        found.append(
            Deviation(
                keys=keys,
                message=f"spacing{axis} of {_times(_median_of_axes([spacings[k] for k in keys]))} mm (superior, "
                f"anterior, right), elsewhere {_times(usual)} mm{too_large}",
                remedy="check the spacing and its unit in the headers of these files, which must be mm",
                impossible=largest > MAX_VOXELS,
            )
        )
    return found


def _voxels_at(measures: CaseMeasures, spacing: Triple) -> float:
    return float(
        np.prod([n * own / other for n, own, other in zip(measures.shape, measures.spacing, spacing, strict=True)])
    )


def _sizes(measures: Mapping[str, CaseMeasures]) -> list[Deviation]:
    shapes: dict[str, Triple] = {key: m.shape for key, m in measures.items()}
    return [
        Deviation(
            keys=keys,
            message=f"size{axis} of {_times(_median_of_axes([shapes[k] for k in keys]))} voxels (superior, anterior, "
            f"right), elsewhere {_times(_median_of_axes([s for k, s in shapes.items() if k not in keys]))}",
            remedy="make sure that these files are whole images of the same kind as the others",
        )
        for keys, axis in _gaps_of_axes(shapes)
    ]


def _gaps_of_axes(values: Mapping[str, Triple]) -> list[tuple[tuple[str, ...], str]]:
    """Return the keys beyond each gap in the median of the axes and along each axis, and the name of the axis."""
    logs = {key: np.log(v) for key, v in values.items()}
    medians = {key: float(np.median(v)) for key, v in logs.items()}
    found = [(keys, "") for keys in find_separate(medians, np.log(SCALE_FACTOR))]
    named = {key for keys, _ in found for key in keys}
    for axis, name in enumerate(("superior", "anterior", "right")):
        along = {key: float(v[axis]) for key, v in logs.items() if key not in named}
        found += [(keys, f" along {name}") for keys in find_separate(along, np.log(AXIS_FACTOR))]
    return found


def find_separate(values: Mapping[str, float], gap: float) -> list[tuple[str, ...]]:
    """Split cases at every gap in the sorted values, and return all parts except the largest.

    Of two largest parts, the one nearer to 0 is the reference.

    >>> find_separate({"a": 1.0, "b": 1.5, "c": 9.0}, gap=3.0)
    [('c',)]
    """
    keys = sorted(values, key=lambda key: values[key])
    parts: list[list[str]] = []
    for number, key in enumerate(keys):
        if number == 0 or values[key] - values[keys[number - 1]] >= gap:
            parts.append([])
        parts[-1].append(key)
    parts.sort(key=lambda part: (-len(part), abs(median(values[key] for key in part))))
    members = [frozenset(part) for part in parts[1:]]
    return [tuple(key for key in values if key in part) for part in members]


def _offsets(measures: Mapping[str, CaseMeasures]) -> list[Deviation]:
    """Find cases whose CT values are shifted."""
    ct = {key: np.array(m.ct) for key, m in measures.items() if m.ct is not None and np.isfinite(m.ct[:3]).all()}
    levels = {key: float(values[FOREGROUND]) for key, values in ct.items() if np.isfinite(values[FOREGROUND])}
    if len(levels) < MIN_CASES:
        levels = {key: float(values[BRIGHT]) for key, values in ct.items()}
        ct = {key: values[:FOREGROUND] for key, values in ct.items()}
    separate = {key for keys in find_separate(levels, CT_OFFSET) for key in keys}
    if not separate:
        return []
    usual = np.median([ct[key] for key in levels if key not in separate], axis=0)
    shifts = {key: _shift(values - usual) for key, values in ct.items()}
    return [
        Deviation(
            keys=keys,
            message=f"CT values about {abs(shift):.0f} HU {'above' if shift > 0 else 'below'} those of the other cases",
            remedy="check the rescale intercept with which these images were exported: CT values are Hounsfield units "
            "(air -1000, water 0)",
        )
        for sign in (1, -1)
        if (keys := tuple(key for key, shift in shifts.items() if sign * shift >= CT_OFFSET))
        for shift in [median(shifts[key] for key in keys)]
    ]


def _shift(shifts: NDArray[np.float64]) -> float:
    """Return the smallest shift of the quantiles, 0 if they moved in different directions.

    The foreground and the bright voxels are compared. Without foreground, all quantiles are: any one of them depends on
    how much air and padding an image contains.
    """
    has_foreground = len(shifts) > FOREGROUND and np.isfinite(shifts[FOREGROUND])
    compared = shifts[BRIGHT:] if has_foreground else shifts[:FOREGROUND]
    if (np.sign(compared) != np.sign(compared[0])).any():
        return 0.0
    return float(compared[np.abs(compared).argmin()])


def _orientations(measures: Mapping[str, CaseMeasures]) -> list[Deviation]:
    counts = Counter(m.orientation for m in measures.values())
    usual, n_usual = counts.most_common(1)[0]
    if n_usual < (1 - RARE_ORIENTATION) * len(measures):
        return []
    return [
        Deviation(
            keys=tuple(key for key, m in measures.items() if m.orientation == letters),
            message=f"axes stored as {letters}, elsewhere as {usual}",
            remedy="make sure that the headers of these files are right: a wrong one mirrors or turns the body",
        )
        for letters in counts
        if letters != usual
    ]


def _median_of_axes(values: Sequence[Triple]) -> Triple:
    z, y, x = (median(v[axis] for v in values) for axis in range(3))
    return (z, y, x)


def _times(values: Triple) -> str:
    return " × ".join(f"{v:.4g}" for v in values)
