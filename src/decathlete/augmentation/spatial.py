"""All spatial transforms of a batch: one matrix and one resampling for each sample that is drawn.

Offsets are in voxels, from the centre of the patch, as nnU-Net's are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.augmentation.batch import RawBatch, SpatialParams
from decathlete.augmentation.device import put_rows, to_device
from decathlete.augmentation.displacement import Displacement
from decathlete.augmentation.draws import TransformStreams
from decathlete.augmentation.transforms import Matrix, SpatialTransform
from decathlete.augmentation.warp import warp
from decathlete.planning.network_spec import Axes


class SpatialSampler:
    """Draws what happens to each sample in space, from seed, step and index alone.

    Args:
        transforms: by registered name, in order: the matrix of the first is applied last to an offset.
        patch_size: 2 or 3 numbers, voxels.
    """

    def __init__(self, transforms: Mapping[str, SpatialTransform], *, patch_size: Axes, seed: int) -> None:
        self._transforms = transforms
        self._patch_size = patch_size
        self._seed = seed

    def draw(self, step: int, index: int) -> SpatialParams:
        """Draw what happens to sample ``index`` of the global batch in ``step``."""
        matrix: Matrix | None = None
        displacements: list[Displacement] = []
        flips = (False,) * len(self._patch_size)
        streams = TransformStreams(self._seed, step)
        for name, transform in self._transforms.items():
            change = transform.draw(streams.generator(name, index))
            if change is None:
                continue
            if change.matrix is not None:
                matrix = change.matrix if matrix is None else matrix @ change.matrix
            if change.flips is not None:
                flips = tuple(a != b for a, b in zip(flips, change.flips, strict=True))
            if change.displacement is not None:
                displacements.append(change.displacement)
        if matrix is None and not displacements:
            return SpatialParams(size=self._patch_size, flips=flips)
        if matrix is None:
            matrix = np.eye(len(flips))
        size = enclosing_size(matrix, self._patch_size, displacements)
        matrix = matrix @ np.diag([-1.0 if flip else 1.0 for flip in flips])
        return SpatialParams(
            size=size,
            flips=flips,
            matrix=tuple(tuple(float(v) for v in row) for row in matrix),
            displacements=tuple(displacements),
        )


def enclosing_size(matrix: Matrix, patch_size: Axes, displacements: Sequence[Displacement] = ()) -> Axes:
    """Return the smallest box around the patch's centre that holds every voxel the patch is mapped to.

    It differs from the patch by an even number along each axis, so that both have one centre. With displacements, it
    is as large as the greatest ones can need.
    """
    half = (np.array(patch_size) - 1) / 2
    reach = np.abs(matrix) @ sum((d.reach() for d in displacements), start=half)
    # 1e-6 voxels: a rotation by 0 degrees must not read one voxel more because of rounding.
    return tuple(p + 2 * ceil(r - h - 1e-6) for p, r, h in zip(patch_size, reach, half, strict=True))


def apply_spatial(batch: RawBatch, patch_size: Axes) -> tuple[Tensor, Tensor]:
    """Flip and resample all samples of a batch by their spatial parameters.

    Returns:
        image_BCZYX (float32) and label_BZYX (uint8), on the batch's device.
    """
    device = batch.plain_PCZYX.device
    n, n_channels = len(batch), batch.plain_PCZYX.shape[1]
    image_BCZYX = torch.empty((n, n_channels, *patch_size), device=device)
    label_BZYX = torch.empty((n, *patch_size), dtype=torch.uint8, device=device)
    for flips, rows, targets in _group_by_flips(batch):
        axes = [axis - len(patch_size) for axis, flip in enumerate(flips) if flip]
        row = to_device(rows, device)
        put_rows(image_BCZYX, targets, batch.plain_PCZYX.index_select(0, row).flip(axes))
        put_rows(label_BZYX, targets, batch.plain_label_PZYX.index_select(0, row).flip(axes))
    if batch.warped:
        targets = np.array(batch.warped)
        warped_image, warped_label = warp(
            batch.warped_WCZYX, batch.warped_label_WZYX, [batch.draws[i] for i in batch.warped], patch_size
        )
        put_rows(image_BCZYX, targets, warped_image)
        put_rows(label_BZYX, targets, warped_label)
    return image_BCZYX, label_BZYX


def _group_by_flips(batch: RawBatch) -> list[tuple[tuple[bool, ...], NDArray[np.int64], NDArray[np.int64]]]:
    """Group the plain samples by flips (8 groups at most): flips, rows among the plain, positions in the batch."""
    groups: dict[tuple[bool, ...], list[tuple[int, int]]] = {}
    for row, target in enumerate(batch.plain):
        groups.setdefault(batch.draws[target].flips, []).append((row, target))
    return [(flips, *np.array(pairs, dtype=np.int64).T.copy()) for flips, pairs in groups.items()]
