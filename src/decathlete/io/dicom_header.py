"""The header of one DICOM file: size, type and place of its frames, checked against the bytes that the file has.

Attributes are read as they are stored; a value that cannot be used is an error that names the file and the attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from decathlete.errors import ImageError, NotAnImageError
from decathlete.io.dicom_attributes import TAGS, Attributes
from decathlete.io.dicom_pixel_data import PixelLayout, locate_pixel_data
from decathlete.io.dicom_reading import read_dicom_stream

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_BITS = (1, 8, 16, 32)
_NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.481.3": "an RT structure set",
    "1.2.840.10008.5.1.4.1.1.481.": "an object of radiotherapy",
    "1.2.840.10008.5.1.4.1.1.88.59": "a key object selection",
    "1.2.840.10008.5.1.4.1.1.88.": "a structured report",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.66.": "a registration or a segmentation",
    "1.2.840.10008.5.1.4.1.1.104.": "a document",
}
"""Start of the SOP class of objects that may lie beside slices -> what they are. They are no images without pixels."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One slice or frame; lengths in mm, coordinates LPS, ``None``: not in the file.

    Attributes:
        cosines: directions of a row's and a column's voxels, as the columns of a 3x2 array.
        position: of the first voxel.
        spacing_YX: distance between rows and between columns.
        distances: distance to the next slice, and thickness, in the order in which they are believed.
        slope, intercept: of the stored numbers.
    """

    path: Path
    number: int
    cosines: NDArray[np.float64] | None
    position: NDArray[np.float64] | None
    spacing_YX: tuple[float, float] | None
    distances: tuple[float, ...]
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def name(self) -> str:
        """Name in messages: the file, or the frame's number in it (from 1)."""
        return self.path.name if self.number == 0 else f"frame {self.number}"


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """One file with at least one frame.

    Attributes:
        pixels: how the frames are stored.
    """

    path: Path
    series: str
    pixels: PixelLayout
    frames: tuple[Frame, ...]

    @property
    def size_XYC(self) -> tuple[int, int, int]:
        """Columns, rows and channels of a frame."""
        return self.pixels.columns, self.pixels.rows, self.pixels.n_channels


def read_dicom_header(path: Path) -> DicomFile:
    """Read a header, and check that the file has the voxels that it declares.

    Raises:
        NotAnImageError: the object has no voxels by its kind.
        ImageError: an attribute cannot be used, or the pixel data do not fit it.
        ValueError: the file is damaged.
    """
    with _open(path) as (reader, stream):
        return reader.read(stream)


def read_pixel_layout(path: Path) -> PixelLayout:
    """Read how the frames of a file are stored, and check that it has as many as it declares.

    Raises:
        ImageError: an attribute cannot be used, or the pixel data do not fit it.
        ValueError: the file is damaged.
    """
    with _open(path) as (reader, stream):
        return reader.layout(stream)


@contextmanager
def _open(path: Path) -> Iterator[tuple[_Reader, BinaryIO]]:
    try:
        with path.open("rb") as stream:
            dataset = read_dicom_stream(
                path, stream, stop_before_pixels=True, specific_tags=list(TAGS.values()), force=True
            )
            yield _Reader(path, dataset), stream
    except (ImageError, OSError):
        raise
    except Exception as problem:  # pydicom raises anything where the content of a file is not DICOM
        raise ValueError(f"{type(problem).__name__}: {problem}") from problem


def kind_without_voxels(sop_class: str) -> str | None:
    """Return what an object of this class is, if it is no image of a patient; ``None``: an image."""
    return next((kind for start, kind in _NOT_IMAGES.items() if sop_class.startswith(start)), None)


