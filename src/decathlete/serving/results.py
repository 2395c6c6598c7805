"""Results of jobs in the formats that the API offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from decathlete.core.choices import DicomKind
from decathlete.core.files import value_digest
from decathlete.core.labels import LabelSet
from decathlete.core.schema import Schema
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import ServiceError
from decathlete.inference.output.dicom import DicomOptions, write_dicom_result
from decathlete.inference.output.files import Job as OutputFiles
from decathlete.inference.output.files import write_outputs
from decathlete.inference.output.provenance import PredictionRecord, inputs_digest
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import Prediction
from decathlete.io.format_settings import changed_settings
from decathlete.io.images import read_label
from decathlete.io.reading import Reading

LABEL_FILE = "segmentation.nii.gz"
RECORD_FILE = "segmentation.json"
STRUCTURES_FILE = "structures.json"
_DICOM_FILES: dict[DicomKind, str] = {"dicom-seg": "segmentation.seg.dcm", "rtstruct": "segmentation.rtstruct.dcm"}


class ResultStructures(Schema):
    """What the values of a label map mean, by the model that made it: a restarted service may have another one.

    Attributes:
        codes: of the structures in DICOM objects, where the model has them.
    """

    labels: LabelSet
    codes: dict[str, StructureCode]

    @classmethod
    def of_result(cls, folder: Path) -> ResultStructures:
        """Read them from the folder of a result.

        Raises:
            ServiceError: an earlier version of Decathlete, which did not store them, made the result.
        """
        path = folder / STRUCTURES_FILE
        if not path.is_file():
            raise ServiceError(
                "the result does not contain the names of its structures: an earlier version of Decathlete made it",
                remedy="download it as nifti, or send the image again",
                code="E-SERVICE-STATE",
            )
        return cls.load(path)


@dataclass(frozen=True, kw_only=True)
class FinishedJob:
    """What a result is written from.

    Attributes:
        images: of the job, a file or DICOM folder for each channel.
        result: folder with the label map, its record and its structures.
        codes: structure -> its code in DICOM objects, which precedes that of the model.
    """

    images: Sequence[Path]
    result: Path
    codes: Mapping[str, StructureCode]


@dataclass(frozen=True, kw_only=True)
class ResultFormat:
    """A format of results.

    Attributes:
        media_type: of the answer.
        file_name: of the download; it contains nothing of the input.
        input_kinds: kinds of input that it needs; empty: any.
        package: that writes it, of the extra ``[dicom]``; empty: none is needed.
        path: returns the file of a result; another content has another path.
        write: makes that file; ``None``: every result has it.
    """

    media_type: str
    file_name: str
    path: Callable[[FinishedJob], Path]
    write: Callable[[FinishedJob, Path], None] | None = None
    input_kinds: tuple[str, ...] = ()
    package: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether its package is installed."""
        return not self.package or find_spec(self.package) is not None


def _nifti(job: FinishedJob) -> Path:
    return job.result / LABEL_FILE


def _dicom_path(kind: DicomKind, job: FinishedJob) -> Path:
    """Return the file of an object; one with other codes, as of a service before its restart, has another name."""
    return job.result / f"{value_digest(DicomOptions(codes=job.codes).as_text(kind))}.{_DICOM_FILES[kind]}"


def _write_dicom(kind: DicomKind, job: FinishedJob, path: Path) -> None:
    structures = ResultStructures.of_result(job.result)
    write_dicom_result(
        path,
        kind,
        read_label(job.result / LABEL_FILE).array_ZYX,
        labels=structures.labels,
        source=job.images[0],
        settings=PredictionRecord.load(job.result / RECORD_FILE).settings,
        options=DicomOptions(codes=job.codes),
        codes=structures.codes,
    )


def _dicom_format(kind: DicomKind, package: str) -> ResultFormat:
    return ResultFormat(
        media_type="application/dicom",
        file_name=_DICOM_FILES[kind],
        path=partial(_dicom_path, kind),
        write=partial(_write_dicom, kind),
        input_kinds=("dicom",),
        package=package,
    )


RESULT_FORMATS: dict[str, ResultFormat] = {
    "nifti": ResultFormat(media_type="application/gzip", file_name=LABEL_FILE, path=_nifti),
    "dicom-seg": _dicom_format("dicom-seg", "highdicom"),
    "rtstruct": _dicom_format("rtstruct", "contourpy"),
}
"""Formats by their names in the API."""


def formats_for(input_kind: str) -> list[str]:
    """Return the names of the formats that are offered for a kind of input."""
    return [n for n, f in RESULT_FORMATS.items() if f.is_installed and input_kind in (f.input_kinds or (input_kind,))]


def find_format(name: str, input_kind: str) -> ResultFormat:
    """Return a format of results.

    Raises:
        ServiceError: it is unknown, not for this kind of input, or its package is not installed.
    """
    chosen, offered = RESULT_FORMATS.get(name), ", ".join(formats_for(input_kind))
    if chosen is None:
        raise ServiceError(f"there is no format {name!r}", remedy=f"use one of {offered}", code="E-SERVICE-REQUEST")
    if chosen.input_kinds and input_kind not in chosen.input_kinds:
        kinds = ", ".join(chosen.input_kinds)
        raise ServiceError(
            f"results in the format {name} need an input of the kind {kinds}, and this one is {input_kind}",
            remedy=f"use one of {offered}",
            code="E-SERVICE-REQUEST",
        )
    if not chosen.is_installed:
        raise ServiceError(
            f"this service cannot write the format {name}, since {chosen.package} is not installed",
            remedy=f"use one of {offered}, or install the extra [dicom] where the service runs",
            code="E-SERVICE-NOT-OFFERED",
        )
    return chosen


def write_result(
    folder: Path,
    images: Sequence[Path],
    prediction: Prediction,
    predictor: Predictor,
    reading: Reading = Reading(),
) -> None:
    """Write a prediction into ``folder``: label map and record, as ``decathlete predict`` does, and structures.

    Args:
        reading: how the images were read, for the record.
    """
    files = OutputFiles(
        case_id="segmentation",
        images=tuple(images),
        label=folder / LABEL_FILE,
        record=folder / RECORD_FILE,
        probabilities=None,
    )
    write_outputs(
        files,
        prediction,
        digest=inputs_digest(images),
        settings=predictor.settings.revised(spacing=reading.spacing, image_formats=changed_settings(reading.formats)),
        device=str(predictor.device),
    )
    ResultStructures(labels=predictor.labels, codes=predictor.structure_codes).save(folder / STRUCTURES_FILE)
