"""Resampling of the samples that have a matrix: images linearly, labels by the nearest voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from decathlete.augmentation.batch import SpatialParams
from decathlete.augmentation.device import to_device
from decathlete.augmentation.fast_grid_sample import is_in_plane, resample_in_plane, resample_volume
from decathlete.augmentation.transforms import Matrix
from decathlete.planning.network_spec import Axes


def warp(
    image_WCZYX: Tensor, label_WZYX: Tensor, draws: Sequence[SpatialParams], patch_size: Axes
) -> tuple[Tensor, Tensor]:
    """Resample each sample by its displacements and its matrix: images linearly, labels by the nearest voxel.

    The nearest voxel keeps every class index as it is, ``IGNORE_INDEX`` too.
    """
    device = image_WCZYX.device
    source_size = tuple(label_WZYX.shape[1:])
    if device.type == "cpu" and len(patch_size) == 3 and all(draw.size[0] > 1 for draw in draws):
        return _warp_volumes(image_WCZYX, label_WZYX, draws, patch_size)
    affine_WDE = to_device(grid_affines(draws, source_size), device)
    grid = sampling_grid(affine_WDE, patch_size)
    for sample, draw in enumerate(draws):
        if draw.displacements:
            shift_DZYX = _source_shift(draw, affine_WDE[sample, :, :-1], patch_size)
            grid[sample] += shift_DZYX.flip(0).movedim(0, -1)
    image = F.grid_sample(image_WCZYX, grid, mode="bilinear", padding_mode="border", align_corners=True)
    label = F.grid_sample(label_WZYX[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=True)
    return image, label[:, 0].to(label_WZYX.dtype)


def _warp_volumes(
    image_WCZYX: Tensor, label_WZYX: Tensor, draws: Sequence[SpatialParams], patch_size: Axes
) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for image_CZYX, label_ZYX, draw in zip(image_WCZYX, label_WZYX, draws, strict=True):
        affine_DE = _source_affine(draw)
        box = tuple(slice(n) for n in draw.size)  # without the padding, which would change the rounding
        source = image_CZYX[:, *box].contiguous(), label_ZYX[box].contiguous()
        if draw.displacements:
            matrix_DD = to_device(affine_DE[:, :-1], image_CZYX.device)
            shift_DZYX = _source_shift(draw, matrix_DD, patch_size)
            image, label = resample_volume(*source, affine_DE, patch_size, shift_DZYX)
        else:
            resample = resample_in_plane if is_in_plane(affine_DE) else resample_volume
            image, label = resample(*source, affine_DE, patch_size)
        images.append(image)
        labels.append(label)
    return torch.stack(images), torch.stack(labels)


def _source_shift(draw: SpatialParams, matrix_DD: Tensor, patch_size: Axes) -> Tensor:
    """Return by how much the displacements move the source coordinates of each voxel: [D, *patch_size].

    Args:
        matrix_DD: from an offset in the result to the source coordinates.
    """
    first, *others = [d.at_voxels(patch_size, matrix_DD.device) for d in draw.displacements]
    field_DZYX = sum(others, start=first)
    # Sums of terms, as in :func:`sampling_grid`: autocast would compute a matrix product in half precision.
    columns = [column.reshape(-1, *[1] * len(patch_size)) for column in matrix_DD.unbind(1)]
    return sum((c * d for c, d in zip(columns, field_DZYX, strict=True)), start=torch.zeros_like(field_DZYX))


def _source_affine(draw: SpatialParams) -> Matrix:
    """Return the map from an offset to the patch's centre to a voxel of the draw's box, voxels: [D, D + 1]."""
    return np.column_stack([np.array(draw.matrix), (np.array(draw.size) - 1) / 2])


def grid_affines(draws: Sequence[SpatialParams], source_size: Axes) -> Matrix:
    """Return the maps from an offset to the patch's centre (voxels) to ``grid_sample``'s -1..1 in the source.

    Args:
        source_size: size of the padded array, in whose low corner the box of each sample, ``draw.size``, lies.

    Returns:
        [sample, source axis, patch axes and a last column for 1], in the arrays' order of axes.
    """
    scale = 2 / np.maximum(np.array(source_size) - 1, 1)
    affines = np.stack([_source_affine(draw) * scale[:, None] for draw in draws])
    affines[:, :, -1] -= 1
    return affines


def sampling_grid(affine_WDE: Tensor, patch_size: Axes) -> Tensor:
    """Return the source coordinates of each voxel of the patch, for ``grid_sample``: [sample, *patch_size, x y (z)].

    Sums of broadcast terms rather than ``affine_grid``: autocast would compute its matrix product in half precision,
    which is too coarse for coordinates.
    """
    dims = len(patch_size)
    grid = torch.empty((len(affine_WDE), *patch_size, dims), dtype=affine_WDE.dtype, device=affine_WDE.device)
    for source_axis in range(dims):
        terms = [affine_WDE[:, source_axis, dims].reshape(-1, *[1] * dims)]
        for axis, n in enumerate(patch_size):
            offset = torch.arange(n, device=affine_WDE.device) - (n - 1) / 2
            term = affine_WDE[:, source_axis, axis, None] * offset
            terms.append(term.reshape(-1, *[n if a == axis else 1 for a in range(dims)]))
        # Only the last sum has the size of the patch.
        torch.add(sum(terms[1:-1], start=terms[0]), terms[-1], out=grid[..., dims - 1 - source_axis])
    return grid
