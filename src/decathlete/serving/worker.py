"""Computes the jobs of a service one after another, in the order in which they were accepted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from decathlete.core.files import output_code, temporary_folder
from decathlete.core.memory import is_out_of_memory, translate_out_of_memory
from decathlete.errors import DecathleteError, InsufficientMemoryError, OutputError, ServiceError
from decathlete.inference.predict import IMAGE_TOO_LARGE, Predictor
from decathlete.inference.prediction import Prediction
from decathlete.io.images import read_channels
from decathlete.io.reading import Reading
from decathlete.serving.jobs import Job, JobError, JobStore
from decathlete.serving.model_cache import ModelCache
from decathlete.serving.private_log import collect_warnings, log_unexpected, without_folders
from decathlete.serving.results import write_result
from decathlete.serving.storage import Storage

MAX_STARTS = 10
"""How many times a job is started: a job that ends the whole process each time must not do so for ever."""

_READ_SHARE = 0.1
_COMPUTED_SHARE = 0.95
_POLL_S = 1.0

log = logging.getLogger(__name__)


class JobCancelled(Exception):
    """Ends the computation of a job that was deleted, or of any job when the service ends."""


@dataclass(kw_only=True)
class RunningJob:
    """The job that is computed now.

    Attributes:
        progress: share of its work that is done, 0..1.
        began: reading of the monotonic clock when its model was free.
        cancelled: set by another thread to end it.
    """

    id: str
    progress: float = 0.0
    began: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds_left(self) -> float | None:
        """Remaining seconds by the progress so far; ``None``: too early to tell."""
        if self.progress <= _READ_SHARE:
            return None
        return (time.monotonic() - self.began) * (1 - self.progress) / self.progress


class Worker:
    """A thread that computes the queue.

    Args:
        job_seconds: longest computation of one job.
        on_finished: called with each job and its duration in seconds, for the metrics.
    """

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        models: ModelCache,
        *,
        job_seconds: float,
        on_finished: Callable[[str, float], None] = lambda _state, _seconds: None,
    ) -> None:
        self._store, self._storage, self._models = store, storage, models
        self._job_seconds, self._on_finished = job_seconds, on_finished
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self.running: RunningJob | None = None
        self._problem = ""

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; jobs that a killed service was computing come first."""
        requeued = self._store.requeue_running()
        if requeued:
            log.info("%d job that was interrupted is computed again", requeued)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the job that is computed now stays in the queue."""
        self._stopping.set()
        self._wake.set()
        running = self.running
        if running is not None:
            running.cancelled.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Tell the thread that a job was added."""
        self._wake.set()

    def cancel(self, job_id: str) -> None:
        """End the computation of a job, if it is the one that is computed now."""
        running = self.running
        if running is not None and running.id == job_id:
            running.cancelled.set()

    def _run(self) -> None:
        is_interrupted = False
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if is_interrupted:  # the end of a job could not be stored, so it is still running in the database
                    self._store.requeue_running()
                    is_interrupted = False
                job = self._store.take_next()
                if job is None:
                    self._wake.wait(_POLL_S)
                else:
                    self._finish(job)
                self._report(None)
            except Exception as problem:  # such as a full disk below the database: try again later
                self._report(problem)
                is_interrupted = True
                self._stopping.wait(_POLL_S)

    def _report(self, problem: Exception | None) -> None:
        """Log once that the queue cannot be used, and once that it can again."""
        text = "" if problem is None else problem.problem if isinstance(problem, OutputError) else repr(problem)
        before, self._problem = self._problem, text
        if text == before:
            return
        if problem is None:
            log.info("the queue can be used again")
        elif isinstance(problem, OutputError):
            log.error("the queue %s; tried again every %g s", text, _POLL_S)
        else:
            log_unexpected(problem, "the queue")

    def _finish(self, job: Job) -> None:
        """Compute a job and record how it ended."""
        self.running = RunningJob(id=job.id)
        try:
            state = self._compute(job, self.running)
        except JobCancelled:
            state = "cancelled"
            if self._stopping.is_set():  # an orderly end is no crash
                self._store.put_back(job)
        except Exception as problem:
            self._store.fail(job.id, describe_error(problem, self._storage.root))
            state = "failed"
        finally:
            seconds, self.running = time.monotonic() - self.running.began, None
        if self._store.get(job.id) is None:
            self._storage.remove(job.id)
        if not self._stopping.is_set():
            log.info("job %s: %s after %.1f s", job.id, state, seconds)
            self._on_finished(state, seconds)

    def _compute(self, job: Job, running: RunningJob) -> str:
        if job.starts >= MAX_STARTS:
            raise ServiceError(
                f"the service ended {MAX_STARTS} times while it computed this job",
                remedy="crop the image, or predict it with `decathlete predict`",
                code="E-SERVICE-CRASH",
            )
        if self._store.get(job.id) is None:
            raise JobCancelled
        images, reading = self._storage.input_paths(job.id), self._storage.reading_of(job.id)
        with (
            self._models.use(job.model, check=lambda: self._check_wanted(running)) as predictor,
            temporary_folder(self._storage.job_folder(job.id)) as folder,
        ):
            running.began = time.monotonic()  # a computation of the DICOM node before it counts for no time limit
            self._check_wanted(running)
            self._store.count_start(job.id)  # a wait for the model is no start
            with collect_warnings() as logged:
                prediction = self._predict(images, reading, predictor, folder, running)
            of_readers = (without_folders(text, images[0].parent, self._storage.root) for text in logged)
            warnings = dict.fromkeys([*prediction.warnings, *job.warnings, *of_readers])  # readers warned before, too
            prediction = replace(prediction, warnings=tuple(warnings))
            result = folder / "result"
            result.mkdir()
            write_result(result, images, prediction, predictor, reading)
            self._check(running)
            self._storage.publish(result, job.id)
        published = self._store.publish(
            job.id, volumes_ml=prediction.volumes_ml, voxels=prediction.voxels, warnings=prediction.warnings
        )
        return "done" if published else "cancelled"

    def _predict(
        self, images: list[Path], reading: Reading, predictor: Predictor, folder: Path, running: RunningJob
    ) -> Prediction:
        with translate_out_of_memory("the image", remedy=IMAGE_TOO_LARGE):
            image = read_channels(
                images,
                spacing=reading.spacing,
                formats=reading.formats,
                n_channels=predictor.n_channels,
            )
            prepared = predictor.prepare(image)

        def report(share: float) -> None:
            running.progress = _READ_SHARE + (_COMPUTED_SHARE - _READ_SHARE) * share
            self._check(running)

        report(0.0)
        return predictor.compute(prepared, scratch=folder, progress=report)

    def _check_wanted(self, running: RunningJob) -> None:
        if running.cancelled.is_set() or self._stopping.is_set():
            raise JobCancelled

    def _check(self, running: RunningJob) -> None:
        """Raise if the job is to be ended."""
        self._check_wanted(running)
        if time.monotonic() - running.began > self._job_seconds:
            raise ServiceError(
                f"the computation took longer than {self._job_seconds:g} s",
                remedy="crop the image, or start the service with a larger --max-time",
                code="E-SERVICE-TIME",
            )


def describe_error(problem: Exception, root: Path, *, of: str = "job") -> JobError:
    """Describe why a job or a request failed, without paths of the service; unexpected errors are logged."""
    if not isinstance(problem, DecathleteError):
        if is_out_of_memory(problem):
            problem = InsufficientMemoryError("out of memory", remedy=IMAGE_TOO_LARGE)
        elif isinstance(problem, OSError) and (code := output_code(problem)) != OutputError.code:
            problem = OutputError("the disk of the service is full", remedy="free disk space", code=code)
        else:
            log_unexpected(problem, f"a {of}")
            problem = ServiceError(f"the {of} failed unexpectedly", remedy="look at the log of the service")
    message = without_folders(problem.problem, root)
    return JobError(code=problem.code, message=message, remedy=problem.remedy)
