"""Image formats: readers and writers of files. Each module is one format, registered by its own name.

A format gives and takes arrays in C, Z, Y, X order with their :class:`~decathlete.core.geometry.Geometry`; conversions
that every format needs (label maps as integers, whole files or none, messages about damage) lie in ``io.images``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.core.registry import ComponentSettings, Registry
from decathlete.io.volumes import Volume


class ImageFormat(ABC):
    """Base of all image formats: reads one image from one file, and may write it.

    A reader may raise any exception for a damaged file: it becomes an ``ImageError`` that names the file. A reader must
    compare the size that a header declares with what the file can hold before it allocates memory
    (:func:`~decathlete.io.limits.check_claim`). Packages that only this format needs are imported when a file is read.

    Attributes:
        title: for people, e.g. ``"NIfTI"``.
        suffixes: lower-case endings of file names, with their dot.
        written_suffixes: those of ``suffixes`` that can be written, the usual one first; empty: read only.
        detached_suffixes: those of ``suffixes`` whose files are headers with their voxels in another file.
        signatures: offset and bytes by which a file of this format is recognised without its name, within the first 352
            bytes; of a gzipped file, of its content.
        reads_folders: whether an image may be a folder of slices; files with ``suffixes`` are then slices.
        keeps_shear: whether a written image keeps axes that are not orthogonal.
        takes_spacing: whether ``read_header`` and ``read_volume`` have the argument ``spacing``. Formats that have no
            spacing at all do not need it: their grid is :meth:`~decathlete.core.geometry.Geometry.pixels`.
        keeps_grid: whether a written image keeps spacing, origin and direction of its axes.
        written_axes: spatial axes of an image that can be written; 2: one slice.
        written_types: NumPy types that can be written, by name.
        is_picture: whether such files beside other images are usually pictures of them, which are then not used.
        prediction_suffix: suffix of predictions, if it is not among ``written_suffixes``.
        reading_settings: names of the settings that change how an image is read. The others change only how it is
            written. No setting changes what ``reads`` and ``files_of`` return, and an image that is written with some
            settings is read back unchanged with the same ones.
    """

    class Settings(ComponentSettings):
        pass

    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    written_suffixes: ClassVar[tuple[str, ...]] = ()
    detached_suffixes: ClassVar[tuple[str, ...]] = ()
    signatures: ClassVar[tuple[tuple[int, bytes], ...]] = ()
    reads_folders: ClassVar[bool] = False
    keeps_shear: ClassVar[bool] = True
    takes_spacing: ClassVar[bool] = False
    keeps_grid: ClassVar[bool] = True
    written_axes: ClassVar[Literal[2, 3]] = 3
    written_types: ClassVar[tuple[str, ...]] = ("uint8", "int16", "uint16", "int32", "uint32", "float32")
    is_picture: ClassVar[bool] = False
    prediction_suffix: ClassVar[str | None] = None
    reading_settings: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: ComponentSettings) -> None:
        self.settings = settings

    def reads(self, path: Path) -> bool:
        """Whether ``path``, which exists, is of this format: by its suffix, unless the content has to be read."""
        return path.is_file() and path.name.lower().endswith(self.suffixes)

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """All files that an image is read from, ``path`` itself first if it is a file.

        A format overrides it whose images are folders, or whose files have parts beside them. It may raise what
        ``read_header`` raises. Call :func:`~decathlete.io.format_lookup.files_of`, which never does.
        """
        return (path,)

    def read_header(self, path: Path) -> tuple[int, Geometry]:
        """Number of channels and the grid, without the voxels where the format allows it."""
        volume = self.read_volume(path)
        return volume.array_CZYX.shape[0], volume.geometry

    @abstractmethod
    def read_volume(self, path: Path, *, as_float32: bool = False) -> Volume:
        """All voxels, any stored scaling applied.

        Args:
            as_float32: a format that can convert while it reads saves memory; the caller converts what is left.
        """

    def read_label_volume(self, path: Path, **spacing: Any) -> Volume:
        """All voxels of a label map. A format whose intensities are not the stored numbers (colours) overrides it.

        Args:
            spacing: the argument ``spacing`` of ``read_volume``, if the format has it.
        """
        return self.read_volume(path, **spacing)

    def holds_integers(self, path: Path) -> bool:
        """Whether the voxels are integers, by the header where the format allows it."""
        return self.read_volume(path).array_CZYX.dtype.kind in "iu"

    def write_volume(self, path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
        """Write all voxels in the array's number type to ``path``, which ends with one of ``written_suffixes``.

        Raises:
            OSError: the file cannot be written.
        """
        raise NotImplementedError


IMAGE_FORMATS: Registry[ImageFormat] = Registry("image format", package=__name__)
