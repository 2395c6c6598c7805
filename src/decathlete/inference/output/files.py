"""Where predictions go, and what of them is there already.

A prediction is done when its JSON names the same inputs and settings *and* the digest of the label map beside it; the
probabilities, if they are asked for, have to be as long as their header says (they may be gigabytes, which are not read
again). The JSON is written just before the finished label map is moved into place, so a run that is killed between the
two leaves nothing in the way; and a label map that someone has edited is noticed, and never overwritten unasked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decathlete.core.files import atomic_path, file_digest, remove
from decathlete.errors import DecathleteError, OutputError
from decathlete.inference.output.probabilities import ProbabilityFile, is_whole
from decathlete.inference.output.provenance import PredictionRecord, Settings, inputs_digest
from decathlete.inference.predict import Prediction
from decathlete.io.images import output_suffix, write_label
from decathlete.preprocessing.store import StoredCase

log = logging.getLogger(__name__)

_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case to predict: its files, and where its outputs go.

    Attributes:
        probabilities: ``None`` if they are not asked for.
        stored: the case as it was prepared before; ``images`` are then names alone.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path
    record: Path
    probabilities: Path | None
    stored: StoredCase | None = None

    def inputs_digest(self) -> str:
        """Of the raw files.

        Raises:
            OSError: one of them cannot be read.
        """
        known = self.stored.record.raw if self.stored else None
        return known.digest if known else inputs_digest(self.images)


def make_jobs(inputs: Mapping[str, Sequence[Path]], output: Path, *, save_probabilities: bool) -> dict[str, Job]:
    """Jobs by case: ``ID`` + the input's suffix, ``ID.json`` and, if asked for, ``ID_probabilities.nii``.

    Raises:
        OutputError: ``output`` holds the inputs themselves.
    """
    _refuse_input_folder(inputs, output)
    return {
        case_id: _job(case_id, images, output, save_probabilities=save_probabilities)
        for case_id, images in inputs.items()
    }


def stored_jobs(cases: Iterable[StoredCase], output: Path, *, save_probabilities: bool) -> dict[str, Job]:
    """The same for cases that were prepared to be predicted (:class:`RawImage` says what of).

    Raises:
        OutputError: ``output`` is where they are.
    """
    jobs = {}
    for case in cases:
        if output.resolve() in (case.folder.resolve(), *case.folder.resolve().parents[:2]):
            raise OutputError(
                "holds the prepared cases", where=output, remedy="choose another output folder", code="E-OUTPUT-INPUT"
            )
        raw = case.record.raw
        assert raw is not None  # for the type checker: checked where the store was opened
        images = [Path(name) for name in raw.files]
        job = _job(case.case_id, images, output, save_probabilities=save_probabilities)
        jobs[case.case_id] = replace(job, stored=case)
    return jobs


def _job(case_id: str, images: Sequence[Path], output: Path, *, save_probabilities: bool) -> Job:
    return Job(
        case_id=case_id,
        images=tuple(images),
        label=output / f"{case_id}{output_suffix(images[0])}",
        record=output / f"{case_id}.json",
        probabilities=output / f"{case_id}_probabilities.nii" if save_probabilities else None,
    )


def _refuse_input_folder(inputs: Mapping[str, Sequence[Path]], output: Path) -> None:
    for images in inputs.values():
        for image in images:
            if output.resolve() == (image if image.is_dir() else image.parent).resolve():
                raise OutputError(
                    "holds the input images, which predictions must not mix with",
                    where=output,
                    remedy="choose another output folder",
                    code="E-OUTPUT-INPUT",
                )


def finished(job: Job, settings: Settings) -> PredictionRecord | None:
    """The record of a job that is done already, from the same inputs and settings and unchanged since.

    It holds ``settings`` themselves: ten thousand equal ones would be 15 MB.
    """
    record = _read_record(job)
    if record is None or record.settings != settings or not job.label.is_file():
        return None
    if job.probabilities is not None and not (record.probabilities and is_whole(job.probabilities)):
        return None
    same = record.label_digest == file_digest(job.label) and record.inputs_digest == _digest_of_readable(job)
    return record.model_copy(update={"settings": settings}) if same else None


def in_the_way(job: Job, settings: Settings) -> list[Path]:
    """Files at a job's places that are not an earlier, unchanged or unfinished result of the same."""
    record = _read_record(job)
    ours = (
        record is not None
        and record.settings == settings
        and record.inputs_digest == _digest_of_readable(job)
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
            code="E-OUTPUT-EXISTS",
        )


def write_outputs(
    job: Job, prediction: Prediction, *, digest: str, settings: Settings, device: str
) -> PredictionRecord:
    """Write label map and record, and let the finished probabilities appear; each whole or not at all."""
    try:
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
    """``None`` for files that cannot be read; the error is told when the case's turn comes."""
    try:
        return job.inputs_digest()
    except OSError:
        return None
