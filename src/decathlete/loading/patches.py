"""Cutting patches out of prepared cases.

Everything is in working axis order with three axes; a 2D patch is a box one slice thick across the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Box, Shape
from decathlete.planning.network_spec import Axes

Scalar = TypeVar("Scalar", bound=np.generic)


class PatchSource(Protocol):
    """A prepared case that is read in parts: a ``StoredCase``, or one held in memory."""

    @property
    def shape(self) -> Shape:
        """Z, Y, X."""
        ...

    @property
    def foreground(self) -> Mapping[int, NDArray[np.int64]]:
        """Class index -> flat places of some of its voxels; absent classes have no entry."""
        ...

    def read_image(self, *, box: Box) -> NDArray[np.float32]:
        """CZYX in ``box``, which lies inside the volume."""
        ...

    def read_label(self, *, box: Box) -> NDArray[np.uint8]:
        """ZYX in ``box``, which lies inside the volume."""
        ...


def box_start(start: Shape, size: Axes, patch_size: Axes) -> Shape:
    """Return the first voxel of a box of ``size`` with the same centre as the patch at ``start``."""
    return three([s - (n - p) // 2 for s, n, p in zip(start, box_size(size), box_size(patch_size), strict=True)])


def box_size(patch_size: Axes) -> Shape:
    """Return a patch's size with three axes: a 2D patch is one slice."""
    return three([1, *patch_size][-3:])


def read_patch(case: PatchSource, start: Shape, size: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a box that may reach beyond the volume.

    Outside, the image is 0 (after normalisation: the mean, or the background) and the label is background, as in
    nnU-Net; ``IGNORE_INDEX`` is not used there, since a network must learn what padding looks like.

    Args:
        start: of the box, three numbers.
        size: of the patch, 2 or 3 numbers.

    Returns:
        image_CZYX and label_ZYX, or image_CYX and label_YX.
    """
    extent = box_size(tuple(size))
    stop = [s + n for s, n in zip(start, extent, strict=True)]
    inside = Box(
        start=three([max(s, 0) for s in start]),
        stop=three([min(s, n) for s, n in zip(stop, case.shape, strict=True)]),
    )
    image_CZYX, label_ZYX = case.read_image(box=inside), case.read_label(box=inside)
    if inside.shape != extent:
        where = tuple(slice(i - s, j - s) for s, i, j in zip(start, inside.start, inside.stop, strict=True))
        image_CZYX, label_ZYX = _pad_with_zeros(image_CZYX, where, extent), _pad_with_zeros(label_ZYX, where, extent)
    return (image_CZYX, label_ZYX) if len(size) == 3 else (image_CZYX[:, 0], label_ZYX[0])


def _pad_with_zeros(array: NDArray[Scalar], where: tuple[slice, ...], size: Shape) -> NDArray[Scalar]:
    """``array`` placed at ``where`` in zeros of ``size`` (``numpy.pad`` takes longer than the reading)."""
    padded = np.zeros((*array.shape[:-3], *size), array.dtype)
    index: tuple[Any, ...] = (..., *where)
    padded[index] = array
    return padded


def keep_inside(start: int, n: int, patch: int) -> int:
    """Move ``start`` so that the patch lies inside the volume, or is centred on it where it is larger."""
    return (n - patch) // 2 if n < patch else min(max(start, 0), n - patch)


def three(numbers: Sequence[int]) -> Shape:
    """Return three numbers as a shape."""
    z, y, x = numbers
    return (z, y, x)
