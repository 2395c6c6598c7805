"""A batch as it was read: patches before augmentation, and the spatial parameters of each sample.

Letters: B samples, P plain samples (without a matrix), W warped samples (with one; cut at their own size, padded to a
common one), C channels. Spatial axes are written ZYX; 2D batches lack Z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from decathlete.augmentation.displacement import Displacement
from decathlete.planning.network_spec import Axes


@dataclass(frozen=True, kw_only=True)
class SpatialParams:
    """The spatial change of one sample.

    Attributes:
        size: voxels to cut around the patch's centre; the patch's own size without a matrix.
        flips: whether each axis is mirrored.
        matrix: from an offset to the patch's centre in the result to the offset in the source, both in voxels,
            mirroring included; ``None``: no interpolation is needed (mirroring alone needs none).
        displacements: added to an offset before the matrix; only with a matrix.
    """

    size: Axes
    flips: tuple[bool, ...]
    matrix: tuple[tuple[float, ...], ...] | None = None
    displacements: tuple[Displacement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RawBatch:
    """The patches of one step before augmentation.

    They are stacked by the reader, so that a batch takes four transfers to the device, whatever its size.

    Attributes:
        step: the global step.
        indices: index of each sample in the *global* batch (over all ranks).
        draws: spatial parameters of each sample, in the order of ``indices``.
        case_ids: the case that each sample was cut from.
        plain_PCZYX, plain_label_PZYX: the samples without a matrix, in order: float32 and uint8.
        warped_WCZYX, warped_label_WZYX: the samples with a matrix; each fills the low corner up to its ``size``.
    """

    step: int
    indices: tuple[int, ...]
    draws: tuple[SpatialParams, ...]
    case_ids: tuple[str, ...]
    plain_PCZYX: Tensor
    plain_label_PZYX: Tensor
    warped_WCZYX: Tensor
    warped_label_WZYX: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def plain(self) -> tuple[int, ...]:
        """Positions in the batch of the samples without a matrix."""
        return tuple(i for i, draw in enumerate(self.draws) if draw.matrix is None)

    @property
    def warped(self) -> tuple[int, ...]:
        """Positions in the batch of the samples with a matrix."""
        return tuple(i for i, draw in enumerate(self.draws) if draw.matrix is not None)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch with its tensors on ``device``."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the batch in pinned memory, from which a GPU copies asynchronously."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            plain_PCZYX=change(self.plain_PCZYX),
            plain_label_PZYX=change(self.plain_label_PZYX),
            warped_WCZYX=change(self.warped_WCZYX),
            warped_label_WZYX=change(self.warped_label_WZYX),
        )


def collate(
    step: int,
    indices: Sequence[int],
    draws: Sequence[SpatialParams],
    case_ids: Sequence[str],
    images_CZYX: Sequence[NDArray[np.float32]],
    labels_ZYX: Sequence[NDArray[np.uint8]],
) -> RawBatch:
    """Stack patches, each of the ``size`` of its spatial parameters, into a batch."""
    plain = [i for i, draw in enumerate(draws) if draw.matrix is None]
    warped = [i for i, draw in enumerate(draws) if draw.matrix is not None]
    n_channels, dims = len(images_CZYX[0]), labels_ZYX[0].ndim
    return RawBatch(
        step=step,
        indices=tuple(indices),
        draws=tuple(draws),
        case_ids=tuple(case_ids),
        plain_PCZYX=_stack([images_CZYX[i] for i in plain], (n_channels,), dims, np.float32),
        plain_label_PZYX=_stack([labels_ZYX[i] for i in plain], (), dims, np.uint8),
        warped_WCZYX=_stack([images_CZYX[i] for i in warped], (n_channels,), dims, np.float32),
        warped_label_WZYX=_stack([labels_ZYX[i] for i in warped], (), dims, np.uint8),
    )


def _stack(
    arrays: Sequence[NDArray[np.float32] | NDArray[np.uint8]], lead: tuple[int, ...], dims: int, dtype: DTypeLike
) -> Tensor:
    """Stack arrays of shape (*lead, ...) with ``dims`` spatial axes of any size, padded with zeros at their ends.

    With NumPy alone: a reader thread that has once run a parallel torch operation keeps OpenMP workers of its own, and
    with more workers than processors OpenMP's threads sleep at every barrier (``docs/explanation/performance.md``).
    """
    size = np.max([a.shape[-dims:] for a in arrays], axis=0).tolist() if arrays else [0] * dims
    stacked = np.zeros((len(arrays), *lead, *size), dtype=dtype)
    for target, array in zip(stacked, arrays, strict=True):
        target[(..., *(slice(n) for n in array.shape[-dims:]))] = array
    return torch.from_numpy(stacked)
