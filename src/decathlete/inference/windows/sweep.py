"""Sliding-window prediction that streams: windows are swept along the first axis, and finished slabs come out.

A slab is finished as soon as no later window touches it. So memory follows one patch's depth, not the volume's:
``n_outputs * patch_z * Y * X`` float32 numbers, however many slices a scan has. Where even that is too much, sums wait
on disk (:mod:`decathlete.inference.windows.tiles`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decathlete.core.choices import Blend, Layout
from decathlete.core.geometry import Shape
from decathlete.inference.engines.torch_engine import Engine, TorchEngine
from decathlete.inference.windows.flips import mean_over_all
from decathlete.inference.windows.grid import WindowGrid
from decathlete.inference.windows.tiles import TiledAccumulator
from decathlete.planning.plan import Plan

CPU_VOXELS = 2**17
"""Of a CPU's batch, about: more at one time are no faster."""
MOST_SMALL = 8
"""Windows of a CPU's batch, at most; slices of an accelerator's, at least."""


class VolumeSweep:
    """One volume under its windows: they are taken from here, and their logits are given back in the same order.

    Use it in a ``with`` block: what waits on disk ends with the block.

    Args:
        image_CZYX: prepared image, float32, working axis order.
        device: where windows and sums lie.
        memory_bytes: that sums of logits may fill, if one window's fit; the others wait in files in ``scratch``
            (``None``: the system's folder for temporary files). ``None``: all are held in memory.
    """

    def __init__(
        self,
        image_CZYX: Tensor | NDArray[np.float32],
        *,
        plan: Plan,
        device: torch.device,
        overlap: float = 0.5,
        blend: Blend = "gaussian",
        memory_bytes: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        image_CZYX = torch.as_tensor(image_CZYX).to(device)
        grid = window_grid(plan, _shape(image_CZYX), overlap=overlap, blend=blend)
        self._dims = plan.dims
        self._padded_CZYX = grid.pad(image_CZYX)
        self._boxes = grid.boxes
        self._depth = grid.padded[0]
        self._sums = TiledAccumulator(grid, plan.labels.n_outputs, device, memory_bytes=memory_bytes, scratch=scratch)
        self._added = 0  # windows
        self._done = 0  # planes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sums.__exit__(kind, problem, trace)

    @property
    def finished(self) -> bool:
        """Whether the logits of all windows were added."""
        return self._added == len(self._boxes)

    def windows(self) -> Iterator[Tensor]:
        """Parts of the image (channel, then the network's axes), in the grid's order; views, not copies."""
        for box in self._boxes:
            window = self._padded_CZYX[(slice(None), *box.slices)]
            yield window.squeeze(1) if self._dims == 2 else window

    def add(self, logits: Tensor) -> Iterator[Tensor]:
        """Take the logits (class, then the network's axes) of the next window; they are used up.

        Yields the slabs (class, z, y, x) that no later window touches; all of them have to be taken.

        Raises:
            OutputError: sums have to wait on a disk that is full.
        """
        self._sums.add(self._boxes[self._added].start, logits.unsqueeze(1) if self._dims == 2 else logits)
        self._added += 1
        done, self._done = self._done, self._depth if self.finished else self._boxes[self._added].start[0]
        if done < self._done:
            yield from self._sums.planes(done, self._done)


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
        batch_size: windows (2D: slices) computed together; ``None``: :func:`default_batch_size`.
        memory_bytes: that sums of logits may fill, if one window's fit; the others wait in files in ``scratch``
            (``None``: the system's folder for temporary files). ``None``: all are held in memory.

    Raises:
        OutputError: sums have to wait on a disk that is full.
    """
    device = engines[0].device
    with VolumeSweep(
        image_CZYX,
        plan=plan,
        device=device,
        overlap=overlap,
        blend=blend,
        memory_bytes=memory_bytes,
        scratch=scratch,
    ) as volume:
        windows = volume.windows()
        while batch := list(islice(windows, batch_size or default_batch_size(plan, device))):
            logits_BK = mean_over_all(engines, torch.stack(batch), mirror_axes)
            for i in range(len(batch)):
                yield from volume.add(logits_BK[i])
            del logits_BK  # or they would stay while the next are computed


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


def default_batch_size(plan: Plan, device: torch.device) -> int:
    """Windows computed together unless asked otherwise.

    On accelerators as many as the model was trained with, at least 8 slices: what fits wherever it could be trained.
    On CPUs more gain nothing once a batch has :data:`CPU_VOXELS`, but torch computes two small windows faster than one
    (``docs/explanation/performance.md``).
    """
    if device.type != "cpu":
        return plan.batch_size if plan.dims == 3 else max(plan.batch_size, MOST_SMALL)
    voxels = prod(plan.patch_size)
    return max(min(CPU_VOXELS // voxels, MOST_SMALL), 2 if voxels <= 2 * CPU_VOXELS else 1)


def _shape(image_CZYX: Tensor) -> Shape:
    _, z, y, x = image_CZYX.shape
    return (z, y, x)
