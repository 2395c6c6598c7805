"""Probabilities of all classes on the grid of a file: as an array, or on disk where memory is too small for them.

Planes across the first working axis arrive class by class and are written at once, so memory holds one plane of one
class. On disk, classes follow each other as in an uncompressed NIfTI file, so that a reader can map the file and read a
part. Where the planes are across another axis than the file's z, they are first written plane after plane, and
reordered class by class at the end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from math import prod
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import atomic_path, remove, temporary_name, translate_os_error
from decathlete.core.geometry import AxisTransform, Geometry
from decathlete.core.sizes import require_disk_space
from decathlete.errors import ImageError
from decathlete.io.formats.nifti import image_header, stored_bytes

BLOCK_BYTES = 64 * 2**20
"""Bytes that are read, moved and written at a time."""
_REMEDY = (
    "free space there, choose another output folder, or leave out --save-probabilities (and predict with models of "
    "different plans one by one)"
)


class ProbabilityStore(Protocol):
    """Receives the probabilities of one image; voxels that are never written are 0."""

    def put(self, output: int, first: int, planes_ZYX: NDArray[np.float32]) -> None:
        """Write planes of a class or region from plane ``first`` on: working order, the whole cross-section."""

    def discard(self) -> None:
        """Remove everything: the prediction failed."""


MakeStore = Callable[[int, Geometry, AxisTransform], ProbabilityStore]
"""Makes a store for a number of outputs, the grid of the file, and the transform from its axes to the working axes."""


class ProbabilityArray:
    """Probabilities in memory: 4 bytes for each voxel and output.

    Attributes:
        array_KZYX: all probabilities, on the file's grid.
    """

    def __init__(self, n_outputs: int, geometry: Geometry, axes: AxisTransform) -> None:
        self.array_KZYX = np.zeros((n_outputs, *geometry.shape_ZYX), np.float32)
        self._working_KZYX = axes.apply(self.array_KZYX)  # a view

    def put(self, output: int, first: int, planes_ZYX: NDArray[np.float32]) -> None:
        """See :class:`ProbabilityStore`."""
        self._working_KZYX[output, first : first + len(planes_ZYX)] = planes_ZYX

    def discard(self) -> None:
        """Do nothing: the memory is freed with this object."""


class ProbabilityFile:
    """Probabilities on disk, under a temporary name in ``folder`` until :meth:`move_to`.

    Args:
        header: bytes at the start of the file.

    Raises:
        OutputError: the disk is too small, or cannot be written.
    """

    def __init__(
        self, folder: Path, n_outputs: int, geometry: Geometry, axes: AxisTransform, *, header: bytes = b""
    ) -> None:
        self.path = folder / temporary_name("probabilities.nii")
        self._n_outputs, self._shape_ZYX, self._axes = n_outputs, geometry.shape_ZYX, axes
        self._across = axes.permutation[0]
        """The file's axis that planes are across; 0 once they are in order."""
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
        with self._open("w+b") as stream:
            stream.write(header)
            stream.truncate(size)

    @classmethod
    def nifti(cls, folder: Path, n_outputs: int, geometry: Geometry, axes: AxisTransform) -> ProbabilityFile:
        """Make an uncompressed NIfTI image whose channels are the outputs."""
        return cls(folder, n_outputs, geometry, axes, header=image_header(n_outputs, geometry))

    def put(self, output: int, first: int, planes_ZYX: NDArray[np.float32]) -> None:
        """See :class:`ProbabilityStore`.

        Raises:
            OutputError: the disk cannot be written.
        """
        n = len(planes_ZYX)
        place = self._shape_ZYX[self._across] - first - n if self._axes.flips[0] else first
        planes = np.moveaxis(self._axes.invert(planes_ZYX), self._across, 0)
        with self._open() as stream:
            stream.seek(self._place(output) + place * self._plane_bytes)
            stream.write(np.ascontiguousarray(planes, np.float32).data)

    def planes(self, first: int, last: int) -> NDArray[np.float32]:
        """Read all outputs of some planes across the file's z (K, z, y, x), once they are in order.

        Raises:
            OutputError: the file was removed or truncated.
        """
        assert self._across == 0
        out_KZYX = np.empty((self._n_outputs, last - first, *self._shape_ZYX[1:]), np.float32)
        with self._open() as stream:
            for output, planes_ZYX in enumerate(out_KZYX):
                stream.seek(self._place(output) + first * self._plane_bytes)
                _fill(stream, planes_ZYX)
        return out_KZYX

    def put_in_order(self) -> None:
        """Reorder the planes to the file's z, y and x, class by class; needs disk space for one more class.

        Raises:
            OutputError: the disk is full, or cannot be written.
        """
        if self._across == 0:
            return
        with self._open() as stream:
            for output in range(self._n_outputs):
                with tempfile.SpooledTemporaryFile(BLOCK_BYTES, dir=str(self.path.parent)) as ordered:
                    for block_ZYX in self._ordered(stream, output):
                        ordered.write(block_ZYX.data)
                    ordered.seek(0)
                    stream.seek(self._place(output))
                    shutil.copyfileobj(ordered, stream, BLOCK_BYTES)
        self._across = 0

    def _ordered(self, stream: BufferedRandom, output: int) -> Iterator[NDArray[np.float32]]:
        """Yield blocks (z, y, x) of one output in ascending order, from planes across y or x (each of them z first)."""
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
        """Finish the file and move it to ``path``.

        Raises:
            OutputError: it cannot be written there.
        """
        self.put_in_order()
        with atomic_path(path) as partial:
            os.replace(self.path, partial)

    def discard(self) -> None:
        """Remove the file, unless it was moved to its place."""
        remove(self.path)

    @property
    def _plane_bytes(self) -> int:
        return self._each_bytes // self._shape_ZYX[self._across]

    def _place(self, output: int) -> int:
        return self._start + output * self._each_bytes

    @contextmanager
    def _open(self, mode: Literal["w+b", "r+b"] = "r+b") -> Iterator[BufferedRandom]:
        with (
            translate_os_error("cannot store the probabilities of an image", where=self.path.parent, remedy=_REMEDY),
            self.path.open(mode) as stream,
        ):
            yield stream


def is_complete_file(path: Path) -> bool:
    """Return whether an uncompressed NIfTI file exists and is as long as its header says."""
    try:
        return path.stat().st_size == stored_bytes(path)
    except (OSError, ImageError):
        return False


def _fill(stream: BufferedRandom, out: NDArray[np.float32]) -> None:
    """Fill ``out`` with numbers from the stream."""
    if stream.readinto(out.data.cast("B")) != out.nbytes:
        raise OSError("a file is shorter than when it was written")
