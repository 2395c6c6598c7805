"""Attributes of a DICOM file as they are stored; those that cannot be used are errors that name file and attribute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decathlete.errors import ImageError

TAGS = {
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SliceThickness": 0x00180050,
    "SpacingBetweenSlices": 0x00180088,
    "ImagerPixelSpacing": 0x00181164,
    "NominalScannedPixelSpacing": 0x00182010,
    "SeriesInstanceUID": 0x0020000E,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "PlanePositionSequence": 0x00209113,
    "PlaneOrientationSequence": 0x00209116,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "PlanarConfiguration": 0x00280006,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "ModalityLUTSequence": 0x00283000,
    "PixelMeasuresSequence": 0x00289110,
    "PixelValueTransformationSequence": 0x00289145,
    "GridFrameOffsetVector": 0x3004000C,
    "DoseGridScaling": 0x3004000E,
    "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
}
"""Tags of the attributes that are read."""


class Attributes:
    """The attributes of one file.

    pydicom's own conversion of values is not used: it warns about what it does not understand, and names no file.

    Args:
        path: for messages.
        dataset: of pydicom.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
        self.path = path
        self.dataset = dataset

    def items(self, dataset: Any, name: str) -> list[Any]:
        """Return the items of a sequence; none if it is missing."""
        return list(dataset[TAGS[name]].value or []) if TAGS[name] in dataset else []

    def raw(self, dataset: Any, name: str) -> Any:
        """Return an element as it is stored, or ``None``."""
        return dataset.get_item(TAGS[name]) if TAGS[name] in dataset else None

    def text(self, name: str) -> str:
        """Return a text of the file; empty if it is missing."""
        element = self.raw(self.dataset, name)
        value = b"" if element is None else element.value
        return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else str(value or "").strip()

    def integer(self, name: str, *, default: int | None = None, least: int = 1) -> int:
        """Return a number of two bytes of the file.

        Raises:
            ImageError: it is below ``least``, or not a number.
            ValueError: it is missing, and there is no default.
        """
        element = self.raw(self.dataset, name)
        value = None if element is None else element.value
        if isinstance(value, bytes):
            if len(value) != 2:
                raise self.unusable(name, f"{len(value)} bytes")
            value = int.from_bytes(value, "little" if element.is_little_endian else "big")
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"{name} is missing")
        if value < least:
            raise self.unusable(name, str(value))
        return int(value)

    def numbers(self, dataset: Any, name: str, count: int) -> tuple[float, ...] | None:
        """Return decimal numbers, or ``None`` if the attribute is missing or empty.

        Raises:
            ImageError: they are not ``count`` finite numbers.
        """
        element = self.raw(dataset, name)
        if element is None or not element.value:
            return None
        if isinstance(element.value, bytes):
            text = element.value.decode("latin-1")
            parts: Sequence[Any] = [part.strip(" \0") for part in text.split("\\")]
        else:
            parts = list(np.atleast_1d(element.value))
        try:
            values = tuple(float(part) for part in parts)
        except ValueError:
            raise self.unusable(name, "\\".join(map(str, parts))[:60]) from None
        if len(values) != count or not np.isfinite(values).all():
            numbers = f"{len(values)} numbers, where {count} belong" if len(values) != count else "not finite"
            raise self.unusable(name, numbers)
        return values

    def unusable(self, name: str, value: str) -> ImageError:
        """Return the error about an attribute that cannot be used."""
        return ImageError(
            f"its attribute {name} cannot be used: {value}",
            where=self.path,
            remedy="export the file again, or correct this attribute",
            code="E-IMAGE-DICOM",
        )