class _Reader(Attributes):
    """Reads the header of one file."""

    def read(self, stream: BinaryIO) -> DicomFile:
        kind = self._kind()
        if kind is not None and self.raw(self.dataset, "Rows") is None:
            raise NotAnImageError(self.path, kind)
        pixels = self.layout(stream)
        self._check_values(pixels)
        return DicomFile(
            path=self.path,
            series=self.text("SeriesInstanceUID"),
            pixels=pixels,
            frames=self._frames(pixels.n_frames),
        )

    def layout(self, stream: BinaryIO) -> PixelLayout:
        """Return how the frames are stored; the stream is at the pixel data."""
        syntax = self.dataset.file_meta.get("TransferSyntaxUID")
        _, is_little_endian = self.dataset.original_encoding
        bits = self.integer("BitsAllocated")
        pixels = PixelLayout(
            path=self.path,
            rows=self.integer("Rows"),
            columns=self.integer("Columns"),
            n_frames=self._frame_count(),
            samples=self.integer("SamplesPerPixel", default=1),
            bits_allocated=bits,
            bits_stored=self.integer("BitsStored", default=bits),
            is_signed=self.integer("PixelRepresentation", default=0, least=0) == 1,
            photometric=self.text("PhotometricInterpretation"),
            is_planar=self.integer("PlanarConfiguration", default=0, least=0) == 1,
            syntax=str(syntax or ""),
            is_encapsulated=bool(syntax) and syntax.is_encapsulated,
            is_big_endian=not is_little_endian,
        )
        self._check_layout(pixels)
        return locate_pixel_data(stream, self.dataset, pixels)

    def _check_layout(self, pixels: PixelLayout) -> None:
        """Reject combinations that no reader agrees on."""
        bits, stored = pixels.bits_allocated, pixels.bits_stored
        if bits not in _BITS:
            raise self.unusable("BitsAllocated", f"it is {bits}, and must be one of {', '.join(map(str, _BITS))}")
        if stored > bits:
            raise self.unusable("BitsStored", f"it is {stored}, and {bits} bits are allocated")
        high_bit = self.integer("HighBit", default=stored - 1, least=0)
        if high_bit != stored - 1:
            raise self.unusable("HighBit", f"it is {high_bit}, and {stored} bits are stored")
        is_colour = pixels.photometric == "RGB" or pixels.photometric.startswith("YBR_")
        if pixels.samples != (3 if is_colour else 1) or (bits == 1 and pixels.n_channels > 1):
            shown = f"{pixels.samples}, with {pixels.photometric[:16] or 'no PhotometricInterpretation'}, {bits} bits"
            raise self.unusable("SamplesPerPixel", f"it is {shown}")

    def _check_values(self, pixels: PixelLayout) -> None:
        """Reject files whose stored numbers would be read as other intensities than those that are meant."""
        reason, remedy = None, "export it with RescaleSlope and RescaleIntercept, as grey values or RGB"
        if self.items(self.dataset, "ModalityLUTSequence"):
            reason = "stores its intensities by a lookup table (ModalityLUTSequence)"
        elif pixels.photometric == "PALETTE COLOR" and pixels.n_frames > 1:
            reason = f"has {pixels.n_frames} frames with a palette of colours (PALETTE COLOR)"
        elif "MOSAIC" in self.text("ImageType").split("\\"):
            reason = "stores many slices side by side in one picture (a mosaic of Siemens)"
            remedy = "convert it to NIfTI by dcm2niix, which separates the slices"
        if reason is not None:
            raise ImageError(f"{reason}, which is not supported", where=self.path, remedy=remedy, code="E-IMAGE-DICOM")

    def _kind(self) -> str | None:
        sop_class = self.text("SOPClassUID") or str(self.dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        return kind_without_voxels(sop_class)

    def _frame_count(self) -> int:
        text = self.text("NumberOfFrames")
        if text and not (text.isdecimal() and int(text) > 0):
            raise self.unusable("NumberOfFrames", text)
        return int(text or 1)

    def _frames(self, n_frames: int) -> tuple[Frame, ...]:
        shared = self.items(self.dataset, "SharedFunctionalGroupsSequence")[:1]
        own = self.items(self.dataset, "PerFrameFunctionalGroupsSequence")
        if own and len(own) != n_frames:
            raise ImageError(
                f"declares {n_frames} frames and describes {len(own)} (PerFrameFunctionalGroupsSequence)",
                where=self.path,
                remedy="export this file again",
                code="E-IMAGE-DICOM",
            )
        if n_frames == 1:
            return (self._frame(0, [*own, *shared, self.dataset]),)
        frames = [self._frame(k + 1, [*own[k : k + 1], *shared, self.dataset]) for k in range(n_frames)]
        positions = self._frame_positions(own, frames)
        return tuple(replace(frame, position=position) for frame, position in zip(frames, positions, strict=True))

    def _frame_positions(self, own: Sequence[Any], frames: Sequence[Frame]) -> list[NDArray[np.float64] | None]:
        """Positions of several frames: the file's position alone would place them all at one point."""
        if own:
            return [
                None if values is None else np.array(values)
                for values in (
                    self._in_group([item], "PlanePositionSequence", "ImagePositionPatient", 3) for item in own
                )
            ]
        offsets = self.numbers(self.dataset, "GridFrameOffsetVector", len(frames))
        first, cosines = frames[0].position, frames[0].cosines
        if offsets is None or first is None or cosines is None:
            return [first, *[None] * (len(frames) - 1)]  # that of the file
        normal = np.cross(cosines[:, 0], cosines[:, 1])  # a dose: offsets from the first frame, along the normal
        return [first + normal * (offset - offsets[0]) for offset in offsets]

    def _frame(self, number: int, groups: list[Any]) -> Frame:
        cosines = self._in_group(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        position = self._in_group(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
        spacings = (self._in_group(groups, "PixelMeasuresSequence", name, 2) for name in _SPACINGS)
        spacing = next((s for s in spacings if s is not None), None)
        distances = [
            self._in_group(groups, "PixelMeasuresSequence", name, 1)
            for name in ("SpacingBetweenSlices", "SliceThickness")
        ]
        slope, intercept = (
            self._in_group(groups, "PixelValueTransformationSequence", name, 1)
            for name in ("RescaleSlope", "RescaleIntercept")
        )
        source = "RescaleSlope" if slope else "DoseGridScaling"
        slope = slope or self.numbers(self.dataset, "DoseGridScaling", 1)
        if slope and slope[0] == 0:
            raise self.unusable(source, "it is 0, so that all intensities would be equal")
        return Frame(
            path=self.path,
            number=number,
            cosines=None if cosines is None else self._unit_vectors(np.array(cosines).reshape(2, 3).T),
            position=None if position is None else np.array(position),
            spacing_YX=None if spacing is None else (spacing[0], spacing[1]),
            distances=tuple(abs(d[0]) for d in distances if d is not None),
            slope=slope[0] if slope else 1.0,
            intercept=intercept[0] if intercept else 0.0,
        )

    def _unit_vectors(self, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        gram = cosines.T @ cosines
        if not np.allclose(gram, np.eye(2), atol=0.01):
            raise self.unusable("ImageOrientationPatient", "not two perpendicular unit vectors")
        return cosines

    def _in_group(self, groups: Sequence[Any], sequence: str, name: str, count: int) -> tuple[float, ...] | None:
        """Numbers from the first functional group, or the dataset itself, that has them."""
        for group in groups:
            items = [group] if group is self.dataset else self.items(group, sequence)[:1]
            for item in items:
                if (values := self.numbers(item, name, count)) is not None:
                    return values
        return None
