"""Rotation, scaling and mirroring of patches: one matrix and one resampling for each sample that is drawn.

Offsets are in voxels, from the centre of the patch, as nnU-Net's are: on an anisotropic grid only the plane is rotated
(see :class:`~decathlete.augmentation.config.Rotation`), so that nothing is sheared.
"""

from __future__ import annotations

from math import ceil, cos, pi, sin

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.augmentation.batch import RawBatch, SpatialParams
from decathlete.augmentation.config import AugmentationConfig, Rotation
from decathlete.augmentation.device import put_rows, to_device
from decathlete.augmentation.fast_grid_sample import Matrix
from decathlete.augmentation.warp import warp
from decathlete.core.rng import stream
from decathlete.planning.network_spec import Axes, Dims


class SpatialSampler:
    """Draws what happens to each sample in space, from seed, step and index alone.

    Args:
        patch_size: 2 or 3 numbers, voxels.
    """

    def __init__(self, config: AugmentationConfig, *, patch_size: Axes, mirror_axes: Axes, seed: int) -> None:
        self._rotation, self._scaling = config.rotation, config.scaling
        self._mirror_chance = config.mirroring.chance
        self._mirror_axes = mirror_axes
        self._patch_size = patch_size
        self._seed = seed
        self.in_plane = rotates_in_plane(config.rotation, patch_size)
        self._max_angle = max_angle(config.rotation, patch_size) * pi / 180

    def draw(self, step: int, index: int) -> SpatialParams:
        """What happens to sample ``index`` of the global batch in ``step``."""
        # A fixed number of draws: switching one transform off leaves the others as they were.
        uniform = stream(self._seed, "spatial", step, index).random(9)
        chance, angles, zoom, mirror = uniform[:2], uniform[2:5], uniform[5], uniform[6:9]
        rotated, scaled = chance[0] < self._rotation.chance, chance[1] < self._scaling.chance
        dims = len(self._patch_size)
        flips = tuple(axis in self._mirror_axes and bool(mirror[axis] < self._mirror_chance) for axis in range(dims))
        if not (rotated or scaled):
            return SpatialParams(size=self._patch_size, flips=flips)
        matrix = np.eye(dims)
        if rotated:
            matrix = self._rotate((2 * angles - 1) * self._max_angle)
        if scaled:
            low, high = self._scaling.between
            matrix = matrix @ np.diag(self._scale(low + (high - low) * zoom))
        size = enclosing_size(matrix, self._patch_size)
        matrix = matrix @ np.diag([-1.0 if flip else 1.0 for flip in flips])
        return SpatialParams(size=size, flips=flips, matrix=tuple(tuple(float(v) for v in row) for row in matrix))

    def _rotate(self, angles: Matrix) -> Matrix:
        if len(self._patch_size) == 2:
            return _plane_rotation(2, (0, 1), angles[0])
        first = _plane_rotation(3, (1, 2), angles[0])
        if self.in_plane:
            return first
        return first @ _plane_rotation(3, (0, 2), angles[1]) @ _plane_rotation(3, (0, 1), angles[2])

    def _scale(self, factor: float) -> list[float]:
        dims = len(self._patch_size)
        return [1.0 if self.in_plane and axis == 0 else factor for axis in range(dims)]


def rotates_in_plane(rotation: Rotation, patch_size: Axes) -> bool:
    """Whether a 3D patch is rotated (and scaled) in the plane of its last two axes alone."""
    if len(patch_size) == 2:
        return False
    return max(patch_size) / patch_size[0] > 3 if rotation.in_plane is None else rotation.in_plane


def max_angle(rotation: Rotation, patch_size: Axes) -> float:
    """The greatest rotation, degrees."""
    if rotation.degrees is not None:
        return rotation.degrees
    if len(patch_size) == 2:
        return 15.0 if max(patch_size) / min(patch_size) > 1.5 else 180.0
    return 180.0 if rotates_in_plane(rotation, patch_size) else 30.0


def _plane_rotation(dims: Dims, plane: tuple[int, int], angle: float) -> Matrix:
    matrix = np.eye(dims)
    a, b = plane
    matrix[a, a] = matrix[b, b] = cos(angle)
    matrix[a, b], matrix[b, a] = -sin(angle), sin(angle)
    return matrix


def enclosing_size(matrix: Matrix, patch_size: Axes) -> Axes:
    """The smallest box around the patch's centre with every voxel that ``matrix`` makes the patch look at.

    It differs from the patch by an even number along each axis, so that both have one centre.
    """
    half = (np.array(patch_size) - 1) / 2
    reach = np.abs(matrix) @ half
    # 1e-6 voxels: a rotation by nothing must not read one more for its rounding.
    return tuple(p + 2 * ceil(r - h - 1e-6) for p, r, h in zip(patch_size, reach, half, strict=True))


def place(batch: RawBatch, patch_size: Axes) -> tuple[Tensor, Tensor]:
    """All samples of a batch as its draws say.

    Returns:
        image_BCZYX (float32) and label_BZYX (uint8), on the batch's device.
    """
    device = batch.plain_PCZYX.device
    n, n_channels = len(batch), batch.plain_PCZYX.shape[1]
    image_BCZYX = torch.empty((n, n_channels, *patch_size), device=device)
    label_BZYX = torch.empty((n, *patch_size), dtype=torch.uint8, device=device)
    for flips, rows, targets in _by_flips(batch):
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


def _by_flips(batch: RawBatch) -> list[tuple[tuple[bool, ...], NDArray[np.int64], NDArray[np.int64]]]:
    """The plain samples grouped by flips (8 groups at most): flips, rows among the plain, places in the batch."""
    groups: dict[tuple[bool, ...], list[tuple[int, int]]] = {}
    for row, target in enumerate(batch.plain):
        groups.setdefault(batch.draws[target].flips, []).append((row, target))
    return [(flips, *np.array(pairs, dtype=np.int64).T.copy()) for flips, pairs in groups.items()]
