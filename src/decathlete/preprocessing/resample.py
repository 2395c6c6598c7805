"""Volumes change grid: images by B-splines, label maps class by class, logits linearly.

An image takes matrix products per axis (see :mod:`decathlete.preprocessing.interpolation`), on whatever device it
is. On anisotropic data one axis is *separated*: the nearest voxel is taken along it, since a spline through slices
5 mm apart would invent structure between them (Isensee et al., *nnU-Net*, Nature Methods 2021, supplement).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from decathlete.core.geometry import Shape, Triple
from decathlete.planning.plan import Resampling
from decathlete.preprocessing.interpolation import Taps, cubic

_ROUNDING = 1e-5
"""Relative; spacings are computed from the affine of a file, which is in single precision."""


def resampled_shape(shape: Shape, spacing: Triple, target: Triple) -> Shape:
    """Return the shape that covers the same extent at the target spacing, at least one voxel per axis."""
    z, y, x = (max(1, round(n * (s / t))) for n, s, t in zip(shape, spacing, target, strict=True))
    return (z, y, x)


def separated_axis(resampling: Resampling, spacing: Triple, target: Triple) -> int | None:
    """Return the axis to resample by nearest neighbour, if any: the coarsest before or else after resampling.

    None where two axes are equally coarse: then neither is "the" slice axis. nnU-Net does the same.

    Args:
        spacing: of the grid that is left, mm.
        target: of the grid that is made.
    """
    if resampling.separate_axis == "never":
        return None
    if resampling.separate_axis == "always":
        return _coarsest(spacing)
    for candidate in (spacing, target):
        if max(candidate) / min(candidate) > resampling.separate_ratio * (1 + _ROUNDING):
            return _coarsest(candidate)
    return None


def _coarsest(spacing: Triple) -> int | None:
    """Return the axis of the greatest spacing, if there is only one."""
    found = [axis for axis in range(3) if spacing[axis] > max(spacing) * (1 - _ROUNDING)]
    return found[0] if len(found) == 1 else None


def resample_image(image_CZYX: Tensor, shape: Shape, *, order: int, separate_axis: int | None = None) -> Tensor:
    """Resample an image to ``shape``, each channel clamped to its own range before.

    With a separated axis it is each slice across it that keeps its range, since slices are resampled one by one.

    Args:
        image_CZYX: float32, on any device; returned itself where its shape is ``shape`` already.
        order: of the B-spline: 0 (nearest), 1 (linear) or 3 (cubic).
        separate_axis: spatial axis (0, 1, 2) along which the nearest voxel is taken, if any.
    """
    before = image_CZYX.shape[1:]
    changed = [axis for axis in range(3) if before[axis] != shape[axis]]
    if not changed:
        return image_CZYX
    out = image_CZYX
    for axis in sorted(changed, key=lambda axis: shape[axis] / before[axis]):  # shrink first: the rest is cheaper
        out = _along(out, axis, shape[axis], 0 if axis == separate_axis else order)
    within = [axis + 1 for axis in range(3) if axis != separate_axis]
    low, high = (f(image_CZYX, dim=within, keepdim=True) for f in (torch.amin, torch.amax))
    if separate_axis is not None:
        nearest = Taps.nearest(before[separate_axis], shape[separate_axis])
        low, high = nearest(low, separate_axis + 1), nearest(high, separate_axis + 1)
    return torch.clamp(out, low, high, out=out)


def _along(image_CZYX: Tensor, axis: int, size: int, order: int) -> Tensor:
    if order == 3:
        return cubic(image_CZYX, size, axis + 1)
    n = image_CZYX.shape[axis + 1]
    return (Taps.linear if order == 1 else Taps.nearest)(n, size)(image_CZYX, axis + 1)


def linear_taps(before: Shape, shape: Shape, separate_axis: int | None) -> tuple[Taps, Taps, Taps]:
    """Linear along each axis, nearest along the separated one."""
    z, y, x = (
        (Taps.nearest if axis == separate_axis else Taps.linear)(n, m)
        for axis, (n, m) in enumerate(zip(before, shape, strict=True))
    )
    return (z, y, x)


def resample_logits(logits_KZYX: Tensor, shape: Shape, *, separate_axis: int | None = None) -> Tensor:
    """Resample logits to ``shape``, in float32: linear, nearest along ``separate_axis``."""
    taps = linear_taps(_shape(logits_KZYX[0]), shape, separate_axis)
    logits_KZYX = logits_KZYX.float()
    if logits_KZYX.shape[1] != shape[0]:
        logits_KZYX = taps[0](logits_KZYX, 1)
    return resample_in_plane(logits_KZYX, taps)


def resample_in_plane(logits_KZYX: Tensor, taps: tuple[Taps, Taps, Taps]) -> Tensor:
    """Resample as :func:`resample_logits`, along the last two axes alone, so that planes can be streamed."""
    size = (len(taps[1].low), len(taps[2].low))
    if tuple(logits_KZYX.shape[2:]) == size:
        return logits_KZYX
    if any(logits_KZYX.shape[2 + i] != size[i] and not taps[1 + i].blends for i in range(2)):
        return taps[2](taps[1](logits_KZYX, 2), 3)
    # The same numbers as the taps', in one pass over memory.
    return functional.interpolate(logits_KZYX, size=size, mode="bilinear", align_corners=False)


def resample_label(label_ZYX: Tensor, shape: Shape, n_classes: int, *, separate_axis: int | None = None) -> Tensor:
    """Resample a label map to ``shape``: each class by itself, linear, then the greatest wins (ties: the lower index).

    Args:
        label_ZYX: uint8 class indices; values from ``n_classes`` on (the ignore index) are classes of their own.
            Returned itself where its shape is ``shape`` already.
        separate_axis: spatial axis along which the nearest voxel is taken, if any.
    """
    if tuple(label_ZYX.shape) == tuple(shape):
        return label_ZYX
    taps = linear_taps(_shape(label_ZYX), shape, separate_axis)
    out_ZYX = torch.zeros(shape, dtype=torch.uint8, device=label_ZYX.device)
    best_ZYX = torch.zeros(shape, device=label_ZYX.device)
    background_ZYX = torch.ones(shape, device=label_ZYX.device)  # the share that no other class takes
    present = torch.bincount(label_ZYX.flatten().int(), minlength=n_classes).nonzero().flatten().tolist()
    for value in present:
        if value:
            share_ZYX, box = _share(label_ZYX == value, taps)
            background_ZYX[box] -= share_ZYX
            wins_ZYX = share_ZYX > best_ZYX[box]
            best_ZYX[box] = torch.maximum(share_ZYX, best_ZYX[box])
            out_ZYX[box] = out_ZYX[box].masked_fill(wins_ZYX, value)
    return out_ZYX.masked_fill_(best_ZYX <= background_ZYX, 0)


Slices = tuple[slice, slice, slice]


def _share(mask_ZYX: Tensor, taps: tuple[Taps, Taps, Taps]) -> tuple[Tensor, Slices]:
    """Return a resampled class (0..1) in the box of the output outside which it is 0; and that box."""
    share_ZYX, slices = mask_ZYX, []
    for axis, along in enumerate(taps):
        hit = mask_ZYX.movedim(axis, 0).flatten(1).any(dim=1).nonzero().flatten()
        start = max(int(hit[0]) - 1, 0)
        stop = min(int(hit[-1]) + 2, mask_ZYX.shape[axis])
        out_start, out_stop = along.touching(start, stop)
        share_ZYX = along.part(out_start, out_stop, offset=start)(
            share_ZYX.narrow(axis, start, stop - start).float(), axis
        )
        slices.append(slice(out_start, out_stop))
    return share_ZYX, (slices[0], slices[1], slices[2])


def _shape(volume_ZYX: Tensor) -> Shape:
    z, y, x = volume_ZYX.shape
    return (z, y, x)
