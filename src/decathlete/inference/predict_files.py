"""Predict many files into a folder: resumable, one bad case never stops the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from decathlete.core.files import remove_partials, writable_folder
from decathlete.core.memory import translate_out_of_memory
from decathlete.core.progress import CaseProgress
from decathlete.errors import CasesFailedError, ImageError
from decathlete.inference.batching.cases import predict_together
from decathlete.inference.batching.pipeline import overlapped
from decathlete.inference.batching.shared_batches import CaseRequest
from decathlete.inference.output.files import Job, finished, in_the_way, make_jobs, refuse, stored_jobs, write_outputs
from decathlete.inference.output.probabilities import ProbabilityFile
from decathlete.inference.output.provenance import PredictionRecord
from decathlete.inference.predict import READING_SHORT, Prediction, Predictor, PreparedInput
from decathlete.inference.prepared_inputs import stored_ready
from decathlete.io.images import find_inputs, read_channels
from decathlete.preprocessing.store import StoredCase

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictedFile:
    """A prediction on disk.

    Attributes:
        path: of the label map.
        kept: it was there already, made from the same inputs and settings.
    """

    case_id: str
    path: Path
    record: PredictionRecord
    kept: bool


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What is known of a case whose image was read.

    Attributes:
        digest: of the files, as they were read.
    """

    job: Job
    digest: str


def predict_files(
    predictor: Predictor,
    inputs: Path | Mapping[str, Sequence[Path]] | Sequence[StoredCase],
    output: Path,
    *,
    save_probabilities: bool = False,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> list[PredictedFile]:
    """Predict every case into ``output``: ``ID`` + the input's suffix, and ``ID.json`` with volumes and provenance.

    Predictions that are there already, made from the same inputs and settings, are kept.

    Args:
        inputs: an image, a DICOM folder, a folder of images (``ID_0000`` ... are channels), or files by case; or cases
            that were prepared for these models (:func:`~decathlete.inference.prepared_inputs.stored_cases`).
        save_probabilities: also write ``ID_probabilities.nii``, float32, a channel for each class or region; they go to
            disk as they are computed, so that memory never holds them all.
        overwrite: replace what other inputs or settings made.

    Raises:
        OutputError: ``output`` cannot be written, holds the inputs, or holds something else (and not ``overwrite``);
            before any work is done.
        ImageError: nothing to predict.
        CasesFailedError: at the end, if some cases failed.
    """
    found: Mapping[str, Sequence[Path]] | Sequence[StoredCase]
    found = find_inputs(inputs, n_channels=predictor.n_channels) if isinstance(inputs, Path) else inputs
    if not found:
        where = inputs if isinstance(inputs, Path) else None
        raise ImageError(
            "there are no images to predict",
            where=where,
            remedy="name an image or a folder of images",
            code="E-IMAGE-NOT-FOUND",
        )
    if isinstance(found, Mapping):
        jobs = make_jobs(found, output, save_probabilities=save_probabilities)
    else:
        jobs = stored_jobs(found, output, save_probabilities=save_probabilities)
    remove_partials(writable_folder(output))
    done = _finished(jobs, predictor)
    open_jobs = {case_id: job for case_id, job in jobs.items() if case_id not in done}
    if not overwrite:
        refuse((path for job in open_jobs.values() for path in in_the_way(job, predictor.settings)), output)
    failures = _predict(open_jobs, predictor, done, progress, total=len(jobs))
    if failures:
        raise CasesFailedError(failures, n_done=len(done), doing="predict")
    return [done[case_id] for case_id in jobs]


def _finished(jobs: Mapping[str, Job], predictor: Predictor) -> dict[str, PredictedFile]:
    done = {}
    for case_id, job in jobs.items():
        record = finished(job, predictor.settings)
        if record is not None:
            done[case_id] = PredictedFile(case_id=case_id, path=job.label, record=record, kept=True)
    return done


def _predict(
    jobs: Mapping[str, Job],
    predictor: Predictor,
    done: dict[str, PredictedFile],
    progress: CaseProgress | None,
    *,
    total: int,
) -> dict[str, str]:
    """Predict ``jobs`` and add them to ``done``; case -> message of those that failed."""

    def read(job: Job) -> CaseRequest[_Read]:
        if job.stored is not None:
            return _asked(job, stored_ready(job.stored, predictor))
        with translate_out_of_memory("the image", remedy=READING_SHORT):
            image = read_channels(job.images)
        return _asked(job, predictor.prepare(image, job.case_id))

    def write(computed: tuple[_Read, Prediction]) -> PredictedFile:
        read, prediction = computed
        with translate_out_of_memory("the files to write", remedy=READING_SHORT):
            record = write_outputs(
                read.job,
                prediction,
                digest=read.digest,
                settings=predictor.settings,
                device=str(predictor.device),
            )
        return PredictedFile(case_id=read.job.case_id, path=read.job.label, record=record, kept=False)

    failures: dict[str, str] = {}
    alone = predictor.memory_bytes is not None
    compute = partial(predict_together, predictor)
    for outcome in overlapped(jobs, read=read, compute=compute, write=write, one_at_a_time=alone):
        if outcome.value is None:
            failures[outcome.case_id] = outcome.error or "failed"
            log.info("%s failed; the others continue, errors are listed at the end", outcome.case_id)
        else:
            done[outcome.case_id] = outcome.value
            for warning in outcome.value.record.warnings:
                log.warning("%s: %s", outcome.case_id, warning)
        if progress is not None:
            progress(len(done) + len(failures), total, outcome.case_id)
    return failures


def _asked(job: Job, ready: PreparedInput) -> CaseRequest[_Read]:
    folder = job.label.parent
    return CaseRequest(
        ready=ready,
        about=_Read(job=job, digest=job.inputs_digest()),
        probabilities=partial(ProbabilityFile.nifti, folder) if job.probabilities else None,
        scratch=folder,
    )
