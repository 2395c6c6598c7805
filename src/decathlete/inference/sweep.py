"""Sliding-window prediction that streams: windows are swept along the first axis, and finished slabs come out.

A slab is finished as soon as no later window touches it. So memory follows one patch's depth, not the volume's:
``n_outputs * patch_z * Y * X`` float32 numbers, however many slices a scan has. Where even that is too much, sums wait
on disk (:mod:`decathlete.inference.tiles`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decathlete.core.choices import Blend, Layout
from decathlete.core.geometry import Shape
from decathlete.inference.engines import Engine, TorchEngine
from decathlete.inference.tiles import TileSums
from decathlete.inference.tta import mean_over_flips
from decathlete.inference.windows import WindowGrid
from decathlete.planning.plan import Plan


@torch.inference_mode()
def sweep(
    engines: Sequence[Engine],
    image_CZYX: Tensor | NDArray[np.float32],
    *,
    plan: Plan,
    overlap: float = 0.5,
    blend: Blend = "gaussian",
    mirror_axes: Sequence[int] = (),
    batch_size: int | None = None,
    memory_bytes: int | None = None,
    scratch: Path | None = None,
) -> Iterator[Tensor]:
    """Yield logits in slabs (class, z, y, x), ascending and contiguous along the first axis, covering the volume.

    At every voxel: the weighted mean over the windows that see it, of the mean over ``engines`` (fold ensemble) and
    flips, all of logits, in float32 and in a fixed order.

    Args:
        engines: networks of one plan, on one device; slabs lie there too.
        image_CZYX: prepared image, float32, working axis order.
        mirror_axes: spatial axes of the network's input to flip along (test-time augmentation); empty: none.
        batch_size: windows (2D: slices) computed together; ``None``: 1 in 3D, the plan's batch size in 2D.
        memory_bytes: that sums of logits may fill, if one window's fit; the others wait in files in ``scratch``
            (``None``: the system's folder for temporary files). ``None``: all are held in memory.

    Raises:
        OutputError: sums have to wait on a disk that is full.
    """
    image_CZYX = torch.as_tensor(image_CZYX).to(engines[0].device)
    grid = window_grid(plan, _shape(image_CZYX), overlap=overlap, blend=blend)
    n_batch = batch_size or default_batch_size(plan)
    done = 0
    with TileSums(grid, plan.labels.n_outputs, image_CZYX.device, memory_bytes=memory_bytes, scratch=scratch) as sums:
        for start, logits_KZYX in _windows(engines, grid.pad(image_CZYX), grid, plan.dims, mirror_axes, n_batch):
            if start[0] > done:
                yield from sums.planes(done, start[0])
                done = start[0]
            sums.add(start, logits_KZYX)
            del logits_KZYX  # or it would stay while the next window is computed
        yield from sums.planes(done, grid.padded[0])


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
    layout: Layout = "auto",
) -> Tensor:
    """Logits (class, z, y, x) of a whole prepared image, float32, on the engine's device.

    ``engine`` may be a network in eval mode: it is then computed where it lies, in ``precision`` and ``layout``.
    """
    if isinstance(engine, nn.Module):
        engine = TorchEngine(engine, precision=precision, layout=layout)
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
        for i, box in enumerate(batch):
            yield box.start, logits[i]
        del logits, windows  # before the next are computed


def mean_over_engines(engines: Sequence[Engine], windows: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """Mean logits of the windows over all engines and flips, in a fixed order."""
    total = mean_over_flips(engines[0], windows, mirror_axes)
    for engine in engines[1:]:
        total = total.add_(mean_over_flips(engine, windows, mirror_axes))
    return total.div_(len(engines)) if len(engines) > 1 else total
