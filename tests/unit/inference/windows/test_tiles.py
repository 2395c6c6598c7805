"""Sums in tiles, in memory and on disk, against one array that holds everything."""

import errno
import weakref

import numpy as np
import pytest
import torch

from decathlete.errors import OutputError
from decathlete.inference.windows import tiles
from decathlete.inference.windows.grid import WindowGrid, importance
from decathlete.inference.windows.tiles import TiledAccumulator

K = 3


def windows_of(grid):
    generator = torch.Generator().manual_seed(0)
    return [(box.start, torch.randn((K, *grid.patch), generator=generator)) for box in grid.boxes]


def plain(grid):
    """One float32 array for all sums, windows added in order."""
    total, weight = torch.zeros((K, *grid.padded)), torch.zeros(grid.padded)
    for box, (_, logits) in zip(grid.boxes, windows_of(grid), strict=True):
        total[(slice(None), *box.slices)] += logits * importance(grid.patch, grid.blend)
        weight[box.slices] += importance(grid.patch, grid.blend)
    (z, _), (y, _), (x, _) = grid.padding
    d, h, w = grid.shape
    return (total / weight)[:, z : z + d, y : y + h, x : x + w]


def swept(grid, **options):
    parts, done = [], 0
    with TiledAccumulator(grid, K, torch.device("cpu"), **options) as sums:
        for start, logits in windows_of(grid):
            if start[0] > done:
                parts.extend(sums.planes(done, start[0]))
                done = start[0]
            sums.add(start, logits)
        parts.extend(sums.planes(done, grid.padded[0]))
    return torch.cat(parts, dim=1)


GRIDS = [
    WindowGrid(shape=(41, 20, 17), patch=(16, 8, 8), overlap=0.5),
    WindowGrid(shape=(18, 24, 22), patch=(8, 12, 10), overlap=0.7),
    WindowGrid(shape=(5, 30, 9), patch=(16, 16, 16), overlap=0.5),
    WindowGrid(shape=(9, 20, 33), patch=(1, 16, 16), overlap=0.0),
    WindowGrid(shape=(16, 16, 16), patch=(16, 16, 16), overlap=0.5),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_sums_in_tiles_equal_sums_in_one_array(grid):
    torch.testing.assert_close(swept(grid), plain(grid), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("memory_bytes", [0, 20_000, 60_000])
def test_what_waits_on_disk_changes_no_bit(grid, memory_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "CHUNK_BYTES", 10_000)  # several parts of each tile
    assert torch.equal(swept(grid), swept(grid, memory_bytes=memory_bytes, scratch=tmp_path))
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_memory_is_kept_within_its_bound(tmp_path):
    """What is not in memory is on disk: together they are what a sweep without a bound holds."""
    grid = WindowGrid(shape=(64, 40, 40), patch=(16, 16, 16), overlap=0.5)
    one_window = K * 16**3 * 4
    on_disk, held, done = [], [], 0
    with (
        TiledAccumulator(grid, K, torch.device("cpu"), memory_bytes=2 * one_window, scratch=tmp_path) as bounded,
        TiledAccumulator(grid, K, torch.device("cpu")) as unbounded,
    ):
        for start, logits in windows_of(grid):
            for sums in (bounded, unbounded):
                for _ in sums.planes(done, start[0]) if start[0] > done else ():
                    pass
                sums.add(start, logits.clone())
            done = start[0]
            on_disk.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
            held.append(unbounded.held_bytes)
            assert bounded.held_bytes <= 2 * one_window
            assert bounded.held_bytes + on_disk[-1] == held[-1]
    assert max(on_disk) > 0
    assert max(held) > 4 * one_window


@pytest.mark.parametrize("n_outputs", [1, K])
def test_tiles_hold_their_own_numbers_alone(n_outputs):
    """One output's planes lie together in the window already: a tile of them must not keep the window."""
    grid = WindowGrid(shape=(24, 8, 8), patch=(16, 8, 8), overlap=0.5)
    window = np.ones((n_outputs, *grid.patch), np.float32)
    kept = weakref.ref(window)
    logits = torch.from_numpy(window)
    del window
    with TiledAccumulator(grid, n_outputs, torch.device("cpu")) as sums:
        sums.add((0, 0, 0), logits)
        del logits
        assert kept() is None
        assert sums.held_bytes == 2 * n_outputs * 8**3 * 4


def test_a_full_disk_is_told_with_a_remedy(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full(np.ndarray):
        tofile = full

    monkeypatch.setattr(torch.Tensor, "numpy", lambda self: np.zeros(1).view(Full))
    with pytest.raises(OutputError, match=r"No space left on device[^\n]*\n\s+→ free space there.*--memory"):
        swept(GRIDS[0], memory_bytes=0, scratch=tmp_path)
    assert not list(tmp_path.iterdir())
