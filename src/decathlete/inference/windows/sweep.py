"""Sliding-window prediction that streams: windows are swept along the first axis, and finished slabs are yielded.

A slab is finished as soon as no later window touches it. So memory follows the depth of one patch, not of the volume:
``n_outputs * patch_z * Y * X`` float32 numbers, however many slices a scan has. Where even that is too much, sums are
spilled to disk (:mod:`decathlete.inference.windows.tiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decathlete.core.choices import Layout
from decathlete.core.geometry import Shape
from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.engines import Engine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.windows.flips import mean_over_flips
from decathlete.inference.windows.grid import WindowGrid
from decathlete.inference.windows.tiles import TiledAccumulator
from decathlete.planning.plan import Plan

CPU_BATCH_VOXELS = 2**17
"""Voxels in a batch on a CPU, about: larger batches are not faster (``docs/explanation/performance.md``)."""
SMALL_BATCH = 8
"""Most windows in a batch on a CPU; least slices in a batch on an accelerator."""

ReportShare = Callable[[float], None]
"""Called with the share of the work that is done, 0..1."""


class VolumeSweep:
    """The windows of one volume and the sums of their logits, which are added in the order of the windows.

    Use it in a ``with`` block: files that hold spilled sums are removed at its end.

    Args:
        image_CZYX: prepared image, float32, working axis order.
        plan: of the networks.
        device: of windows and sums.
        window: overlap and blending.
        sums_bytes: memory for sums of logits, if those of one window fit; the others are written to files in
            ``scratch`` (``None``: the system's temporary folder). ``None``: all are held in memory.
    """

    def __init__(
        self,
        image_CZYX: Tensor | NDArray[np.float32],
        *,
        plan: Plan,
        device: torch.device,
        window: SlidingWindow = SlidingWindow(),
        sums_bytes: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        image_CZYX = torch.as_tensor(image_CZYX).to(device)
        grid = window_grid(_shape(image_CZYX), plan=plan, window=window)
        self._dims = plan.dims
        self._padded_CZYX = grid.pad(image_CZYX)
        self._boxes = grid.boxes
        self._depth = grid.padded[0]
        self._sums = TiledAccumulator(grid, plan.labels.n_outputs, device, memory_bytes=sums_bytes, scratch=scratch)
        self._n_added = 0  # windows
        self._n_finished = 0  # planes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sums.__exit__(kind, problem, trace)

    @property
    def finished(self) -> bool:
        """Whether the logits of all windows were added."""
        return self._n_added == len(self._boxes)

    @property
    def share_finished(self) -> float:
        """Share of the windows whose logits were added, 0..1."""
        return self._n_added / len(self._boxes)

    def windows(self) -> Iterator[Tensor]:
        """Yield the windows (channel, then the network's axes) in the grid's order, as views of the image."""
        for box in self._boxes:
            part = self._padded_CZYX[(slice(None), *box.slices)]
            yield part.squeeze(1) if self._dims == 2 else part

    def add(self, logits: Tensor) -> Iterator[Tensor]:
        """Add the logits (class, then the network's axes) of the next window; they are overwritten.

        Yields the slabs (class, z, y, x) that no later window touches; the caller must consume all of them.

        Raises:
            OutputError: sums are spilled to a disk that is full.
        """
        self._sums.add(self._boxes[self._n_added].start, logits.unsqueeze(1) if self._dims == 2 else logits)
        self._n_added += 1
        first = self._n_finished
        self._n_finished = self._depth if self.finished else self._boxes[self._n_added].start[0]
        if first < self._n_finished:
            yield from self._sums.planes(first, self._n_finished)


@torch.inference_mode()
def sweep(
    engines: Sequence[Engine],
    image_CZYX: Tensor | NDArray[np.float32],
    *,
    plan: Plan,
    window: SlidingWindow = SlidingWindow(),
    mirror_axes: Sequence[int] = (),
    sums_bytes: int | None = None,
    scratch: Path | None = None,
    progress: ReportShare | None = None,
) -> Iterator[Tensor]:
    """Yield logits in slabs (class, z, y, x), ascending and contiguous along the first axis, covering the volume.

    At every voxel: the weighted mean over the windows that contain it, of the mean over ``engines`` (fold ensemble) and
    flips, all of logits, in float32 and in a fixed order.

    Args:
        engines: networks of one plan, on one device; slabs lie on this device, too.
        image_CZYX: prepared image, float32, working axis order.
        window: overlap, blending, flips and batch size.
        mirror_axes: spatial axes of the network's input that training mirrored; with ``window.tta`` windows are flipped
            along them.
        sums_bytes: memory for sums of logits, if those of one window fit; the others are written to files in
            ``scratch`` (``None``: the system's temporary folder). ``None``: all are held in memory.
        progress: called after each batch of windows; what it raises ends the sweep.

    Raises:
        OutputError: sums are spilled to a disk that is full.
    """
    device = engines[0].device
    flip_axes = mirror_axes if window.tta else ()
    batch_size = windows_per_batch(window, plan=plan, device=device)
    with VolumeSweep(
        image_CZYX, plan=plan, device=device, window=window, sums_bytes=sums_bytes, scratch=scratch
    ) as volume:
        windows = volume.windows()
        while batch := list(islice(windows, batch_size)):
            logits_BK = mean_over_flips(engines, torch.stack(batch), flip_axes)
            for i in range(len(batch)):
                yield from volume.add(logits_BK[i])
            del logits_BK  # frees them before the next are computed
            if progress is not None:
                progress(volume.share_finished)


def predict_logits(
    engine: Engine | nn.Module,
    image_CZYX: Tensor | NDArray[np.float32],
    *,
    plan: Plan,
    window: SlidingWindow = SlidingWindow(),
    mirror_axes: Sequence[int] = (),
    precision: str = "auto",
    layout: Layout = "auto",
) -> Tensor:
    """Return the logits (class, z, y, x) of a whole prepared image, float32, on the engine's device.

    Args:
        engine: an engine, or a network in evaluation mode, which torch computes on the device of its parameters.
        image_CZYX, plan, window, mirror_axes: as in :func:`sweep`.
        precision, layout: of a network; see :class:`~decathlete.inference.engines.torch.TorchEngine`.
    """
    if isinstance(engine, nn.Module):
        engine = TorchEngine(engine, precision=precision, layout=layout)
    slabs = sweep([engine], image_CZYX, plan=plan, window=window, mirror_axes=mirror_axes)
    return torch.cat(list(slabs), dim=1)


def window_grid(shape: Shape, *, plan: Plan, window: SlidingWindow = SlidingWindow()) -> WindowGrid:
    """Return the plan's windows over a volume of ``shape``; those of a 2D plan are one slice deep."""
    lead = (1,) * (3 - plan.dims)
    pz, py, px = (*lead, *plan.patch_size)
    return WindowGrid(shape=shape, patch=(pz, py, px), overlap=window.overlap, blend=window.blend)


def windows_per_batch(window: SlidingWindow, *, plan: Plan, device: torch.device) -> int:
    """Return how many windows (2D: slices) are computed together on ``device``.

    Without ``window.batch_size``: on accelerators the batch of the training, at least 8 slices, so that it fits
    wherever the model could be trained. On CPUs about :data:`CPU_BATCH_VOXELS` voxels, but two small windows at least,
    which torch computes faster than one.
    """
    if window.batch_size is not None:
        return window.batch_size
    if device.type != "cpu":
        return plan.batch_size if plan.dims == 3 else max(plan.batch_size, SMALL_BATCH)
    voxels = prod(plan.patch_size)
    return max(min(CPU_BATCH_VOXELS // voxels, SMALL_BATCH), 2 if voxels <= 2 * CPU_BATCH_VOXELS else 1)


def _shape(image_CZYX: Tensor) -> Shape:
    _, z, y, x = image_CZYX.shape
    return (z, y, x)
