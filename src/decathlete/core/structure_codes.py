"""Codes and colours of structures, as ``dataset.json`` declares them and a trained model keeps them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from decathlete.core.schema import Schema

FIELD = "dicom_codes"
"""Field of ``dataset.json`` with the codes of structures."""
_Byte = Annotated[int, Field(ge=0, le=255)]
_Text = Annotated[str, Field(min_length=1, max_length=64)]
_Short = Annotated[str, Field(min_length=1, max_length=16)]


class DicomCode(Schema):
    """A coded concept of DICOM: value, coding scheme (``SCT``: SNOMED CT) and meaning."""

    code: _Text
    scheme: _Short = "SCT"
    meaning: _Text


class StructureCode(Schema):
    """Code, category, side and colour of one structure.

    Attributes:
        category: class of the structure; ``None``: an anatomical structure.
        modifier: side.
        color: red, green, blue, 0..255; ``None``: by the place of the structure in the model.
    """

    code: _Text
    scheme: _Short = "SCT"
    meaning: _Text
    category: DicomCode | None = None
    modifier: DicomCode | None = None
    color: tuple[_Byte, _Byte, _Byte] | None = None
