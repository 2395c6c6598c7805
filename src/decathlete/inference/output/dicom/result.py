"""Write a segmentation as a DICOM object of a chosen kind."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decathlete.core.choices import DicomKind, SegmentationType
from decathlete.core.extras import import_optional
from decathlete.core.files import atomic_path, value_digest
from decathlete.core.labels import LabelSet
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import OutputError
from decathlete.inference.output.dicom.codes import Description, describe_structures
from decathlete.inference.output.dicom.source import SourceSeries, read_source_series, unusable_source
from decathlete.inference.output.provenance import RecordedSettings
from decathlete.io.dicom_reading import quiet_pydicom

NOTHING_FOUND = "No structure was found"
"""Description of an object without any voxel."""


@dataclass(frozen=True, kw_only=True)
class DicomOptions:
    """How segmentations are written as DICOM.

    Attributes:
        segmentation_type: of SEG objects: ``binary`` (one bit mask for each structure) or ``labelmap`` (one map of
            numbers: smaller, for exclusive classes).
        codes: structure -> its code, which precedes that of the model and the dictionary of known names.
    """

    segmentation_type: SegmentationType = "binary"
    codes: Mapping[str, StructureCode] = field(default_factory=dict)

    def as_text(self, kind: DicomKind) -> str:
        """Return all that the content of an object of this kind depends on, for the record of a prediction."""
        codes = {name: code.model_dump(mode="json") for name, code in sorted(self.codes.items())}
        of_kind = f" {self.segmentation_type}" if kind == "dicom-seg" else ""
        return f"{kind}{of_kind}{f' codes {value_digest(codes)[:16]}' if codes else ''}"


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """A segmentation and its series, ready to be written.

    Attributes:
        label_ZYX: label values, in the order of the source's frames.
        structures: description of each structure of ``labels``.
        digests: of the models.
        key: distinguishes objects: equal keys give equal identifiers.
    """

    source: SourceSeries
    label_ZYX: NDArray[np.integer[Any]]
    labels: LabelSet
    structures: tuple[Description, ...]
    digests: tuple[str, ...]
    model_names: str
    key: str
    options: DicomOptions

    def mask_ZYX(self, index: int) -> NDArray[np.bool_]:
        """Return the voxels of one structure."""
        return np.isin(self.label_ZYX, self.labels.structures[index].values)

    def uid(self, purpose: str) -> str:
        """Return an identifier that is always the same for the same content."""
        number = int(hashlib.sha256(f"{purpose} {self.key}".encode()).hexdigest()[:32], 16)
        return f"2.25.{number}"


def require_dicom_packages(kind: DicomKind, *, alternative: str | None = "use --format nifti") -> None:
    """Check that the packages for a kind of object are installed.

    Args:
        alternative: what to do without them, in the imperative.

    Raises:
        MissingPackageError: they are not.
    """
    module, title = ("highdicom", "highdicom") if kind == "dicom-seg" else ("contourpy", "contourpy")
    import_optional(module, title=title, extra="dicom", alternative=alternative)


def write_dicom_result(
    path: Path,
    kind: DicomKind,
    label_ZYX: NDArray[np.integer[Any]],
    *,
    labels: LabelSet,
    source: Path,
    settings: RecordedSettings,
    options: DicomOptions = DicomOptions(),
    codes: Mapping[str, StructureCode] | None = None,
) -> None:
    """Write a segmentation as a DICOM object that refers to every slice of its series, whole or not at all.

    Patient and study are those of the series. The digest of the models is part of the object. The same segmentation
    of the same series by the same models, with the same codes, has the same identifiers, so that an archive keeps it
    once.

    Args:
        kind: ``dicom-seg`` or ``rtstruct``.
        label_ZYX: label values on the grid of ``source``.
        source: folder of the slices, or a file with all frames.
        settings: models and settings of the prediction.
        codes: of the structures, from the model.

    Raises:
        MissingPackageError: the extra ``[dicom]`` is not installed.
        OutputError: the series lacks identifiers, or this kind of object cannot represent the segmentation.
    """
    require_dicom_packages(kind)
    options = replace(options, codes=_codes_of(labels, {**(codes or {}), **options.codes}))
    series = read_source_series(source, spacing=settings.spacing)
    if label_ZYX.shape != (len(series.frames), series.datasets[0].Rows, series.datasets[0].Columns):
        raise ValueError(f"a label map of shape {label_ZYX.shape} does not fit the series {source}")
    segmented = Segmented(
        source=series,
        label_ZYX=label_ZYX,
        labels=labels,
        structures=describe_structures(tuple(s.name for s in labels.structures), options.codes),
        digests=tuple(use.digest for use in settings.models),
        model_names=", ".join(dict.fromkeys(use.dataset for use in settings.models)),
        key=_key(kind, label_ZYX, series, settings, options),
        options=options,
    )
    dataset = _make(kind, segmented)
    with quiet_pydicom(), atomic_path(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


def _codes_of(labels: LabelSet, codes: Mapping[str, StructureCode]) -> dict[str, StructureCode]:
    """Return the codes of the structures of a label set; a file may have those of several models."""
    return {s.name: codes[s.name] for s in labels.structures if s.name in codes}


def _make(kind: DicomKind, segmented: Segmented) -> Any:
    modules: dict[DicomKind, Literal["segmentation", "rtstruct"]] = {
        "dicom-seg": "segmentation",
        "rtstruct": "rtstruct",
    }
    module = import_module(f"decathlete.inference.output.dicom.{modules[kind]}")
    make: Callable[[Segmented], Any] = module.make_object
    with warnings.catch_warnings(), quiet_pydicom():
        warnings.simplefilter("ignore")  # of the libraries, about attributes of the source that are odd
        try:
            return make(segmented)
        except OutputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as problem:  # of attributes that a source lacks
            raise unusable_source(
                segmented.source.path,
                f"no {kind} object can refer to this series ({type(problem).__name__}: {problem})"[:300],
            ) from problem


def _key(
    kind: DicomKind,
    label_ZYX: NDArray[np.integer[Any]],
    series: SourceSeries,
    settings: RecordedSettings,
    options: DicomOptions,
) -> str:
    voxels = hashlib.sha256(np.ascontiguousarray(label_ZYX, dtype="<i4").data).hexdigest()
    instances = [str(dataset.SOPInstanceUID) for dataset in series.datasets]
    settings_of_object = settings.model_dump(mode="json") | {"output": options.as_text(kind)}
    return value_digest([kind, voxels, instances, settings_of_object])
