"""Tiles of window sums on disk, for predictions whose sums do not fit into memory."""

from __future__ import annotations

import logging
import tempfile
from contextlib import AbstractContextManager, ExitStack
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decathlete.core.files import temporary_folder, translate_os_error
from decathlete.core.scratch import scratch_folder

Key = tuple[int, int, int]
"""Place of a tile along each axis."""

log = logging.getLogger(__name__)


class DiskSpill:
    """Tiles on disk: raw float32 files in a temporary folder, which is created with the first."""

    def __init__(self, scratch: Path | None) -> None:
        self._scratch = scratch
        self._folder: Path | None = None
        self._cleanup = ExitStack()
        self._keys: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def put(self, key: Key, tile: Tensor) -> None:
        """Write a tile.

        Raises:
            OutputError: the disk is full, or cannot be written.
        """
        with self._translate_error():
            tile.cpu().numpy().tofile(self._path(key))
        self._keys.add(key)

    def pop(self, key: Key, shape: tuple[int, ...]) -> Tensor:
        """Read a tile and remove it."""
        tile = self.read(key, shape, 0, shape[0])
        self.drop(key)
        return tile

    def read(self, key: Key, shape: tuple[int, ...], first: int, last: int) -> Tensor:
        """Read entries ``first`` to ``last`` along a tile's first axis.

        Raises:
            OutputError: the files were removed.
        """
        each = prod(shape[1:])
        with self._translate_error():
            values = np.fromfile(
                self._path(key), np.float32, (last - first) * each, offset=np.float32().nbytes * first * each
            )
            if values.size != (last - first) * each:
                raise OSError("a file is shorter than when it was written")
        return torch.from_numpy(values.reshape(last - first, *shape[1:]))

    def drop(self, key: Key) -> None:
        """Remove a tile, if it is on disk."""
        if key in self._keys:
            self._keys.remove(key)
            self._path(key).unlink()

    def close(self) -> None:
        """Remove all tiles."""
        self._cleanup.close()
        self._folder = None
        self._keys.clear()

    def _translate_error(self) -> AbstractContextManager[None]:
        return translate_os_error(
            "cannot store the sums that a prediction spills to disk",
            where=self._scratch or Path(tempfile.gettempdir()),
            remedy="free space there, choose another output folder, or set a larger --memory",
        )

    def _path(self, key: Key) -> Path:
        if self._folder is None:
            self._folder = self._cleanup.enter_context(self._make_folder())
            log.info("memory is short: sums of this prediction are spilled to %s", self._folder.parent)
        return self._folder / "_".join(map(str, key))

    def _make_folder(self) -> AbstractContextManager[Path]:
        return scratch_folder() if self._scratch is None else temporary_folder(self._scratch)
