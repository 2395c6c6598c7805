"""The service itself, without HTTP: accepts images, computes them, and deletes what is old."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter

from decathlete.errors import DecathleteError, OutputError, ServiceError
from decathlete.serving.inputs import ReceivedFile, make_image
from decathlete.serving.jobs import Job, JobStore
from decathlete.serving.metrics import ServiceMetrics
from decathlete.serving.model_cache import LabelInfo, LoadPredictor, ModelCache, describe_labels, load_predictor
from decathlete.serving.private_log import log_unexpected
from decathlete.serving.results import FinishedJob, ResultStructures, find_format, formats_for
from decathlete.serving.settings import ServiceSettings
from decathlete.serving.storage import Storage
from decathlete.serving.uploads_under_way import UploadsUnderWay
from decathlete.serving.worker import Worker

if TYPE_CHECKING:
    from decathlete.serving.dicom_node.node import DicomNode

_EXPIRY_POLL_S = 30.0
_IMAGE_THREADS = 2

log = logging.getLogger(__name__)


class Service:
    """Queue, models and files of a service. The caller holds the lock of ``settings.data``.

    Args:
        load: loads a model.
        clock: seconds since 1970.

    Attributes:
        node: the DICOM node that runs beside it, for its status; ``None``: none.
        image_lock: held while an image is read for a request, so that one at a time is in memory.
        image_threads: limits the threads of requests that wait for ``image_lock``.

    Raises:
        ModelError: a model is missing or damaged.
        OptionError: two models have one name, or one is larger than the memory for models.
        OutputError: the folder cannot be written.
    """

    node: DicomNode | None = None

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        load: LoadPredictor = load_predictor,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.models = ModelCache(
            settings.models,
            settings.options,
            codes=settings.dicom_codes,
            limit_bytes=settings.model_memory_bytes,
            load=load,
        )
        self.storage = Storage(settings.data)
        self.store = JobStore(self.storage.database, clock=clock)
        self.metrics = ServiceMetrics(self)
        self.worker = Worker(
            self.store,
            self.storage,
            self.models,
            job_seconds=settings.limits.job_seconds,
            on_finished=self.metrics.count_finished,
        )
        self.on_expiry: list[Callable[[], object]] = [self.delete_expired]
        self.stopping = threading.Event()
        self.image_lock = threading.Lock()
        self.image_threads = CapacityLimiter(_IMAGE_THREADS)
        self.uploads = UploadsUnderWay(settings.limits.uploads_at_once)
        self._expiry = threading.Thread(target=self._delete_expired, name="expiry", daemon=True)

    def start(self) -> None:
        """Remove what a killed service left, and start to compute the queue, if that is not done yet."""
        if self.worker.is_alive:
            return
        self.store.delete_awaited()
        self.storage.clean(self.store.ids())
        self.worker.start()
        self._expiry.start()

    def stop(self) -> None:
        """End the computation; jobs that are not finished stay in the queue for the next start."""
        self.stopping.set()
        self.worker.stop()
        if self._expiry.is_alive():
            self._expiry.join()
        self.store.close()

    @property
    def is_ready(self) -> bool:
        """Whether jobs are computed."""
        return self.worker.is_alive and not self.stopping.is_set()

    def check_room(self) -> None:
        """Check that the queue accepts another job.

        Raises:
            ServiceError: it is full.
        """
        if self.store.count()["queued"] >= self.settings.limits.waiting_jobs:
            raise ServiceError(
                f"{self.settings.limits.waiting_jobs} jobs wait already",
                remedy="send the request again later",
                code="E-SERVICE-BUSY",
            )

    def submit(self, files: Sequence[ReceivedFile], folder: Path, *, model: str, is_awaited: bool = False) -> Job:
        """Accept an image; image and job are on the disk when this returns.

        Args:
            files: of one image, in ``folder``.
            folder: of :meth:`Storage.upload_folder`; its files are moved away.
            model: name of the model.
            is_awaited: the sender waits for the result, so that the job ends with this process.

        Raises:
            ServiceError: the model is unknown, the queue is full, or the image is too large.
            ImageError, ArchiveError: the files are not one image for this model.
        """
        info = self.models.info(model)
        self.check_room()
        with self.image_lock:  # one image at a time in memory
            image = make_image(
                files,
                folder,
                channels=info.channels,
                image_bytes=self.settings.limits.image_bytes,
                reading=self.settings.reading,
            )
        job_id = secrets.token_hex(16)
        self.storage.accept(image.folder, job_id, self.settings.reading)
        try:
            job = self.store.add(
                job_id,
                model=model,
                input_kind=image.kind,
                keep_seconds=self.settings.limits.keep_seconds,
                warnings=image.warnings,
                is_awaited=is_awaited,
            )
        except BaseException:
            self.storage.remove(job_id)
            raise
        self.metrics.accepted.labels(model).inc()
        self.worker.wake()
        log.info("job %s: accepted for the model %s", job_id, model)
        return job

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            ServiceError: there is none of this id.
        """
        job = self.store.get(job_id)
        if job is None:
            raise ServiceError(
                "there is no such job",
                remedy="check its id; jobs are deleted on request and after a time",
                code="E-SERVICE-JOB",
            )
        return job

    def status(self, job_id: str) -> dict[str, Any]:
        """Return what the API says about a job.

        Raises:
            ServiceError: there is none of this id.
        """
        job = self.job(job_id)
        return self._status(job, self._labels(job))

    def _status(self, job: Job, labels: Sequence[LabelInfo] = ()) -> dict[str, Any]:
        running = self.worker.running
        is_current = job.state == "running" and running is not None and running.id == job.id
        return {
            "id": job.id,
            "state": job.state,
            "position": self.store.position(job),
            "progress": 1.0 if job.state == "done" else round(running.progress, 3) if is_current and running else 0.0,
            "seconds_left": self._seconds_left(job),
            "model": job.model,
            "labels": [asdict(label) for label in labels],
            "input_kind": job.input_kind,
            "formats": formats_for(job.input_kind),
            "error": None if job.error is None else asdict(job.error),
            "warnings": list(job.warnings),
            "volumes_ml": dict(job.volumes_ml),
            "voxels": dict(job.voxels),
            "created": job.created,
            "expires": job.expires,
        }

    def _labels(self, job: Job) -> Sequence[LabelInfo]:
        """Describe the structures of a finished job, by the model that computed it; empty: they are not known."""
        if job.state != "done":
            return ()
        with self.files_of(job.id):
            try:
                return describe_labels(ResultStructures.of_result(self.storage.result_folder(job.id)).labels)
            except DecathleteError:  # what needs the names says why they are missing; the label map is there
                return ()

    def delete(self, job_id: str) -> dict[str, Any]:
        """Cancel a job and delete everything of it; return its last status.

        Raises:
            ServiceError: there is none of this id.
            OutputError: the disk is full, also without its files.
        """
        status = self._status(self.job(job_id))  # no file is read: a damaged one must not prevent the deletion
        try:
            self.store.delete(job_id)
        except OutputError:  # the disk is full: without the files of the job, the database can be written
            self.storage.remove(job_id)
            self.store.delete(job_id)
        self.worker.cancel(job_id)
        self.storage.remove(job_id)
        log.info("job %s: deleted", job_id)
        return status | {"state": status["state"] if status["state"] in ("done", "failed") else "cancelled"}

    def result(self, job_id: str, format_: str = "nifti") -> Path:
        """Return the file of a finished job in a format; if it must be written, when no other image is in memory.

        Raises:
            ServiceError: there is no such job or format, or the job is not finished.
        """
        found = self.find_result(job_id, format_)
        if found is not None:
            return found
        chosen = find_format(format_, self.require_done(job_id).input_kind)
        with self.files_of(job_id), self.image_lock:
            finished = self._finished(job_id)
            path = chosen.path(finished)
            if chosen.write is not None and not path.is_file():
                chosen.write(finished, path)
        return path

    def find_result(self, job_id: str, format_: str = "nifti") -> Path | None:
        """Return the file of a finished job in a format; ``None``: :meth:`result` must write it.

        Raises:
            ServiceError: there is no such job or format, or the job is not finished.
        """
        chosen = find_format(format_, self.require_done(job_id).input_kind)
        with self.files_of(job_id):
            path = chosen.path(self._finished(job_id))
            return path if chosen.write is None or path.is_file() else None

    def _finished(self, job_id: str) -> FinishedJob:
        return FinishedJob(
            images=self.storage.input_paths(job_id),
            result=self.storage.result_folder(job_id),
            codes=self.settings.dicom_codes,
        )

    @contextmanager
    def files_of(self, job_id: str) -> Iterator[None]:
        """Use the files of a job; if it is deleted meanwhile, nothing that is made of them stays.

        Raises:
            ServiceError: it was deleted.
        """
        try:
            yield
        finally:
            if self.store.get(job_id) is None:
                self.storage.remove(job_id)
                self.job(job_id)

    def require_done(self, job_id: str) -> Job:
        """Return a job that is done.

        Raises:
            ServiceError: there is none of this id, or it is not done.
        """
        job = self.job(job_id)
        if job.error is not None:
            raise ServiceError(f"the job failed: {job.error.message}", remedy=job.error.remedy, code="E-SERVICE-STATE")
        if job.state != "done":
            raise ServiceError(
                f"the job is {job.state}", remedy="wait until its state is `done`", code="E-SERVICE-STATE"
            )
        return job

    def delete_expired(self) -> int:
        """Delete the jobs that are older than ``keep_seconds``; return their number."""
        n_deleted = 0
        for job_id in self.store.expired():
            try:
                self.delete(job_id)
                n_deleted += 1
            except DecathleteError:  # deleted by a request meanwhile
                continue
        return n_deleted

    def _seconds_left(self, job: Job) -> float | None:
        """Return the seconds until a job is finished, by the progress of the running one and the last durations."""
        if job.is_finished:
            return 0.0
        running, mean = self.worker.running, self.store.mean_seconds()
        of_running = (running.seconds_left if running else None) or (mean if running else 0.0)
        if job.state == "running":
            return None if of_running is None else round(of_running, 1)
        if mean is None or of_running is None:
            return None
        return round(of_running + mean * self.store.position(job), 1)

    def _delete_expired(self) -> None:
        wait_s = min(_EXPIRY_POLL_S, self.settings.limits.keep_seconds / 4)
        while not self.stopping.wait(wait_s):
            for delete in self.on_expiry:
                try:
                    delete()
                except Exception as problem:
                    log_unexpected(problem, "the deletion of old data")
