"""NIfTI files, through nibabel: the affine as stored, header codes and units kept."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray
from pydantic import Field

from decathlete.core.geometry import Affine, Geometry, HeaderCodes, Shape, Triple, as_affine
from decathlete.core.registry import ComponentSettings
from decathlete.errors import ImageError
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.headers.nifti import read_nifti
from decathlete.io.limits import excess_error
from decathlete.io.read_errors import translate_read_error
from decathlete.io.spacing import complete_spacing
from decathlete.io.volumes import Volume
from decathlete.io.voxels import read_bytes

_MM_PER_UNIT = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}
_KINDS = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}
_REVERSED = [2, 1, 0, 3]  # nibabel's columns i, j, k to z, y, x


@IMAGE_FORMATS.register("nifti")
class Nifti(ImageFormat):
    """NIfTI-1 and NIfTI-2, one file, plain or gzipped: 2D, 3D, or 4D with the channels last."""

    class Settings(ComponentSettings):
        compression_level: int = Field(default=1, ge=1, le=9)
        """Level of gzip for written .nii.gz files: 1 (fastest) to 9 (smallest)."""

    title = "NIfTI"
    suffixes = (".nii.gz", ".nii")
    written_suffixes = (".nii.gz", ".nii")
    signatures = ((344, b"n+1"), (344, b"ni1"), (4, b"n+2"))
    takes_spacing = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.compression_level = settings.compression_level

    def read_header(self, path: Path, *, spacing: Triple | None = None) -> tuple[int, Geometry]:
        """Read the header alone."""
        with _nibabel_errors():
            return _grid(_load(path).header, path, spacing)

    def read_volume(self, path: Path, *, as_float32: bool = False, spacing: Triple | None = None) -> Volume:
        """All voxels, slope and intercept applied; the checksum of a gzipped file is verified too."""
        with _nibabel_errors():
            array_IJK, header = _gzipped(path, as_float32) if path.suffix.lower() == ".gz" else _plain(path, as_float32)
            _, geometry = _grid(header, path, spacing)
        channels_last = array_IJK.reshape(*_shape_ijk(header, path)[0], -1)
        return Volume(array_CZYX=channels_last.transpose(3, 2, 1, 0), geometry=geometry)

    def holds_integers(self, path: Path) -> bool:
        """Type, slope and intercept as stored."""
        with _nibabel_errors():
            stored = _load(path).dataobj
        return stored.dtype.kind in "iu" and stored.slope == 1 and stored.inter == 0

    def write_volume(self, path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
        """Write NIfTI-1 with the header codes and units of ``geometry``; several channels become the last axis.

        The number type is the array's, slope 1. A qform and a sform that differ are both written as they were read, so
        that every reader sees the volume where it sees the one that was read. Where the codes cannot carry the affine
        (both 0, or a shear with a qform alone), the sform is used as well, so that a written volume never moves. One
        channel of a slice that was read with two axes is written with two.
        """
        image = _image(array_CZYX, geometry)
        if path.suffix.lower() != ".gz":
            image.to_filename(path)
            return
        # nibabel's opener leaves time and name out of gzip's header, so that equal images are equal files
        with ImageOpener(str(path), mode="wb", compresslevel=self.compression_level) as opened:
            image.to_stream(opened.fobj)


def image_header(n_channels: int, geometry: Geometry) -> bytes:
    """Make the first bytes of an uncompressed file of float32 channels, as :meth:`Nifti.write_volume` writes them.

    The numbers have to follow in C order: channel, z, y, x.
    """
    unfilled_CZYX = np.broadcast_to(np.float32(0), (n_channels, *geometry.shape_ZYX))
    header = _image(unfilled_CZYX, geometry).header
    header.set_slope_inter(1, 0)
    start = BytesIO()
    header.write_to(start)
    return start.getvalue()


def stored_bytes(path: Path) -> int:
    """Read from its header how many bytes an uncompressed file has to have.

    Raises:
        ImageError: missing, or its header is damaged.
    """
    with translate_read_error(path, Nifti.title):
        header = read_nifti(path)
    return header.start + header.n_bytes


def _image(array_CZYX: NDArray[Any], geometry: Geometry) -> Any:
    array_IJK = array_CZYX.transpose(3, 2, 1, 0)
    if array_IJK.shape[3] == 1:
        array_IJK = array_IJK[..., 0]
        if geometry.header.axes == 2 and array_IJK.shape[2] == 1:
            array_IJK = array_IJK[..., 0]
    codes = geometry.header
    affine = _stored_matrix(geometry.affine, codes)
    image = nibabel.Nifti1Image(array_IJK, affine, dtype=array_IJK.dtype)
    header = image.header
    header.set_xyzt_units("unknown" if geometry.unit == "pixel" else codes.spatial_unit, codes.temporal_unit)
    image.set_qform(_stored_matrix(codes.qform or geometry.affine, codes), codes.qform_code, update_affine=False)
    image.set_sform(_stored_matrix(codes.sform or geometry.affine, codes), codes.sform_code, update_affine=False)
    if not np.allclose(header.get_best_affine(), affine, rtol=1e-4, atol=1e-3 * abs(affine[:3, :3]).max()):
        image.set_sform(affine, codes.sform_code or 2, update_affine=False)
    return image


def _load(path: Path) -> Any:
    """Open a file whose header was checked; nibabel would guess between all its formats."""
    return _KINDS[read_nifti(path).version].from_filename(path, mmap=False)


def _stored_matrix(affine: Affine, codes: HeaderCodes) -> NDArray[np.float64]:
    """A transform as the file has it: from i, j, k to its own unit."""
    matrix = np.array(affine)[:, _REVERSED]
    matrix[:3] /= _MM_PER_UNIT.get(codes.spatial_unit, 1.0)
    return matrix


def _plain(path: Path, as_float32: bool) -> tuple[NDArray[Any], Any]:
    image = _load(path)
    data = np.asarray(image.dataobj, dtype=np.float32) if as_float32 else np.asanyarray(image.dataobj)
    return data, image.header


def _gzipped(path: Path, as_float32: bool) -> tuple[NDArray[Any], Any]:
    header = read_nifti(path)
    with gzip.open(path) as stream:
        image = _KINDS[header.version].from_stream(stream)
        stream.seek(header.start)
        content = read_bytes(stream, header.n_bytes)
        if stream.read(1):  # the end, where gzip keeps its checksum
            raise excess_error(path)
    stored = np.frombuffer(content, dtype=image.dataobj.dtype).reshape(image.shape, order="F")
    return _scale(stored, image.dataobj, as_float32), image.header


def _scale(stored: NDArray[Any], dataobj: Any, as_float32: bool) -> NDArray[Any]:
    """Apply slope and intercept in the number types that nibabel uses."""
    kind = np.dtype(np.float32 if as_float32 else np.float64)
    factors = [np.asanyarray(factor) for factor in (dataobj.slope, dataobj.inter)]
    slope, inter = (factor.astype(kind) if np.can_cast(factor, kind) else factor for factor in factors)
    scaled: NDArray[Any] = np.asanyarray(apply_read_scaling(stored, slope, inter))
    if not as_float32:
        return scaled
    return scaled.astype(np.promote_types(scaled.dtype, kind), copy=False).astype(np.float32, copy=False)


def _grid(header: Any, path: Path, spacing: Triple | None) -> tuple[int, Geometry]:
    (i, j, k), channels = _shape_ijk(header, path)
    units = _units(header)
    axes: Literal[2, 3] = 2 if len(header.get_data_shape()) == 2 else 3
    if header["sform_code"] <= 0:  # otherwise the sform has a spacing of its own
        _complete_pixdim(header, path, spacing, axes)
    affine = _as_read(header.get_best_affine(), units[0])
    codes = HeaderCodes(
        qform_code=int(header["qform_code"]),
        sform_code=int(header["sform_code"]),
        spatial_unit=units[0],
        temporal_unit=units[1],
        axes=axes,
        qform=_other_transform(header.get_qform, units[0], affine),
        sform=_other_transform(header.get_sform, units[0], affine),
    )
    return channels, Geometry.from_matrix((k, j, i), affine, header=codes)


def _as_read(matrix: NDArray[np.floating], unit: str) -> NDArray[np.float64]:
    """A transform of the file, from z, y, x to mm."""
    matrix = np.asarray(matrix, dtype=np.float64)[:, _REVERSED]
    matrix[:3] *= _MM_PER_UNIT.get(unit, 1.0)
    return matrix


def _other_transform(get: Callable[[], Any], unit: str, affine: NDArray[np.float64]) -> Affine | None:
    """The qform or sform of the file, also with code 0, if it has one that is not the affine within rounding."""
    try:
        with np.errstate(all="ignore"):  # of damaged fields
            matrix = _as_read(get(), unit)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):  # no rotation: no reader can use it
        return None
    scale = abs(affine[:3, :3]).max()
    if not np.isfinite(scale):  # the geometry rejects it
        return None
    same = np.allclose(matrix, affine, rtol=1e-5, atol=1e-4 * scale)
    return None if same or not np.isfinite(matrix).all() else as_affine(matrix)


def _complete_pixdim(header: Any, path: Path, spacing: Triple | None, axes: int) -> None:
    """Check the spacing in the file (nibabel reads 0 as 1, and -2 as 2), and set what is missing."""
    mm = _MM_PER_UNIT.get(_units(header)[0], 1.0)
    stored_XYZ = [v * mm for v in _stored_pixdim(path, type(header))]
    known_ZYX = [*stored_XYZ[:axes], 1.0][2::-1]  # a slice with two axes has no third spacing
    wanted_ZYX = complete_spacing(known_ZYX, spacing, path)
    if wanted_ZYX != tuple(known_ZYX):
        header["pixdim"][1:4] = np.array(wanted_ZYX[::-1]) / mm


def _stored_pixdim(path: Path, kind: Any) -> list[float]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        unchecked = kind.from_fileobj(stream, check=False)
    return [float(v) for v in unchecked["pixdim"][1:4]]


def _shape_ijk(header: Any, path: Path) -> tuple[Shape, int]:
    """Voxels along i, j, k and the number of channels; trailing axes of one voxel do not count."""
    shape = tuple(int(n) for n in header.get_data_shape())
    space, rest = (*shape, 1, 1, 1)[:3], [n for n in shape[3:] if n != 1]
    if len(shape) < 2 or len(rest) > 1:
        raise ImageError(
            f"has {len(shape)} axes (shape {shape})",
            where=path,
            remedy="store it as 3D, or as 4D with the channels last",
            code="E-IMAGE-FORMAT",
        )
    return (space[0], space[1], space[2]), rest[0] if rest else 1


def _units(header: Any) -> tuple[str, str]:
    try:
        space, time = header.get_xyzt_units()
    except KeyError:  # a unit code that the standard does not know
        return "unknown", "unknown"
    return str(space), str(time)


@contextmanager
def _nibabel_errors() -> Iterator[None]:
    """nibabel's errors about a file have no base class that others share."""
    try:
        yield
    except (ImageFileError, HeaderDataError) as problem:
        raise ValueError(str(problem)) from problem
