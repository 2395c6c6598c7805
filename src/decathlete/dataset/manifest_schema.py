"""The fields of a ``dataset.json``, in the layout of the Decathlon (or of MONAI's data lists) or of nnU-Net v2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from decathlete.core.documents import read_json
from decathlete.core.nearest_files import nearest_names
from decathlete.core.schema import describe
from decathlete.core.structure_codes import StructureCode
from decathlete.dataset.find_dataset import MANIFEST, nearby_dataset
from decathlete.errors import ManifestError, problems_found

REMEDY = "correct dataset.json (layouts: Medical Segmentation Decathlon, nnU-Net v2)"

DESCRIPTIONS = frozenset(
    {
        *("name", "dataset_name", "description", "note", "notes", "reference", "citation", "author", "authors"),
        *("licence", "license", "release", "relase", "version", "date", "url", "converted_by", "tensorImageSize"),
        *("overwrite_image_reader_writer", "numTraining", "numTest"),
    }
)
"""Fields that describe a dataset and change nothing. The Decathlon writes ``relase`` for ``release``."""

_N_LISTED = 10


def _is_form(fits: Callable[[Any], bool], form: str) -> BeforeValidator:
    """Return a check whose error shows the form of a field, where pydantic's would name types of Python."""

    def check(value: Any) -> Any:
        if not fits(value):
            raise ValueError(form)
        return value

    return BeforeValidator(check)


def lists_files(value: Any) -> TypeGuard[str | list[str]]:
    """Return whether a value is the path of a file, or a list of paths."""
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(file, str) for file in value)
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value.values())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


ListedImage = Annotated[
    str | list[str], _is_form(lists_files, "it must be a file, or a list with one file for each channel")
]
"""One file with all channels, or a list with one file per channel."""

ListedLabel = Annotated[
    str | list[str], _is_form(lists_files, "it must be a file, or a list of DICOM objects with different structures")
]
"""One file, or several SEG objects or RT structure sets that refer to one image."""

ChannelNames = Annotated[
    dict[str, str], _is_form(_is_names, 'it must name the channels by their numbers, as in {"0": "T1", "1": "T2"}')
]

LabelValues = Annotated[
    dict[str, Any], _is_form(_is_mapping, 'it must list names and values, as in {"background": 0, "liver": 1}')
]


class ListedCase(BaseModel):
    """A training case of a Decathlon manifest.

    Attributes:
        fold: the fold that holds the case out, as in the data lists of MONAI's Auto3DSeg.
        case: id of the case; ``None``: it follows from the name of the image.
    """

    image: ListedImage
    label: ListedLabel
    fold: Any = None
    case: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError('a case is listed as {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}')
        return value


class ListedTest(BaseModel):
    """A test image of a Decathlon manifest; ``case`` is as of :class:`ListedCase`."""

    image: ListedImage
    case: str | None = None


class _ManifestFields(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    labels: LabelValues
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
    """A manifest in the layout of the Decathlon; MONAI calls the list of test images ``testing``."""

    modality: ChannelNames
    training: list[ListedCase] = Field(min_length=1)
    test: list[str | ListedTest] = []
    testing: list[str | ListedTest] = []


class NnUNetManifest(_ManifestFields):
    """A manifest in the layout of nnU-Net v2."""

    channel_names: ChannelNames
    file_ending: str
    dataset: dict[str, dict[str, Any]] | None = None
    training: Any = None
    test: Any = None


Manifest = DecathlonManifest | NnUNetManifest


def load_manifest(root: Path) -> tuple[Manifest, tuple[str, ...]]:
    """Return the manifest of the dataset in ``root``, and a line about each of its fields that is not known.

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
        misnamed = [name for name in nearest_names(path) if name.lower().startswith(MANIFEST)]
        remedy = f"use the folder that contains {MANIFEST}{nearby_dataset(root)}, or write one"
        if misnamed:
            remedy = f"rename {misnamed[0]} to {MANIFEST}"
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
        return kind.model_validate(raw), _describe_unknown(raw, kind)
    except ValidationError as problem:
        raise problems_found(describe(problem), where=path, remedy=REMEDY, kind=ManifestError) from None


def _describe_unknown(names: Iterable[str], fields: type[_ManifestFields]) -> tuple[str, ...]:
    """Return a line about each field of a manifest that is not known, with the one that was probably meant."""
    known = {name.casefold(): name for name in fields.model_fields}
    unknown = [name for name in names if name not in fields.model_fields and name not in DESCRIPTIONS]
    lines = []
    for name in unknown[:_N_LISTED]:
        nearest = get_close_matches(name.casefold(), known, n=1, cutoff=0.8)
        hint = f"; is it {known[nearest[0]]!r}?" if nearest else ""
        lines.append(f"{name!r} in dataset.json is not used: it is not a known field{hint}")
    more = len(unknown) - _N_LISTED
    return (*lines, f"{more} more fields of dataset.json are not known, and not used") if more > 0 else tuple(lines)
