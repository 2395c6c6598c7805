"""Answers of ``/infer``: the segmentation in the form that the viewer asks for, and what is known about it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from decathlete.core.documents import parse_json
from decathlete.errors import ServiceError
from decathlete.io.format_lookup import format_of_suffix, suffix_of, writable_suffixes
from decathlete.io.images import read_label
from decathlete.io.itk import write_itk
from decathlete.io.volumes import LabelMap

_ITK_SUFFIXES = (".nrrd", ".mha")


class InferParams(BaseModel):
    """What a viewer asks for in the field ``params``; other keys belong to other programs and are ignored.

    Attributes:
        result_extension: suffix of the label map.
        result_dtype: number type of its voxels.
        result_compress: whether a NRRD or MetaImage file is compressed.
    """

    model_config = ConfigDict(extra="ignore")
    result_extension: str = ".nii.gz"
    result_dtype: Literal["uint8", "uint16", "int16", "int32", "uint32"] | None = None
    result_compress: bool = False

    @classmethod
    def parse(cls, text: str) -> InferParams:
        """Parse JSON.

        Raises:
            ServiceError: it is not valid, or a value is not one of those above.
        """
        try:
            params = cls.model_validate(parse_json(text or "{}"))
        except (ValidationError, ValueError):
            raise ServiceError(
                "the field params is not valid",
                remedy="send JSON with result_extension, result_dtype and result_compress",
                code="E-SERVICE-REQUEST",
            ) from None
        if params.result_extension not in writable_suffixes():
            raise ServiceError(
                f"a label map cannot be written as {params.result_extension!r}",
                remedy=f"use one of {', '.join(writable_suffixes())}",
                code="E-SERVICE-REQUEST",
            )
        return params


@dataclass(frozen=True, kw_only=True)
class InferAnswer:
    """A finished segmentation.

    Attributes:
        label: label map, NIfTI.
        labels: structure -> value.
        status: of the job, see the API.
        seconds: time from the request to the result.
    """

    label: Path
    labels: Mapping[str, int]
    status: Mapping[str, Any]
    seconds: float

    def params(self, label: LabelMap) -> dict[str, Any]:
        """Return what is known about the segmentation.

        ``label_names`` has only structures that were found: 3D Slicer pairs these names with the values in the label
        map, in their order.
        """
        found = set(np.unique(label.array_ZYX).tolist())
        in_order = sorted(self.labels.items(), key=lambda item: item[1])
        return {
            "label_names": {name: value for name, value in in_order if value in found},
            "volumes_ml": self.status["volumes_ml"],
            "voxels": self.status["voxels"],
            "warnings": self.status["warnings"],
            "latencies": {"total": round(self.seconds, 3)},
        }


def write_answer_image(label: LabelMap, params: InferParams, folder: Path) -> Path:
    """Write a label map as the viewer asks for.

    Raises:
        ServiceError: the number type is too small for its values.
    """
    array = label.array_ZYX
    if params.result_dtype is not None:
        limits = np.iinfo(params.result_dtype)
        if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
            raise ServiceError(
                f"the label map has the value {array.max()}, which {params.result_dtype} cannot hold",
                remedy="use another result_dtype",
                code="E-SERVICE-REQUEST",
            )
        array = array.astype(params.result_dtype)
    path = folder / f"segmentation{params.result_extension}"
    if params.result_extension in _ITK_SUFFIXES:  # OHIF reads only NRRD without compression
        write_itk(path, array[None], label.geometry, is_compressed=params.result_compress)
    else:
        format_of_suffix(params.result_extension).write_volume(path, array[None], label.geometry)
    return path


def read_answer_label(answer: InferAnswer) -> LabelMap:
    """Read the label map of a finished segmentation."""
    return read_label(answer.label)


def write_multipart(params: Mapping[str, Any], image: Path, folder: Path) -> tuple[Path, str]:
    """Write a form with ``params`` and ``image`` into a file; return it and its media type."""
    boundary = f"decathlete-{secrets.token_hex(16)}"
    assert suffix_of(image.name)  # the client takes the suffix of its file from this name
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
        f"{json.dumps(params)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{image.name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    path = folder / "answer"
    with path.open("xb") as body, image.open("rb") as source:
        body.write(head.encode())
        while piece := source.read(1 << 20):
            body.write(piece)
        body.write(f"\r\n--{boundary}--\r\n".encode())
    return path, f"multipart/form-data; boundary={boundary}"
