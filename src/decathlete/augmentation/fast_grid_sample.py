"""Fast resampling of volumes on a CPU, as 2D images: torch vectorises ``grid_sample`` in 2D, but not in 3D.

A volume is folded to one image, its planes one below the other; a voxel between two planes is read from that image
twice, one plane apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from decathlete.augmentation.transforms import Matrix

CHUNK_VOXELS = 2**17
"""Voxels resampled together: so few that their coordinates stay in the cache."""


def resample_in_plane(
    image_CZYX: Tensor, label_ZYX: Tensor, affine_DE: Matrix, patch_size: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Resample a volume whose planes stay planes: with one grid for all of them, as if they were channels.

    Args:
        affine_DE: as for :func:`resample_volume`; :func:`is_in_plane` holds for it.
    """
    n_planes, rows, columns = patch_size
    planes = affine_DE[0, 0] * (torch.arange(n_planes) - (n_planes - 1) / 2) + affine_DE[0, 3]
    index = planes.round().long().clamp_(0, label_ZYX.shape[0] - 1)
    grid = torch.empty((1, rows, columns, 2))
    for source_axis, n_source in ((1, label_ZYX.shape[1]), (2, label_ZYX.shape[2])):
        _, *terms = _terms(affine_DE[source_axis], patch_size)
        at_YX = terms[0][:, None] + terms[1] + affine_DE[source_axis, 3]
        torch.sub(at_YX * (2 / max(n_source - 1, 1)), 1, out=grid[0, ..., 2 - source_axis])
    images = image_CZYX[:, index].reshape(1, -1, *image_CZYX.shape[2:])
    labels = label_ZYX[index][None].float()
    image = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)
    label = F.grid_sample(labels, grid, mode="nearest", padding_mode="border", align_corners=True)
    return image.view(-1, *patch_size), label[0].to(label_ZYX.dtype)


def is_in_plane(affine_DE: Matrix) -> bool:
    """Return whether each plane of the patch is one plane of the source, possibly in reverse order."""
    alone = not (affine_DE[0, 1:3].any() or affine_DE[1:, 0].any())
    return alone and abs(affine_DE[0, 0]) == 1


def resample_volume(
    image_CZYX: Tensor,
    label_ZYX: Tensor,
    affine_DE: Matrix,
    patch_size: tuple[int, ...],
    shift_DZYX: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Resample a volume of 2 planes or more at the voxels of a patch: image linearly, label by the nearest voxel.

    Row numbers of the folded image go up to planes times rows, so float32 coordinates along the rows are rounded: by up
    to 1.5e-3 voxels in a volume of 128 planes of 128 rows.

    Args:
        affine_DE: from an offset to the patch's centre (last column for 1) to a voxel of the source; both in voxels.
        shift_DZYX: added to the source coordinates of each voxel of the patch, voxels; ``None``: nothing.

    Returns:
        image [channel, *patch_size], label [*patch_size].
    """
    n_planes, rows, columns = label_ZYX.shape
    image = image_CZYX.new_empty((len(image_CZYX), *patch_size))
    label = label_ZYX.new_empty(patch_size)
    folded_label = label_ZYX.float().view(1, 1, -1, columns)
    # Channels of one image: a plane, and the one after it, as views of the volume itself.
    two_planes = [
        volume.as_strided((1, 2, (n_planes - 1) * rows, columns), (0, rows * columns, columns, 1))
        for volume in image_CZYX
    ]
    for part, at in _chunks(affine_DE, patch_size, (n_planes, rows, columns), shift_DZYX):
        size = at.z.shape
        nearest = at.grid(at.z.round(), rows=rows, height=n_planes * rows)
        label[part] = F.grid_sample(
            folded_label, nearest, mode="nearest", padding_mode="border", align_corners=True
        ).view(size)
        below = at.z.floor().clamp_(max=n_planes - 2)
        grid = at.grid(below, rows=rows, height=(n_planes - 1) * rows)
        share = at.z.sub_(below)
        for source, target in zip(two_planes, image, strict=True):
            pair = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=True)
            torch.lerp(pair[0, 0].view(size), pair[0, 1].view(size), share, out=target[part])
    return image, label


class _SourceCoordinates(NamedTuple):
    """Source coordinates of voxels of a patch: plane and row in voxels, inside the source; the column from -1 to 1."""

    z: Tensor
    y: Tensor
    grid_x: Tensor

    def grid(self, plane: Tensor, *, rows: int, height: int) -> Tensor:
        """Return the grid for ``grid_sample`` of the folded volume: the same row and column, of ``plane``."""
        depth, height_out, width = self.z.shape
        grid = torch.empty((depth, height_out, width, 2))
        grid[..., 0] = self.grid_x
        torch.add(self.y, plane, alpha=rows, out=grid[..., 1]).mul_(2 / max(height - 1, 1)).sub_(1)
        return grid.view(1, depth * height_out, width, 2)


def _chunks(
    affine_DE: Matrix, patch_size: tuple[int, ...], source_size: tuple[int, ...], shift_DZYX: Tensor | None
) -> Iterator[tuple[slice, _SourceCoordinates]]:
    """Yield runs of the patch's planes, with the source coordinates of their voxels."""
    terms = [_terms(row, patch_size) for row in affine_DE]
    in_plane = [y[:, None] + x for _, y, x in terms]
    along = [z + row[3] for (z, _, _), row in zip(terms, affine_DE, strict=True)]
    scale = 2 / max(source_size[2] - 1, 1)
    in_plane[2], along[2] = in_plane[2] * scale, along[2] * scale - 1
    step = max(1, CHUNK_VOXELS // (patch_size[1] * patch_size[2]))
    for first in range(0, patch_size[0], step):
        part = slice(first, first + step)
        z, y, grid_x = (along[k][part, None, None] + in_plane[k] for k in range(3))
        if shift_DZYX is not None:
            z += shift_DZYX[0, part]
            y += shift_DZYX[1, part]
            grid_x += shift_DZYX[2, part] * scale
        yield part, _SourceCoordinates(z.clamp_(0, source_size[0] - 1), y.clamp_(0, source_size[1] - 1), grid_x)


def _terms(row_E: Matrix, patch_size: tuple[int, ...]) -> list[Tensor]:
    """Return what each axis of the patch adds to one coordinate of the source."""
    return [
        float(factor) * (torch.arange(n, dtype=torch.float32) - (n - 1) / 2)
        for factor, n in zip(row_E, patch_size, strict=False)
    ]
