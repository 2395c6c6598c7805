"""Sums of window logits, held in tiles, some of which may be spilled to disk.

The borders of all windows cut a volume into tiles, so that every window covers whole tiles. A tile is created by the
first window that covers it and freed when its planes have been yielded. The order of the windows is known beforehand,
so when memory is short, the tiles that are needed last are written to disk. All sums are float32 and in the order of
the windows: spilling changes no bit of them.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from decathlete.core.geometry import Shape
from decathlete.inference.windows.disk_spill import DiskSpill, Key
from decathlete.inference.windows.grid import WindowGrid, importance

CHUNK_BYTES = 128 * 2**20
"""Size of the parts in which planes are yielded, about."""
FLOAT_BYTES = 4
_OWN_PAGES_BYTES = 2**20


class TiledAccumulator:
    """Weighted sums of window logits of one volume.

    Use it in a ``with`` block: its files are removed at the end.

    Args:
        grid: of the windows.
        n_outputs: channels of the logits.
        device: of the sums.
        memory_bytes: for all tiles, if those of one window fit; the others are spilled to disk. ``None``: all stay in
            memory.
        scratch: folder for spilled tiles; ``None``: the system's temporary folder.

    Attributes:
        held_bytes: size of the tiles in memory.
    """

    def __init__(
        self,
        grid: WindowGrid,
        n_outputs: int,
        device: torch.device,
        *,
        memory_bytes: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.grid = grid
        self._n_outputs, self._device = n_outputs, device
        self._axes = tuple(
            _TiledAxis(size, patch, starts)
            for size, patch, starts in zip(grid.padded, grid.patch, grid.starts, strict=True)
        )
        self._importance_ZYX = importance(grid.patch, grid.blend).to(device)
        self._sum_z, self._sum_y, self._sum_x = (s.to(device) for s in grid.weight_sums())
        self._tiles_ZKYX: dict[Key, Tensor] = {}  # planes first, so that some planes of a tile are one piece of a file
        self._spill = DiskSpill(scratch)
        self._memory_bytes = memory_bytes
        self.held_bytes = 0
        self._n_added = 0  # windows
        self._windows: dict[Key, list[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spill.close()

    @torch.inference_mode()
    def add(self, start: Shape, logits_KZYX: Tensor) -> None:
        """Add the window that begins at ``start``, in the grid's order; ``logits_KZYX`` is overwritten.

        Raises:
            OutputError: the disk is full.
        """
        logits_KZYX = logits_KZYX.contiguous().mul_(self._importance_ZYX)
        z, y, x = (axis.tiles_of_window(first) for axis, first in zip(self._axes, start, strict=True))
        keys = list(product(z, y, x))
        self._n_added += 1
        for key in keys:
            part_ZKYX = logits_KZYX[(slice(None), *self._slices(key, start))].transpose(0, 1)
            if self._exists(key):
                self._load(key, keys).add_(part_ZKYX)
            else:
                self._make_room(part_ZKYX.numel() * FLOAT_BYTES, keys)
                # Always a copy: a view would keep the whole window in memory, which is not counted.
                self._tiles_ZKYX[key] = _empty(part_ZKYX.shape, self._device).copy_(part_ZKYX)
                self.held_bytes += part_ZKYX.numel() * FLOAT_BYTES

    @torch.inference_mode()
    def planes(self, first: int, last: int) -> Iterator[Tensor]:
        """Yield the mean logits (class, z, y, x) of planes ``first`` to ``last`` of the padded volume, in parts.

        No later window may touch these planes, and they are freed. Padding is removed; parts of padding only are not
        yielded.
        """
        for place in self._axes[0].between(first, last):
            low, high = self._axes[0].bounds(place)
            each = max(1, CHUNK_BYTES // (self._n_outputs * prod(self.grid.padded[1:]) * FLOAT_BYTES))
            for start in range(low, high, each):
                mean_KZYX = self._without_padding(self._mean(place, start, min(start + each, high)), start)
                if mean_KZYX.shape[1]:
                    yield mean_KZYX
            self._free(place)

    def _mean(self, place: int, first: int, last: int) -> Tensor:
        """Return the mean logits of some planes within one row of tiles."""
        low, _ = self._axes[0].bounds(place)
        mean_KZYX = torch.empty((self._n_outputs, last - first, *self.grid.padded[1:]), device=self._device)
        for y, x in product(range(len(self._axes[1])), range(len(self._axes[2]))):
            _, rows, columns = self._slices((place, y, x), (0, 0, 0))
            mean_KZYX[:, :, rows, columns] = self._some_planes((place, y, x), first - low, last - low).transpose(0, 1)
        weights_ZYX = self._sum_z[first:last, None, None] * (self._sum_y[:, None] * self._sum_x)
        return mean_KZYX.div_(weights_ZYX)

    def _without_padding(self, mean_KZYX: Tensor, start: int) -> Tensor:
        (z, _), (y, _), (x, _) = self.grid.padding
        depth, height, width = self.grid.shape
        first, last = max(z - start, 0), max(z + depth - start, 0)
        return mean_KZYX[:, first:last, y : y + height, x : x + width]

    def _slices(self, key: Key, start: Shape) -> tuple[slice, slice, slice]:
        """Return the voxels of a tile, counted from ``start``."""
        z, y, x = (
            slice(axis.bounds(place)[0] - first, axis.bounds(place)[1] - first)
            for axis, place, first in zip(self._axes, key, start, strict=True)
        )
        return (z, y, x)

    def _shape_ZKYX(self, key: Key) -> tuple[int, ...]:
        depth, height, width = (s.stop - s.start for s in self._slices(key, (0, 0, 0)))
        return (depth, self._n_outputs, height, width)

    def _exists(self, key: Key) -> bool:
        return key in self._tiles_ZKYX or key in self._spill

    def _load(self, key: Key, keep: list[Key]) -> Tensor:
        """Return a tile in memory; read it from disk if it was spilled."""
        if key not in self._tiles_ZKYX:
            shape = self._shape_ZKYX(key)
            self._make_room(prod(shape) * FLOAT_BYTES, keep)
            self._tiles_ZKYX[key] = _empty(shape, self._device).copy_(self._spill.pop(key, shape))
            self.held_bytes += prod(shape) * FLOAT_BYTES
        return self._tiles_ZKYX[key]

    def _some_planes(self, key: Key, first: int, last: int) -> Tensor:
        if key in self._tiles_ZKYX:
            return self._tiles_ZKYX[key][first:last]
        return self._spill.read(key, self._shape_ZKYX(key), first, last).to(self._device)

    def _free(self, place: int) -> None:
        for y, x in product(range(len(self._axes[1])), range(len(self._axes[2]))):
            tile_ZKYX = self._tiles_ZKYX.pop((place, y, x), None)
            if tile_ZKYX is not None:
                self.held_bytes -= tile_ZKYX.numel() * FLOAT_BYTES
            self._spill.drop((place, y, x))
            self._windows.pop((place, y, x), None)

    def _make_room(self, needed_bytes: int, keep: list[Key]) -> None:
        """Spill tiles, those that are needed last first, until ``needed_bytes`` fit; never those in ``keep``."""
        if self._memory_bytes is None or self.held_bytes + needed_bytes <= self._memory_bytes:
            return
        for key in sorted(self._tiles_ZKYX.keys() - set(keep), key=self._next_use, reverse=True):
            tile_ZKYX = self._tiles_ZKYX.pop(key)
            self.held_bytes -= tile_ZKYX.numel() * FLOAT_BYTES
            self._spill.put(key, tile_ZKYX)
            if self.held_bytes + needed_bytes <= self._memory_bytes:
                return

    def _next_use(self, key: Key) -> int:
        """Return the number of the next window that covers a tile, or of the first after its planes are yielded."""
        windows = self._windows_over(key)
        later = bisect_right(windows, self._n_added - 1)
        if later < len(windows):
            return windows[later]
        n_y, n_x = (len(axis.starts) for axis in self._axes[1:])
        return (self._axes[0].windows_over(key[0])[-1] + 1) * n_y * n_x

    def _windows_over(self, key: Key) -> list[int]:
        """Return the numbers of the windows that cover a tile, in order; kept, since every spill asks for all tiles."""
        if key not in self._windows:
            covering = [axis.windows_over(place) for axis, place in zip(self._axes, key, strict=True)]
            n_y, n_x = (len(axis.starts) for axis in self._axes[1:])
            self._windows[key] = [(z * n_y + y) * n_x + x for z, y, x in product(*covering)]
        return self._windows[key]


def _empty(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return a tile without values; a large one on a CPU in memory pages of its own.

    Tiles have many sizes and are freed in another order than they are created: an allocator would keep much of the
    memory that they leave, but pages are returned to the system.
    """
    n_bytes = prod(shape) * FLOAT_BYTES
    if device.type != "cpu" or n_bytes < _OWN_PAGES_BYTES:
        return torch.empty(tuple(shape), device=device)
    return torch.frombuffer(mmap.mmap(-1, n_bytes), dtype=torch.float32).view(tuple(shape))


class _TiledAxis:
    """One axis, cut at the first and last voxels of all windows."""

    def __init__(self, size: int, patch: int, starts: tuple[int, ...]) -> None:
        self.starts, self._patch = starts, patch
        cuts = sorted({0, size, *starts, *(start + patch for start in starts)})
        self._bounds = list(pairwise(cuts))
        self._firsts = cuts[:-1]

    def __len__(self) -> int:
        return len(self._bounds)

    def bounds(self, place: int) -> tuple[int, int]:
        """Return the first voxel of a tile, and the first after it."""
        return self._bounds[place]

    def between(self, first: int, last: int) -> range:
        """Return the tiles from voxel ``first`` up to voxel ``last``, both borders of tiles."""
        return range(bisect_right(self._firsts, first) - 1, bisect_right(self._firsts, last - 1))

    def tiles_of_window(self, start: int) -> range:
        """Return the tiles of the window that begins at ``start``."""
        return self.between(start, start + self._patch)

    def windows_over(self, place: int) -> range:
        """Return the numbers of the windows along this axis that cover a tile."""
        low, high = self._bounds[place]
        covering = [i for i, start in enumerate(self.starts) if start <= low and high <= start + self._patch]
        return range(covering[0], covering[-1] + 1)
