"""Predict many files into a folder. Finished cases are kept, and a case that fails does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from decathlete.core.documents import is_unicode
from decathlete.core.files import remove_partials
from decathlete.core.geometry import Triple
from decathlete.core.locks import locked_folder
from decathlete.core.memory import translate_out_of_memory
from decathlete.core.progress import CaseProgress
from decathlete.dataset.killed_cases import cases_in_work, mark_in_work, unmark
from decathlete.errors import CasesFailedError, ImageError
from decathlete.inference.batching.case_predictor import CasePredictor, LocalCasePredictor
from decathlete.inference.batching.shared_batches import CaseRequest, CaseResult
from decathlete.inference.output.files import (
    Job,
    find_conflicts,
    make_jobs,
    raise_conflicts,
    read_finished,
    stored_jobs,
    write_outputs,
)
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.output.probabilities import ProbabilityFile
from decathlete.inference.output.provenance import PredictionRecord, RecordedSettings
from decathlete.inference.predict import IMAGE_TOO_LARGE, Predictor
from decathlete.inference.prediction import PreparedInput
from decathlete.inference.prepared_inputs import read_stored
from decathlete.inference.requirements import limit_prediction
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import find_inputs, read_channels
from decathlete.preprocessing.store import StoredCase

log = logging.getLogger(__name__)

_MEMORY_REMEDY = "close other programs, or use a computer with more memory"


@dataclass(frozen=True, kw_only=True)
class PredictedFile:
    """A prediction on disk.

    Attributes:
        path: of the label map.
        record: the JSON beside it.
        kept: it existed already, made from the same inputs and settings.
    """

    case_id: str
    path: Path
    record: PredictionRecord
    kept: bool


@dataclass(frozen=True, kw_only=True)
class _ReadJob:
    """A job whose image was read.

    Attributes:
        digest: of the image files when they were read.
    """

    job: Job
    digest: str


def predict_files(
    predictor: Predictor | CasePredictor,
    inputs: Path | Mapping[str, Sequence[Path]] | Sequence[StoredCase],
    output: Path,
    *,
    save_probabilities: bool = False,
    spacing: Triple | None = None,
    kind: OutputKind = OutputKind(),
    overwrite: bool = False,
    unusable: Mapping[str, ImageError] = {},
    progress: CaseProgress | None = None,
) -> list[PredictedFile]:
    """Predict every case into ``output``: ``ID`` + the suffix of its kind, and ``ID.json`` with volumes and provenance.

    Predictions that exist already, made from the same inputs and settings, are kept.

    Args:
        predictor: loaded models, or models that are loaded elsewhere
            (:func:`~decathlete.inference.batching.case_predictor.make_case_predictor`).
        inputs: an image, a DICOM folder, a folder of images (``ID_0000`` ... are channels), or files by case; or cases
            that were prepared for these models (:func:`~decathlete.inference.prepared_inputs.stored_cases`).
        save_probabilities: also write ``ID_probabilities.nii``, float32, a channel for each class or region. They are
            written to disk while they are computed, so that memory never holds them all.
        spacing: z, y, x in mm, for images whose files do not contain their spacing.
        kind: kind of the label maps; the input's own by default, and NIfTI for DICOM.
        overwrite: replace files made from other inputs or settings.
        unusable: cases whose files cannot be used, which fail like images that cannot be read.
        progress: called after each case.

    Raises:
        OutputError: ``output`` cannot be written, its disk has too little free space, it holds the inputs, or it holds
            other files (and not ``overwrite``), or another process works in it; before any work is done.
        ImageError: there is nothing to predict.
        OptionError: an input cannot be written as this kind.
        CasesFailedError: at the end, if some cases failed.
    """
    models = LocalCasePredictor(predictor) if isinstance(predictor, Predictor) else predictor
    failed = dict(unusable)
    jobs = _make_jobs(_find_cases(inputs, models, failed), output, kind=kind, save_probabilities=save_probabilities)
    settings = kind.recorded(_with_spacing(models.facts.settings, spacing))
    with locked_folder(output):
        models.require_shared(reads=_example_inputs(jobs), writes=[output])
        done = _find_finished(jobs, settings)
        open_jobs = {case_id: job for case_id, job in jobs.items() if case_id not in done}
        if not overwrite:
            conflicts = (path for job in open_jobs.values() for path in find_conflicts(job, settings))
            raise_conflicts(conflicts, output)
        limit_prediction(models, open_jobs, output, spacing=spacing, formats=kind.settings_of_formats)
        with cases_in_work(output, verb="predicted", remedy=_MEMORY_REMEDY):
            failures = _predict(open_jobs, models, spacing, kind, done, progress, total=len(jobs))
        if not isinstance(models, LocalCasePredictor):
            remove_partials(output)  # of worker processes that were killed
    failures |= {case_id: str(problem) for case_id, problem in failed.items()}
    if failures:
        raise CasesFailedError(failures, n_done=len(done), doing="predict")
    return [done[case_id] for case_id in jobs]


def _find_cases(
    inputs: Path | Mapping[str, Sequence[Path]] | Sequence[StoredCase],
    models: CasePredictor,
    failed: dict[str, ImageError],
) -> Mapping[str, Sequence[Path]] | Sequence[StoredCase]:
    """Return the cases of the inputs, at least one; those whose files cannot be used are added to ``failed``.

    Raises:
        ImageError: there are no images, or none can be used.
        CasesFailedError: several cannot be used, and no other is there.
    """
    cases = (
        find_inputs(inputs, n_channels=models.facts.n_channels, failures=failed) if isinstance(inputs, Path) else inputs
    )
    if not cases:
        _raise_failures(failed)
        raise ImageError(
            "there are no images to predict",
            where=inputs if isinstance(inputs, Path) else None,
            remedy="name an image or a folder of images",
            code="E-IMAGE-NOT-FOUND",
        )
    return cases


def _make_jobs(
    cases: Mapping[str, Sequence[Path]] | Sequence[StoredCase],
    output: Path,
    *,
    kind: OutputKind,
    save_probabilities: bool,
) -> dict[str, Job]:
    """Return a job for each case.

    Raises:
        OptionError: an input cannot be written as this kind.
        OutputError: ``output`` contains the inputs.
    """
    if isinstance(cases, Mapping):
        kind.check(cases)
        return make_jobs(cases, output, save_probabilities=save_probabilities, suffix=kind.suffix)
    kind.check({case.case_id: (case.folder,) for case in cases})
    return stored_jobs(cases, output, save_probabilities=save_probabilities, suffix=kind.suffix)


def _raise_failures(failed: Mapping[str, ImageError]) -> None:
    """Raise the errors of cases, if there are any; a single one as it is."""
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        messages = {case_id: str(problem) for case_id, problem in failed.items()}
        raise CasesFailedError(messages, n_done=0, doing="predict")


def _with_spacing(settings: RecordedSettings, spacing: Triple | None) -> RecordedSettings:
    return settings if spacing is None else settings.revised(spacing=spacing)


def _example_inputs(jobs: Mapping[str, Job]) -> list[Path]:
    """Return the input files of the first case."""
    job = next(iter(jobs.values()))
    return [job.stored.folder] if job.stored is not None else list(job.images)


def _find_finished(jobs: Mapping[str, Job], settings: RecordedSettings) -> dict[str, PredictedFile]:
    done = {}
    for case_id, job in jobs.items():
        record = read_finished(job, settings)
        if record is not None:
            done[case_id] = PredictedFile(case_id=case_id, path=job.label, record=record, kept=True)
    return done


def _predict(
    jobs: Mapping[str, Job],
    models: CasePredictor,
    spacing: Triple | None,
    kind: OutputKind,
    done: dict[str, PredictedFile],
    progress: CaseProgress | None,
    *,
    total: int,
) -> dict[str, str]:
    """Predict ``jobs`` and add them to ``done``; return case -> message of those that failed."""
    settings = kind.recorded(_with_spacing(models.facts.settings, spacing))
    read = partial(_read_job, spacing=spacing, formats=kind.settings_of_formats)
    write = partial(_write_job, spacing=spacing, kind=kind)
    failures: dict[str, str] = {}
    for outcome in models.run(jobs, read=read, write=write):
        if outcome.value is None:
            unmark(jobs[outcome.case_id].label.parent, outcome.case_id)
            failures[outcome.case_id] = outcome.error or "failed"
            log.info("%s failed; the others continue, errors are listed at the end", outcome.case_id)
        else:
            record = outcome.value.model_copy(update={"settings": settings})  # one object for all
            done[outcome.case_id] = PredictedFile(
                case_id=outcome.case_id, path=jobs[outcome.case_id].label, record=record, kept=False
            )
            for warning in outcome.value.warnings:
                log.warning("%s: %s", outcome.case_id, warning)
        if progress is not None:
            progress(len(done) + len(failures), total, outcome.case_id)
    return failures


def _check_name(job: Job) -> None:
    """Reject a case whose name cannot be stored in its record."""
    if not is_unicode(job.case_id) or any(c in job.case_id for c in "\r\n"):
        raise ImageError(
            "has a name with bytes that are not UTF-8, or with a line break",
            where=job.images[0],
            remedy="rename the file",
            code="E-IMAGE-NAME",
        )


def _read_job(
    predictor: Predictor, job: Job, *, spacing: Triple | None, formats: FormatSettings
) -> CaseRequest[_ReadJob]:
    _check_name(job)
    mark_in_work(job.label.parent, job.case_id)
    if job.stored is not None:
        return _request(job, read_stored(job.stored, predictor))
    with translate_out_of_memory("the image", remedy=IMAGE_TOO_LARGE):
        image = read_channels(job.images, spacing=spacing, formats=formats, n_channels=predictor.n_channels)
    return _request(job, predictor.prepare(image, case_id=job.case_id))


def _write_job(
    predictor: Predictor, computed: CaseResult[_ReadJob], *, spacing: Triple | None, kind: OutputKind
) -> PredictionRecord:
    read_job, prediction = computed
    settings = kind.recorded(_with_spacing(predictor.settings, spacing))
    write = partial(
        kind.write,
        labels=predictor.labels,
        source=read_job.job.images[0],
        settings=settings,
        codes=predictor.structure_codes,
    )
    with translate_out_of_memory("the files to write", remedy=IMAGE_TOO_LARGE):
        record = write_outputs(
            read_job.job,
            prediction,
            digest=read_job.digest,
            settings=settings,
            device=str(predictor.device),
            write=write,
        )
    unmark(read_job.job.label.parent, read_job.job.case_id)
    return record


def _request(job: Job, prepared: PreparedInput) -> CaseRequest[_ReadJob]:
    folder = job.label.parent
    return CaseRequest(
        prepared=prepared,
        payload=_ReadJob(job=job, digest=job.inputs_digest()),
        probabilities=partial(ProbabilityFile.nifti, folder) if job.probabilities else None,
        scratch=folder,
    )
