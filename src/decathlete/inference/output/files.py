"""The files of predictions: where they are written, and which exist already.

A prediction is finished when its JSON contains the same inputs and settings *and* the digest of the label map beside
it; probabilities must be as long as their header says (they may be gigabytes, which are not read again). The JSON is
written just before the label map is moved to its place, so a run that is killed between the two leaves no conflict. A
label map that was edited is detected, and not overwritten without ``--overwrite``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import atomic_path, file_digest, remove
from decathlete.core.geometry import Geometry
from decathlete.errors import DecathleteError, OutputError
from decathlete.inference.output.probabilities import ProbabilityFile, is_complete_file
from decathlete.inference.output.provenance import PredictionRecord, RecordedSettings, inputs_digest
from decathlete.inference.prediction import Prediction
from decathlete.io.image_files import PROBABILITIES
from decathlete.io.images import output_suffix, write_label
from decathlete.preprocessing.store import StoredCase

log = logging.getLogger(__name__)

_LISTED = 10
WriteLabel = Callable[[Path, NDArray[np.integer[Any]], Geometry], None]
"""Writes label values on their grid to a path."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case to predict: its input files and its output files.

    Attributes:
        label: file of the label map.
        record: JSON file beside it.
        probabilities: file, if they are saved.
        stored: the case, if it was prepared before; ``images`` are then only names.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path
    record: Path
    probabilities: Path | None
    stored: StoredCase | None = None

    def inputs_digest(self) -> str:
        """Return the digest of the raw files.

        Raises:
            OSError: one of them cannot be read.
        """
        raw = self.stored.record.raw if self.stored else None
        return raw.digest if raw else inputs_digest(self.images)


def make_jobs(
    inputs: Mapping[str, Sequence[Path]],
    output: Path,
    *,
    save_probabilities: bool,
    suffix: Callable[[Path], str] = output_suffix,
) -> dict[str, Job]:
    """Return jobs by case, with outputs ``ID`` + suffix, ``ID.json`` and ``ID_probabilities.nii``.

    Args:
        suffix: returns the suffix of the label map of an image.

    Raises:
        OutputError: ``output`` holds the inputs themselves.
    """
    _check_not_input_folder(inputs, output)
    return {
        case_id: _job(case_id, images, output, save_probabilities=save_probabilities, suffix=suffix)
        for case_id, images in inputs.items()
    }


def stored_jobs(
    cases: Iterable[StoredCase],
    output: Path,
    *,
    save_probabilities: bool,
    suffix: Callable[[Path], str] = output_suffix,
) -> dict[str, Job]:
    """Return jobs of cases that were prepared for prediction.

    Raises:
        OutputError: ``output`` is the folder of the prepared cases.
    """
    jobs = {}
    for case in cases:
        if output.resolve() in (case.folder.resolve(), *case.folder.resolve().parents[:2]):
            raise OutputError(
                "contains the prepared cases",
                where=output,
                remedy="choose another output folder",
                code="E-OUTPUT-INPUT",
            )
        raw = case.record.raw
        assert raw is not None  # for the type checker: checked where the store was opened
        images = [Path(name) for name in raw.files]
        job = _job(case.case_id, images, output, save_probabilities=save_probabilities, suffix=suffix)
        jobs[case.case_id] = replace(job, stored=case)
    return jobs


def _job(
    case_id: str, images: Sequence[Path], output: Path, *, save_probabilities: bool, suffix: Callable[[Path], str]
) -> Job:
    return Job(
        case_id=case_id,
        images=tuple(images),
        label=output / f"{case_id}{suffix(images[0])}",
        record=output / f"{case_id}.json",
        probabilities=output / f"{case_id}{PROBABILITIES}.nii" if save_probabilities else None,
    )


