"""Where training patches are cut: a pure function of seed, global step and index in the global batch.

Everything is in working axis order with three axes; a 2D patch is a box one slice thick across the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Box, Shape
from decathlete.core.rng import stream
from decathlete.errors import OptionError
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

    def read_image(self, box: Box) -> NDArray[np.float32]:
        """CZYX in ``box``, which lies inside the volume."""
        ...

    def read_label(self, box: Box) -> NDArray[np.uint8]:
        """ZYX in ``box``, which lies inside the volume."""
        ...


def check_nvol(nvol: int | None, *, dims: int, global_batch: int) -> None:
    """Whether a batch's samples can come from ``nvol`` volumes, equally many each; ``None``: each from its own.

    Raises:
        OptionError: for patches of 3 axes, or where the global batch cannot be divided so.
    """
    if nvol is None:
        return
    if dims == 3:
        raise OptionError("nvol is for 2D models, whose batches are slices", remedy="leave nvol unset")
    if nvol < 1 or global_batch % nvol:
        raise OptionError(
            f"{global_batch} samples per step do not come from {nvol} volumes, equally many each",
            remedy="choose nvol so that it divides the batch size (over all devices)",
        )


@dataclass(frozen=True, kw_only=True)
class PatchSampler:
    """Chooses case and place of each patch.

    Foreground is oversampled as nnU-Net does it: the last samples of the global batch are centred, as far as the
    volume's border allows, on a voxel of the foreground; its class is drawn first, each class of the case alike.

    Attributes:
        patch_size: 2 or 3 numbers, voxels.
        global_batch: samples per step over all ranks.
        oversampling: share of samples forced to show foreground, 0..1.
        nvol: 2D: volumes that a batch's slices come from, equally many each; ``None``: each slice from its own.
    """

    case_ids: tuple[str, ...]
    patch_size: Axes
    global_batch: int
    oversampling: float
    seed: int
    nvol: int | None = None

    def __post_init__(self) -> None:
        if not self.case_ids:
            raise OptionError("there are no cases to train on", remedy="choose a fold with training cases")
        if not 0 <= self.oversampling <= 1:
            raise OptionError(f"oversampling is a share between 0 and 1, not {self.oversampling}")
        check_nvol(self.nvol, dims=len(self.patch_size), global_batch=self.global_batch)

    def case_id(self, step: int, index: int) -> str:
        """The case that sample ``index`` of the global batch is cut from, each alike."""
        volume = index if self.nvol is None else index * self.nvol // self.global_batch
        return self.case_ids[int(stream(self.seed, "case", step, volume).integers(len(self.case_ids)))]

    def start(self, shape: Shape, foreground: Mapping[int, NDArray[np.int64]], step: int, index: int) -> Shape:
        """The first voxel of the patch; negative along axes where the volume is smaller (it is centred there).

        A case without foreground is cut anywhere.
        """
        random = stream(self.seed, "patch", step, index)
        if self._forced(index, random.random()) and foreground:
            classes = sorted(foreground)
            voxels = foreground[classes[int(random.integers(len(classes)))]]
            centre = np.unravel_index(int(voxels[int(random.integers(len(voxels)))]), shape)
            start = [int(c) - p // 2 for c, p in zip(centre, self._box_size, strict=True)]
        else:
            start = [int(random.integers(max(n - p, 0) + 1)) for n, p in zip(shape, self._box_size, strict=True)]
        return _three([_inside(s, n, p) for s, n, p in zip(start, shape, self._box_size, strict=True)])

    def box_start(self, start: Shape, size: Axes) -> Shape:
        """The first voxel of a box of ``size`` (as ``patch_size``) that has one centre with the patch at ``start``."""
        return _three([s - (n - p) // 2 for s, n, p in zip(start, box_size(size), self._box_size, strict=True)])

    @property
    def _box_size(self) -> Shape:
        return box_size(self.patch_size)

    def _forced(self, index: int, uniform: float) -> bool:
        n_free = round(self.global_batch * (1 - self.oversampling))
        if n_free < self.global_batch:
            return index >= n_free
        # A share too small for one sample of each batch: the last one, as often as makes the share.
        return index == self.global_batch - 1 and uniform < self.oversampling * self.global_batch


def box_size(patch_size: Axes) -> Shape:
    """A patch's size with three axes: a 2D patch is one slice."""
    return _three([1, *patch_size][-3:])


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
        start=_three([max(s, 0) for s in start]),
        stop=_three([min(s, n) for s, n in zip(stop, case.shape, strict=True)]),
    )
    image_CZYX, label_ZYX = case.read_image(inside), case.read_label(inside)
    if inside.shape != extent:
        where = tuple(slice(i - s, j - s) for s, i, j in zip(start, inside.start, inside.stop, strict=True))
        image_CZYX, label_ZYX = _amid_zeros(image_CZYX, where, extent), _amid_zeros(label_ZYX, where, extent)
    return (image_CZYX, label_ZYX) if len(size) == 3 else (image_CZYX[:, 0], label_ZYX[0])


def _amid_zeros(array: NDArray[Scalar], where: tuple[slice, ...], size: Shape) -> NDArray[Scalar]:
    """``array`` placed at ``where`` in zeros of ``size`` (``numpy.pad`` takes longer than the reading)."""
    padded = np.zeros((*array.shape[:-3], *size), array.dtype)
    index: tuple[Any, ...] = (..., *where)
    padded[index] = array
    return padded


def _inside(start: int, n: int, patch: int) -> int:
    """Moved so that the patch stays inside the volume, or is centred on it where it is larger."""
    return (n - patch) // 2 if n < patch else min(max(start, 0), n - patch)


def _three(numbers: Sequence[int]) -> Shape:
    z, y, x = numbers
    return (z, y, x)
