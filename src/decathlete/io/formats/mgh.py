"""MGH and MGZ files (FreeSurfer): read here after strict checks, written by nibabel."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, Triple
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import OutputError
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.headers.mgh import MAX_FOOTER, VOXELS_AT, MghHeader, is_compressed, read_mgh
from decathlete.io.limits import excess_error
from decathlete.io.spacing import complete_spacing
from decathlete.io.volumes import Volume
from decathlete.io.voxels import read_bytes

nibabel = lazy_import("nibabel")

_REVERSED = [2, 1, 0]
_STORED = {"uint8": np.uint8, "int16": np.int16, "uint16": np.int32, "int32": np.int32, "float32": np.float32}


@IMAGE_FORMATS.register("mgh")
class Mgh(ImageFormat):
    """MGZ (gzipped) and MGH: 3D, or 4D with the channels last."""

    title = "MGZ"
    suffixes = (".mgz", ".mgh")
    written_suffixes = (".mgz", ".mgh")
    written_types = ("uint8", "int16", "int32", "float32")
    takes_spacing = True

    def read_header(self, path: Path, *, spacing: Triple | None = None) -> tuple[int, Geometry]:
        """Read the header alone."""
        header = read_mgh(path)
        return header.shape_IJKC[3], _geometry(header, spacing, path)

    def read_volume(
        self,
        path: Path,
        *,
        as_float32: bool = False,  # noqa: ARG002 - stored in one type
        spacing: Triple | None = None,
    ) -> Volume:
        """All voxels in their own number type; the checksum of a gzipped file is verified, too."""
        header = read_mgh(path)
        with gzip.open(path) if is_compressed(path) else path.open("rb") as stream:
            stream.seek(VOXELS_AT)
            content = read_bytes(stream, header.n_bytes)
            if len(stream.read(MAX_FOOTER + 1)) > MAX_FOOTER:
                raise excess_error(path)
        stored_IJKC = np.frombuffer(content, dtype=header.dtype).reshape(header.shape_IJKC, order="F")
        array_CZYX = stored_IJKC.T.astype(header.dtype.newbyteorder("="))
        return Volume(array_CZYX=array_CZYX, geometry=_geometry(header, spacing, path))

    def holds_integers(self, path: Path) -> bool:
        """Type as stored."""
        return read_mgh(path).dtype.kind in "iu"

    def write_volume(self, path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
        """Write integers of 8, 16 or 32 bits or float32; unsigned integers of 16 and 32 bits with the next type."""
        dtype = _STORED.get(array_CZYX.dtype.name)
        if (
            dtype is None
            and array_CZYX.dtype.kind in "iu"
            and array_CZYX.max() < 2**31
            and array_CZYX.min() >= -(2**31)
        ):
            dtype = np.int32
        if dtype is None:
            raise OutputError(f"MGZ cannot hold {array_CZYX.dtype} values", where=path, remedy="use .nii.gz")
        array_IJKC = array_CZYX.astype(dtype).T
        matrix = geometry.matrix.copy()
        matrix[:3, :3] = matrix[:3, :3][:, _REVERSED]
        array = array_IJKC[..., 0] if array_IJKC.shape[3] == 1 else array_IJKC
        nibabel.MGHImage(np.ascontiguousarray(array), matrix).to_filename(path)


def _geometry(header: MghHeader, spacing: Triple | None, path: Path) -> Geometry:
    """Return the grid: the file has spacings, directions, and the position of the centre."""
    i, j, k, _ = header.shape_IJKC
    spacing_IJK = complete_spacing(header.spacing_IJK[::-1], spacing, path)[::-1]
    steps = header.cosines * np.array(spacing_IJK)
    matrix = np.eye(4)
    matrix[:3, :3] = steps[:, _REVERSED]
    matrix[:3, 3] = header.centre - steps @ (np.array([i, j, k]) / 2)
    return Geometry.from_matrix((k, j, i), matrix)
