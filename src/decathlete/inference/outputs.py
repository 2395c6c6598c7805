"""Where predictions go, and what of them is there already.

A prediction is done when its JSON names the same inputs and settings *and* the digest of the label map beside it. The
JSON is written just before the finished label map is moved into place, so a run that is killed between the two leaves
nothing in the way; and a label map that someone has edited is noticed, and never overwritten unasked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.files import atomic_path, file_digest, remove
from decathlete.dataset.images import output_suffix, write_image, write_label
from decathlete.errors import DecathleteError, OutputError
from decathlete.inference.predict import Prediction
from decathlete.inference.provenance import PredictionRecord, Settings, inputs_digest

log = logging.getLogger(__name__)

_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case to predict: its files, and where its outputs go.

    Attributes:
        probabilities: ``None`` if they are not asked for.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path
    record: Path
    probabilities: Path | None


def make_jobs(inputs: Mapping[str, Sequence[Path]], output: Path, *, save_probabilities: bool) -> dict[str, Job]:
    """Jobs by case: ``ID`` + the input's suffix, ``ID.json`` and, if asked for, ``ID_probabilities.nii.gz``.

    Raises:
        OutputError: ``output`` holds the inputs themselves.
    """
    _refuse_input_folder(inputs, output)
    return {
        case_id: Job(
            case_id=case_id,
            images=tuple(images),
            label=output / f"{case_id}{output_suffix(images[0])}",
            record=output / f"{case_id}.json",
            probabilities=output / f"{case_id}_probabilities.nii.gz" if save_probabilities else None,
        )
        for case_id, images in inputs.items()
    }


def _refuse_input_folder(inputs: Mapping[str, Sequence[Path]], output: Path) -> None:
    for images in inputs.values():
        for image in images:
            if output.resolve() == (image if image.is_dir() else image.parent).resolve():
                raise OutputError(
                    "holds the input images, which predictions must not mix with",
                    where=output,
                    remedy="choose another output folder",
                )


def finished(job: Job, settings: Settings) -> PredictionRecord | None:
    """The record of a job that is done already, from the same inputs and settings and unchanged since."""
    record = _read_record(job)
    if record is None or record.settings != settings or not job.label.is_file():
        return None
    if job.probabilities is not None and not (record.probabilities and job.probabilities.is_file()):
        return None
    same = record.label_digest == file_digest(job.label) and record.inputs_digest == _digest_of_readable(job.images)
    return record if same else None


def in_the_way(job: Job, settings: Settings) -> list[Path]:
    """Files at a job's places that are not an earlier, unchanged or unfinished result of the same."""
    record = _read_record(job)
    ours = (
        record is not None
        and record.settings == settings
        and record.inputs_digest == _digest_of_readable(job.images)
        and (not job.label.exists() or file_digest(job.label) == record.label_digest)
    )
    if ours:
        return []
    return [p for p in (job.label, job.record, job.probabilities) if p is not None and p.exists()]


def refuse(paths: Iterable[Path], output: Path) -> None:
    """Raise an OutputError that lists ``paths``, if there are any."""
    names = [path.name for path in paths]
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise OutputError(
            f"holds files made from other inputs or settings: {', '.join(names[:_LISTED])}{more}",
            where=output,
            remedy="choose another folder, or give --overwrite to replace them",
        )


def write_outputs(
    job: Job, prediction: Prediction, *, digest: str, settings: Settings, device: str
) -> PredictionRecord:
    """Write label map, record and probabilities; each appears whole or not at all."""
    if job.probabilities is not None and prediction.probabilities_KZYX is not None:
        write_image(job.probabilities, prediction.probabilities_KZYX, prediction.geometry)
    with atomic_path(job.label) as partial:
        write_label(partial, prediction.label_ZYX, prediction.geometry)
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
            warnings=prediction.warnings,
            seconds=prediction.seconds,
        )
        if job.label.exists():
            remove(job.label)  # the old one must not stand beside the new record
        record.save(job.record)
    return record


def _read_record(job: Job) -> PredictionRecord | None:
    if not job.record.is_file():
        return None
    try:
        return PredictionRecord.load(job.record)
    except DecathleteError:
        log.debug("%s is not the record of a prediction", job.record)
        return None


def _digest_of_readable(images: Sequence[Path]) -> str | None:
    """``None`` for files that cannot be read; the error is told when the case's turn comes."""
    try:
        return inputs_digest(images)
    except OSError:
        return None
