"""Sliding-window prediction that streams: windows are swept along the first axis, and finished slabs come out.

A slab is finished as soon as no later window touches it. So memory follows one patch's depth, not the volume's:
``n_outputs * patch_z * Y * X`` float32 numbers, however many slices a scan has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decathlete.core.choices import Blend
from decathlete.core.geometry import Shape
from decathlete.inference.engines import Engine, TorchEngine
from decathlete.inference.tta import mean_over_flips
from decathlete.inference.windows import WindowGrid, importance
from decathlete.planning.plan import Plan


def sweep(
    engines: Sequence[Engine],
    image_CZYX: Tensor | NDArray[np.float32],
    *,
    plan: Plan,
    overlap: float = 0.5,
    blend: Blend = "gaussian",
    mirror_axes: Sequence[int] = (),
    batch_size: int | None = None,
) -> Iterator[Tensor]:
    """Yield logits in slabs (class, z, y, x), ascending and contiguous along the first axis, covering the volume.

    At every voxel: the weighted mean over the windows that see it, of the mean over ``engines`` (fold ensemble) and
    flips, all of logits, in float32 and in a fixed order.

    Args:
        engines: networks of one plan, on one device; slabs lie there too.
        image_CZYX: prepared image, float32, working axis order.
        mirror_axes: spatial axes of the network's input to flip along (test-time augmentation); empty: none.
        batch_size: windows (2D: slices) computed together; ``None``: 1 in 3D, the plan's batch size in 2D.
    """
    image_CZYX = torch.as_tensor(image_CZYX).to(engines[0].device)
    grid = window_grid(plan, _shape(image_CZYX), overlap=overlap, blend=blend)
    n_batch = batch_size or default_batch_size(plan)
    buffer = _SlabBuffer(grid, plan.labels.n_outputs, image_CZYX.device)
    for start, logits_KZYX in _windows(engines, grid.pad(image_CZYX), grid, plan.dims, mirror_axes, n_batch):
        slab = buffer.advance(start[0])
        if slab is not None:
            yield slab
        buffer.add(start, logits_KZYX)
    rest = buffer.advance(grid.padded[0])
    if rest is not None:
        yield rest


def predict_logits(
    engine: Engine | nn.Module | Sequence[Engine],
    image_CZYX: Tensor | NDArray[np.float32],
    plan: Plan,
    *,
    overlap: float = 0.5,
    blend: Blend = "gaussian",
    mirror_axes: Sequence[int] = (),
    batch_size: int | None = None,
    precision: str = "auto",
) -> Tensor:
    """Logits (class, z, y, x) of a whole prepared image, float32, on the engine's device.

    ``engine`` may be a network in eval mode: it is then computed where it lies, in ``precision``.
    """
    if isinstance(engine, nn.Module):
        engine = TorchEngine(engine, precision=precision)
    engines = engine if isinstance(engine, Sequence) else (engine,)
    slabs = sweep(
        engines,
        image_CZYX,
        plan=plan,
        overlap=overlap,
        blend=blend,
        mirror_axes=mirror_axes,
        batch_size=batch_size,
    )
    return torch.cat(list(slabs), dim=1)


def window_grid(plan: Plan, shape: Shape, *, overlap: float, blend: Blend) -> WindowGrid:
    """The plan's windows over a volume of ``shape``; a 2D plan's are one slice deep."""
    lead = (1,) * (3 - plan.dims)
    pz, py, px = (*lead, *plan.patch_size)
    return WindowGrid(shape=shape, patch=(pz, py, px), overlap=overlap, blend=blend)


def default_batch_size(plan: Plan) -> int:
    """Windows computed together unless asked otherwise: what fits wherever the model could be trained."""
    return 1 if plan.dims == 3 else max(plan.batch_size, 8)


def _shape(image_CZYX: Tensor) -> Shape:
    _, z, y, x = image_CZYX.shape
    return (z, y, x)


def _windows(
    engines: Sequence[Engine],
    padded_CZYX: Tensor,
    grid: WindowGrid,
    dims: int,
    mirror_axes: Sequence[int],
    batch_size: int,
) -> Iterator[tuple[Shape, Tensor]]:
    """The start and the logits (class, z, y, x) of each window, in the grid's order; batches may span slabs."""
    boxes = grid.boxes
    for first in range(0, len(boxes), batch_size):
        batch = boxes[first : first + batch_size]
        windows = torch.stack([padded_CZYX[(slice(None), *box.slices)] for box in batch])
        if dims == 2:
            windows = windows.squeeze(2)
        logits = mean_over_engines(engines, windows, mirror_axes)
        if dims == 2:
            logits = logits.unsqueeze(2)
        for box, logits_KZYX in zip(batch, logits, strict=True):
            yield box.start, logits_KZYX


def mean_over_engines(engines: Sequence[Engine], windows: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """Mean logits of the windows over all engines and flips, in a fixed order."""
    total = mean_over_flips(engines[0], windows, mirror_axes)
    for engine in engines[1:]:
        total = total + mean_over_flips(engine, windows, mirror_axes)
    return total / len(engines)


class _SlabBuffer:
    """Sums weighted window logits over one patch's depth of the padded volume; hands out what is finished."""

    def __init__(self, grid: WindowGrid, n_outputs: int, device: torch.device) -> None:
        depth = grid.patch[0]
        self.grid = grid
        self.total_KZYX = torch.zeros((n_outputs, depth, *grid.padded[1:]), device=device)
        self.importance_ZYX = importance(grid.patch, grid.blend).to(device)
        sum_z, sum_y, sum_x = (s.to(device) for s in grid.weight_sums())
        self.sum_z = sum_z
        self.sum_YX = sum_y[:, None] * sum_x
        self.base = 0  # the padded volume's slice that the buffer begins at

    def add(self, start: Shape, logits_KZYX: Tensor) -> None:
        """Add a window that begins at ``start``; its first slice is the buffer's first."""
        _, y, x = start
        _, height, width = self.grid.patch
        self.total_KZYX[:, :, y : y + height, x : x + width] += logits_KZYX * self.importance_ZYX

    def advance(self, base: int) -> Tensor | None:
        """Move the buffer to begin at ``base``; the mean logits of the slices left behind, without padding."""
        n = base - self.base
        if n == 0:
            return None
        weights_ZYX = self.sum_z[self.base : base, None, None] * self.sum_YX
        done_KZYX = self._without_padding(self.total_KZYX[:, :n] / weights_ZYX)
        depth = self.total_KZYX.shape[1]
        kept = self.total_KZYX[:, n:].clone()
        self.total_KZYX[:, : depth - n] = kept
        self.total_KZYX[:, depth - n :] = 0
        self.base = base
        return done_KZYX if done_KZYX.shape[1] else None

    def _without_padding(self, done_KZYX: Tensor) -> Tensor:
        (z, _), (y, _), (x, _) = self.grid.padding
        depth, height, width = self.grid.shape
        first, last = max(z - self.base, 0), max(z + depth - self.base, 0)
        return done_KZYX[:, first:last, y : y + height, x : x + width]
