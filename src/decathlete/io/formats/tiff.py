"""TIFF files (tifffile, with imagecodecs for compressed pages): one slice or a stack, plain, of ImageJ, or OME-TIFF."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decathlete.core.documents import read_json
from decathlete.core.extras import import_optional
from decathlete.core.geometry import Geometry, HeaderCodes, Triple
from decathlete.core.registry import ComponentSettings
from decathlete.errors import ImageError
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.headers.picture import is_grey_palette
from decathlete.io.headers.tiff import TiffPage, read_tiff
from decathlete.io.headers.tiff_axes import StackAxes, ome_description, read_axes
from decathlete.io.limits import check_sizes
from decathlete.io.picture_format import lossy_label_error, single_grey, spread_palette
from decathlete.io.spacing import complete_spacing
from decathlete.io.volumes import Volume

_CHANNEL = re.compile(r"_\d{4}$")
_COMPRESSIONS = {"deflate": "zlib", "lzw": "lzw", "uncompressed": None}
"""Setting -> tifffile's name."""


@IMAGE_FORMATS.register("tiff")
class Tiff(ImageFormat):
    """TIFF and OME-TIFF: one slice or a stack of slices, grey, RGB or with a palette, 8 to 32 bits, without alpha.

    The pages of a plain file are slices. ImageJ's description and OME-XML say which pages are slices and which are
    channels, and declare the spacing. A plain file has none, unless a JSON file beside it declares it as nnU-Net's
    layout has it: ``{"spacing": [z, y, x]}`` in ``ID.json`` beside ``ID_0000.tif``.
    """

    class Settings(ComponentSettings):
        compression: Literal["deflate", "lzw", "uncompressed"] = "deflate"
        """Compression of written pages; each keeps every value."""

    title = "TIFF"
    suffixes = (".tif", ".tiff", ".ome.tif", ".ome.tiff")
    written_suffixes = (".tif", ".tiff", ".ome.tif", ".ome.tiff")
    signatures = ((0, b"II*\0"), (0, b"MM\0*"))
    takes_spacing = True
    keeps_grid = False
    is_picture = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.compression = _COMPRESSIONS[settings.compression]

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """The file, and the JSON file with its spacing, if there is one."""
        sidecar = _read_sidecar(path)
        return (path,) if sidecar is None else (path, sidecar[0])

    def read_header(self, path: Path, *, spacing: Triple | None = None) -> tuple[int, Geometry]:
        """Read the directories of the file."""
        pages = read_tiff(path)
        axes = read_axes(path, pages)
        return len(axes.pages_CZ) * _channels(pages[0]), self._geometry(path, pages, axes, spacing)

    def read_volume(
        self,
        path: Path,
        *,
        as_float32: bool = False,  # noqa: ARG002 - stored in one type
        spacing: Triple | None = None,
    ) -> Volume:
        """All slices; colours are red, green and blue."""
        pages, axes, stored_CZYXS = self._read(path)
        if pages[0].kind == "palette":
            stored_CZYXS = spread_palette(stored_CZYXS[..., 0], pages[0].palette)
        return self._volume(path, pages, axes, stored_CZYXS, spacing)

    def read_label_volume(self, path: Path, *, spacing: Triple | None = None, **_: Any) -> Volume:
        """Grey values, or the indices of a palette.

        Raises:
            ImageError: the compression of a page changes values.
        """
        pages, axes, stored_CZYXS = self._read(path)
        if any(page.is_lossy for page in pages):
            raise lossy_label_error(path, "a TIFF with JPEG compression")
        return self._volume(path, pages, axes, single_grey(stored_CZYXS), spacing)

    def holds_integers(self, path: Path) -> bool:
        """Return whether the samples of the first page are integers."""
        return read_tiff(path)[0].sample_kind in "ui"

    def write_volume(self, path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
        """Write slices as pages, by default with deflate; OME-XML declares a spacing in mm and several channels."""
        n_channels, n_slices = array_CZYX.shape[:2]
        is_rgb = n_channels == 3 and n_slices == 1 and array_CZYX.dtype == np.uint8 and geometry.unit == "pixel"
        plain = geometry.unit == "pixel" and (n_channels == 1 or is_rgb) and not path.name.lower().endswith(_OME)
        pages = (
            np.moveaxis(array_CZYX[:, 0], 0, -1) if is_rgb and plain else array_CZYX.reshape(-1, *array_CZYX.shape[2:])
        )
        spacing = None if geometry.unit == "pixel" else geometry.spacing_ZYX
        _tifffile().imwrite(
            path,
            np.ascontiguousarray(pages),
            photometric="rgb" if is_rgb and plain else "minisblack",
            compression=self.compression,
            metadata=None,
            description=None if plain else ome_description(array_CZYX, spacing),
        )

    def _read(self, path: Path) -> tuple[list[TiffPage], StackAxes, NDArray[Any]]:
        """Return the pages, and their samples as stored: (C, Z, Y, X, samples)."""
        pages = read_tiff(path)
        axes = read_axes(path, pages)
        check_sizes(path, (len(axes.pages_CZ), len(axes.pages_CZ[0])))
        with _tifffile().TiffFile(path, _multifile=False) as file:
            stored = [[_samples(file.pages[pages[p].number], pages[p]) for p in row] for row in axes.pages_CZ]
        return pages, axes, np.array(stored)

    def _volume(
        self, path: Path, pages: list[TiffPage], axes: StackAxes, stored_CZYXS: NDArray[Any], spacing: Triple | None
    ) -> Volume:
        """Samples of a pixel become channels, after the pages that are channels."""
        array_CSZYX = np.moveaxis(stored_CZYXS, -1, 1)
        array_CZYX = array_CSZYX.reshape(-1, *array_CSZYX.shape[2:])
        return Volume(array_CZYX=array_CZYX, geometry=self._geometry(path, pages, axes, spacing))

    def _geometry(self, path: Path, pages: list[TiffPage], axes: StackAxes, spacing: Triple | None) -> Geometry:
        n_slices = len(axes.pages_CZ[0])
        shape = (n_slices, pages[0].height, pages[0].width)
        sidecar = None if axes.has_unit else _read_sidecar(path)
        if not axes.has_unit and sidecar is None:
            return Geometry.pixels(shape)
        stored = axes.spacing_ZYX if sidecar is None else sidecar[1]
        known = (1.0, *stored[1:]) if n_slices == 1 and stored[0] is None else stored
        header = HeaderCodes(axes=2 if n_slices == 1 else 3)
        return Geometry.plain(shape, spacing_ZYX=complete_spacing(known, spacing, path)).revised(header=header)


_OME = (".ome.tif", ".ome.tiff")
_LONGEST_FIRST = sorted(Tiff.suffixes, key=len, reverse=True)


def _read_sidecar(path: Path) -> tuple[Path, Triple] | None:
    """Return the JSON file of nnU-Net's layout that has a spacing, and the spacing, mm; ``None``: there is none.

    Raises:
        ImageError: it has a spacing that cannot be used, or it cannot be read.
    """
    stem = path.name[: -len(next(s for s in _LONGEST_FIRST if path.name.lower().endswith(s)))]
    for file in (path.parent / f"{name}.json" for name in (stem, _CHANNEL.sub("", stem))):
        content = read_json(file, error=ImageError) if file.is_file() else None
        if isinstance(content, dict) and "spacing" in content:
            return file, _sidecar_spacing(file, content["spacing"])
    return None


def _sidecar_spacing(file: Path, values: object) -> Triple:
    numbers = [v for v in values if _is_length(v)] if isinstance(values, list) and len(values) == 3 else []
    if len(numbers) == 3:
        return (float(numbers[0]), float(numbers[1]), float(numbers[2]))
    raise ImageError(
        f"has a spacing that is not three numbers above 0: {str(values)[:80]}",
        where=file,
        remedy='write {"spacing": [z, y, x]} in mm, with three numbers, or remove the file',
        code="E-IMAGE-SPACING",
    )


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def _channels(page: TiffPage) -> int:
    if page.kind == "palette":
        return 1 if is_grey_palette(page.palette) else 3
    return page.samples


def _samples(file_page: Any, page: TiffPage) -> NDArray[Any]:
    """Decode a page to (Y, X, samples), where 0 is black."""
    samples: NDArray[Any] = file_page.asarray()
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8)
    if page.white_is_zero:
        samples = (2**page.bits - 1 - samples).astype(samples.dtype)
    if page.samples > 1 and samples.shape[0] == page.samples and samples.shape[1:] == (page.height, page.width):
        samples = np.moveaxis(samples, 0, -1)  # stored plane by plane
    return samples.reshape(page.height, page.width, page.samples)


def _tifffile() -> Any:
    import_optional("imagecodecs", title="imagecodecs", extra="tiff", alternative="convert the images to PNG or NIfTI")
    return import_optional("tifffile", title="tifffile", extra="tiff", alternative="convert the images to PNG or NIfTI")
