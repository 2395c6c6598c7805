"""The fields of a ``dataset.json``, in the layout of the Decathlon or of nnU-Net v2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from decathlete.core.documents import read_json
from decathlete.core.schema import describe
from decathlete.core.structure_codes import StructureCode
from decathlete.dataset.find_dataset import MANIFEST, nearby_dataset
from decathlete.errors import ManifestError, problems_found

REMEDY = "correct dataset.json (layouts: Medical Segmentation Decathlon, nnU-Net v2)"

_Image = str | Annotated[list[str], Field(min_length=1)]
"""One file with all channels, or a list with one file per channel."""


class CaseFiles(BaseModel):
    """A training case of a Decathlon manifest."""

    image: _Image
    label: str


class _TestFiles(BaseModel):
    image: _Image


class _ManifestFields(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    labels: dict[str, Any]
    groups: dict[str, str] = {}
    dicom_structures: dict[str, str] = {}
    dicom_codes: dict[str, StructureCode] = {}
    annotated: dict[str, list[str]] = {}
    regions: dict[str, Any] | None = None
    regions_class_order: list[int] | None = None
    numTraining: Any = None
    numTest: Any = None
    validation: Any = None


class DecathlonManifest(_ManifestFields):
    """A manifest in the layout of the Medical Segmentation Decathlon."""

    modality: dict[str, str] = Field(min_length=1)
    training: list[CaseFiles] = Field(min_length=1)
    test: list[str | _TestFiles] = []


class NnUNetManifest(_ManifestFields):
    """A manifest in the layout of nnU-Net v2."""

    channel_names: dict[str, str] = Field(min_length=1)
    file_ending: str
    dataset: dict[str, dict[str, Any]] | None = None
    training: Any = None
    test: Any = None


Manifest = DecathlonManifest | NnUNetManifest


def load_manifest(root: Path) -> Manifest:
    """Read and validate the manifest of the dataset in ``root``.

    Raises:
        ManifestError: it is missing or not valid; lists every problem of its fields.
    """
    path = root / MANIFEST
    if not root.is_dir():
        raise ManifestError(
            "is not a folder", where=root, remedy=f"use the folder that contains {MANIFEST}", code="E-DATASET-NOT-FOUND"
        )
    remedy = "correct it, or write one"
    if not path.exists():
        remedy = f"use the folder that contains {MANIFEST}{nearby_dataset(root)}, or write one"
    raw = read_json(path, error=ManifestError, remedy=remedy)
    if not isinstance(raw, dict):
        raise ManifestError("must be a JSON object", where=path, remedy=REMEDY)
    kind: type[DecathlonManifest] | type[NnUNetManifest]
    if "channel_names" in raw:
        kind = NnUNetManifest
    elif "training" in raw:
        kind = DecathlonManifest
    else:
        raise ManifestError(
            "declares neither 'training' (Decathlon layout) nor 'channel_names' (nnU-Net v2 layout)",
            where=path,
            remedy=REMEDY,
        )
    try:
        return kind.model_validate(raw)
    except ValidationError as problem:
        raise problems_found(describe(problem), where=path, remedy=REMEDY, kind=ManifestError) from None