def _check_not_input_folder(inputs: Mapping[str, Sequence[Path]], output: Path) -> None:
    for images in inputs.values():
        for image in images:
            if output.resolve() == (image if image.is_dir() else image.parent).resolve():
                raise OutputError(
                    "contains the input images; predictions need a folder of their own",
                    where=output,
                    remedy="choose another output folder",
                    code="E-OUTPUT-INPUT",
                )


def read_finished(job: Job, settings: RecordedSettings) -> PredictionRecord | None:
    """Return the record of a job that is finished, made from the same inputs and settings and unchanged since.

    The record refers to the object ``settings``: ten thousand equal copies would need 15 MB.
    """
    record = _read_record(job)
    if record is None or record.settings != settings or not job.label.is_file():
        return None
    if job.probabilities is not None and not (record.probabilities and is_complete_file(job.probabilities)):
        return None
    same = record.label_digest == file_digest(job.label) and record.inputs_digest == _digest_of_readable(job)
    return record.model_copy(update={"settings": settings}) if same else None


def find_conflicts(job: Job, settings: RecordedSettings) -> list[Path]:
    """Return existing output files of a job, unless they are an unchanged result of the same inputs and settings."""
    record = _read_record(job)
    same = (
        record is not None
        and record.settings == settings
        and record.inputs_digest == _digest_of_readable(job)
        and (not job.label.exists() or file_digest(job.label) == record.label_digest)
    )
    if same:
        return []
    return [p for p in (job.label, job.record, job.probabilities) if p is not None and p.exists()]


def find_foreign_files(job: Job) -> list[Path]:
    """Return existing output files of a job that are not as a prediction wrote them: changed, or of unknown origin."""
    record = _read_record(job)
    if record is None:
        return [path for path in (job.label, job.record) if path.exists()]
    is_changed = job.label.exists() and file_digest(job.label) != record.label_digest
    return [job.label] if is_changed else []


def raise_conflicts(paths: Iterable[Path], output: Path) -> None:
    """Raise an OutputError that lists ``paths``, if there are any."""
    names = [path.name for path in paths]
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise OutputError(
            f"contains files made from other inputs or settings: {', '.join(names[:_LISTED])}{more}",
            where=output,
            remedy="choose another folder, or use --overwrite to replace them",
            code="E-OUTPUT-EXISTS",
        )


def write_outputs(
    job: Job,
    prediction: Prediction,
    *,
    digest: str,
    settings: RecordedSettings,
    device: str,
    write: WriteLabel = write_label,
) -> PredictionRecord:
    """Write label map and record, and move the probabilities to their place; each whole or not at all.

    Args:
        write: writes the label map.
    """
    try:
        with atomic_path(job.label) as partial:
            write(partial, prediction.label_ZYX, prediction.geometry)
            record = PredictionRecord(
                case_id=job.case_id,
                inputs=tuple(path.name for path in job.images),
                inputs_digest=digest,
                label=job.label.name,
                label_digest=file_digest(partial),
                probabilities=job.probabilities.name if job.probabilities else None,
                settings=settings,
                device=device,
                volumes_ml=prediction.volumes_ml,
                voxels=prediction.voxels,
                warnings=prediction.warnings,
                seconds=prediction.seconds,
            )
            if job.label.exists():
                remove(job.label)  # the old one must not stand beside the new record
            record.save(job.record)
            if job.probabilities is not None and isinstance(prediction.probabilities, ProbabilityFile):
                prediction.probabilities.move_to(job.probabilities)
        return record
    finally:
        if prediction.probabilities is not None:
            prediction.probabilities.discard()


def _read_record(job: Job) -> PredictionRecord | None:
    if not job.record.is_file():
        return None
    try:
        return PredictionRecord.load(job.record)
    except DecathleteError:
        log.debug("%s is not the record of a prediction", job.record)
        return None


def _digest_of_readable(job: Job) -> str | None:
    """Return ``None`` for files that cannot be read: predicting the case raises the error."""
    try:
        return job.inputs_digest()
    except OSError:
        return None
