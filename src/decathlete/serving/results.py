"""Results of jobs in the formats that the API offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from decathlete.core.choices import DicomKind
from decathlete.errors import ServiceError
from decathlete.inference.output.dicom import write_dicom_result
from decathlete.inference.output.files import Job as OutputFiles
from decathlete.inference.output.files import write_outputs
from decathlete.inference.output.provenance import PredictionRecord, inputs_digest
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import Prediction
from decathlete.io.images import read_label
from decathlete.serving.model_cache import ModelInfo

LABEL_FILE = "segmentation.nii.gz"
RECORD_FILE = "segmentation.json"
_DICOM_FILES: dict[DicomKind, str] = {"dicom-seg": "segmentation.seg.dcm", "rtstruct": "segmentation.rtstruct.dcm"}


@dataclass(frozen=True, kw_only=True)
class FinishedJob:
    """What a result is written from.

    Attributes:
        images: of the job, a file or DICOM folder for each channel.
        result: folder with the label map and its record.
        input_kind: see :class:`~decathlete.serving.jobs.Job`.
    """

    images: Sequence[Path]
    result: Path
    input_kind: str
    model: ModelInfo


@dataclass(frozen=True, kw_only=True)
class ResultFormat:
    """A format of results.

    Attributes:
        media_type: of the answer.
        file_name: of the download; it contains nothing of the input.
        input_kinds: kinds of input that it needs; empty: any.
        package: that writes it, of the extra ``[dicom]``; empty: none is needed.
        write: returns the file, which it makes if need be.
    """

    media_type: str
    file_name: str
    write: Callable[[FinishedJob], Path]
    input_kinds: tuple[str, ...] = ()
    package: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether its package is installed."""
        return not self.package or find_spec(self.package) is not None


def _nifti(job: FinishedJob) -> Path:
    return job.result / LABEL_FILE


def _dicom(kind: DicomKind, job: FinishedJob) -> Path:
    path = job.result / _DICOM_FILES[kind]
    if not path.is_file():
        write_dicom_result(
            path,
            kind,
            read_label(job.result / LABEL_FILE).array_ZYX,
            labels=job.model.label_set,
            source=job.images[0],
            settings=PredictionRecord.load(job.result / RECORD_FILE).settings,
            codes=job.model.structure_codes,
        )
    return path


def _dicom_format(kind: DicomKind, package: str) -> ResultFormat:
    return ResultFormat(
        media_type="application/dicom",
        file_name=_DICOM_FILES[kind],
        write=partial(_dicom, kind),
        input_kinds=("dicom",),
        package=package,
    )


RESULT_FORMATS: dict[str, ResultFormat] = {
    "nifti": ResultFormat(media_type="application/gzip", file_name=LABEL_FILE, write=_nifti),
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


def write_result(folder: Path, images: Sequence[Path], prediction: Prediction, predictor: Predictor) -> None:
    """Write label map and record of a prediction into ``folder``, as ``decathlete predict`` does."""
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
        settings=predictor.settings,
        device=str(predictor.device),
    )
