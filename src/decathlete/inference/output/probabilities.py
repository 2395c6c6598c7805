"""Probabilities of all classes on the grid of a file: as an array, or on disk where memory would not hold them.

They come plane by plane across the working first axis, class by class, and a plane is written the moment it comes: what
waits in memory is a plane of one class. On disk a class lies after the other, as in an uncompressed NIfTI file, so that
a reader may map the file and take what it needs. Where the planes run across another axis than the file's z, they lie
plane after plane first, and are put in order class by class at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from math import prod
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import TEMPORARY_PREFIX, atomic_path, remove, translate_os_error
from decathlete.core.geometry import AxisTransform, Geometry
from decathlete.core.sizes import require_disk_space
from decathlete.errors import ImageError
from decathlete.io.formats.nifti import image_header, stored_bytes

BLOCK_BYTES = 64 * 2**20
"""Read, moved and written at one time."""
_REMEDY = (
    "free space there, choose another output folder, or leave out --save-probabilities (and predict with models of "
    "different plans one by one)"
)


class ProbabilityStore(Protocol):
    """Takes the probabilities of one image; what never comes is 0."""

    def put(self, output: int, first: int, planes_ZYX: NDArray[np.float32]) -> None:
        """Take planes of a class or region, ``first`` and those after it: working order, the whole cross-section."""

    def discard(self) -> None:
        """Forget all: the prediction failed."""


MakeStore = Callable[[int, Geometry, AxisTransform], ProbabilityStore]
"""From the number of outputs, the grid of the file, and the way from there to the working order."""


class ProbabilityArray:
    """In memory: 4 bytes for each voxel and output.

    Attributes:
        array_KZYX: all of them, on the file's grid.
    """

    def __init__(self, n_outputs: int, geometry: Geometry, axes: AxisTransform) -> None:
        self.array_KZYX = np.zeros((n_outputs, *geometry.shape_ZYX), np.float32)
        self._working_KZYX = axes.apply(self.array_KZYX)  # the same numbers

    def put(self, output: int, first: int, planes_ZYX: NDArray[np.float32]) -> None:
        """See :class:`ProbabilityStore`."""
        self._working_KZYX[output, first : first + len(planes_ZYX)] = planes_ZYX

    def discard(self) -> None:
        """Nothing lies outside of this object."""


class ProbabilityFile:
    """On disk, under a temporary name in ``folder`` until :meth:`move_to`.

    Args:
        header: of the file, before the numbers.

    Raises:
        OutputError: the disk has not the room, or cannot be written.
    """

    def __init__(
        self, folder: Path, n_outputs: int, geometry: Geometry, axes: AxisTransform, *, header: bytes = b""
    ) -> None:
        self.path = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-probabilities.nii"
        self._n_outputs, self._shape_ZYX, self._axes = n_outputs, geometry.shape_ZYX, axes
        self._across = axes.permutation[0]
        """The file's axis that the planes run across; 0 once they are in order."""
        self._start = len(header)
        self._each_bytes = 4 * prod(self._shape_ZYX)
        try:
            self._make(header)
        except BaseException:
            self.discard()
            raise

    def _make(self, header: bytes) -> None:
        size = self._start + self._n_outputs * self._each_bytes
        require_disk_space(self.path.parent, size, needed_for="for the probabilities of this image", remedy=_REMEDY)
        with self._opened("w+b") as stream:
            stream.write(header)
            stream.truncate(size)

    @classmethod
    def nifti(cls, folder: Path, n_outputs: int, geometry: Geometry, axes: AxisTransform) -> ProbabilityFile:
        """An uncompressed NIfTI image with the outputs as its channels."""
        return cls(folder, n_outputs, geometry, axes, header=image_header(n_outputs, geometry))

    def put(self, output: int, first: int, planes_ZYX: NDArray[np.float32]) -> None:
        """See :class:`ProbabilityStore`.

        Raises:
            OutputError: the disk cannot be written.
        """
        n = len(planes_ZYX)
        place = self._shape_ZYX[self._across] - first - n if self._axes.flips[0] else first
        planes = np.moveaxis(self._axes.invert(planes_ZYX), self._across, 0)
        with self._opened() as stream:
            stream.seek(self._place(output) + place * self._plane_bytes)
            stream.write(np.ascontiguousarray(planes, np.float32).data)

    def planes(self, first: int, last: int) -> NDArray[np.float32]:
        """All outputs of some planes across the file's z (K, z, y, x), once they are in order.

        Raises:
            OutputError: the file was taken away or cut.
        """
        assert self._across == 0
        out_KZYX = np.empty((self._n_outputs, last - first, *self._shape_ZYX[1:]), np.float32)
        with self._opened() as stream:
            for output, planes_ZYX in enumerate(out_KZYX):
                stream.seek(self._place(output) + first * self._plane_bytes)
                _fill(stream, planes_ZYX)
        return out_KZYX

    def put_in_order(self) -> None:
        """Let z, y and x of the file follow each other, class by class: it takes the room of one class meanwhile.

        Raises:
            OutputError: the disk is full, or cannot be written.
        """
        if self._across == 0:
            return
        with self._opened() as stream:
            for output in range(self._n_outputs):
                with tempfile.SpooledTemporaryFile(BLOCK_BYTES, dir=str(self.path.parent)) as ordered:
                    for block_ZYX in self._ordered(stream, output):
                        ordered.write(block_ZYX.data)
                    ordered.seek(0)
                    stream.seek(self._place(output))
                    shutil.copyfileobj(ordered, stream, BLOCK_BYTES)
        self._across = 0

    def _ordered(self, stream: BufferedRandom, output: int) -> Iterator[NDArray[np.float32]]:
        """Blocks (z, y, x) of one output in ascending order, from planes across y or x (each of them z first)."""
        depth, height, width = self._shape_ZYX
        size, rest = (height, width) if self._across == 1 else (width, height)
        step = max(1, BLOCK_BYTES // (4 * height * width))
        for first in range(0, depth, step):
            block = np.empty((size, min(step, depth - first), rest), np.float32)
            for place, part in enumerate(block):
                stream.seek(self._place(output) + place * self._plane_bytes + 4 * first * rest)
                _fill(stream, part)
            yield np.ascontiguousarray(np.moveaxis(block, 0, self._across))

    def move_to(self, path: Path) -> None:
        """Finish the file: it appears at ``path``, whole.

        Raises:
            OutputError: it cannot be written there.
        """
        self.put_in_order()
        with atomic_path(path) as partial:
            os.replace(self.path, partial)

    def discard(self) -> None:
        """Remove the file, unless it was moved."""
        remove(self.path)

    @property
    def _plane_bytes(self) -> int:
        return self._each_bytes // self._shape_ZYX[self._across]

    def _place(self, output: int) -> int:
        return self._start + output * self._each_bytes

    @contextmanager
    def _opened(self, mode: Literal["w+b", "r+b"] = "r+b") -> Iterator[BufferedRandom]:
        with (
            translate_os_error("cannot hold the probabilities of an image", where=self.path.parent, remedy=_REMEDY),
            self.path.open(mode) as stream,
        ):
            yield stream


def is_whole(path: Path) -> bool:
    """Whether an uncompressed NIfTI file is there and as long as its header says."""
    try:
        return path.stat().st_size == stored_bytes(path)
    except (OSError, ImageError):
        return False


def _fill(stream: BufferedRandom, out: NDArray[np.float32]) -> None:
    """Read as many numbers as ``out`` holds."""
    if stream.readinto(out.data.cast("B")) != out.nbytes:
        raise OSError("a file is shorter than it was written")
