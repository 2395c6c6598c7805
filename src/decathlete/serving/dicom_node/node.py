"""The node itself: makes jobs of series that are complete, computes them, and delivers their results."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from decathlete.core.files import TEMPORARY_PREFIX, remove
from decathlete.errors import DecathleteError, ImageError, InsufficientMemoryError, OutputError, ServiceError
from decathlete.io.dicom_series import DicomSeries, sort_series, stage_series
from decathlete.serving.dicom_node.archive import Archive
from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.delivery import send_by_store, send_by_web
from decathlete.serving.dicom_node.failures import NodeStoppedError, backoff_seconds, describe_failure
from decathlete.serving.dicom_node.instance_files import linked_files
from decathlete.serving.dicom_node.node_job import NodeJob, NodeStatus
from decathlete.serving.dicom_node.node_store import NodeStore
from decathlete.serving.dicom_node.receiver import Receiver
from decathlete.serving.dicom_node.settings import DicomNodeSettings

Segment = Callable[[Sequence[Path], Path], Sequence[Path]]
"""Segments an image (a folder or file for each channel), writes objects into a folder, and returns their files."""

MAX_STARTS = 3
"""How many times a job is computed, so that a crash does not repeat without end."""
_STEP_S = 0.5

log = logging.getLogger(__name__)


class DicomNode:
    """Receives series, segments them with a model, and sends the results.

    Args:
        segment: computes one image.
        choice: of the series that are segmented; others are skipped.
        digests: digests of the model; series with a SEG that names one are skipped.
        stopping: set by :meth:`stop`; ``segment`` may raise :class:`NodeStoppedError` then.
        wait_for_model: waits until nothing else uses the model, and keeps it for ``segment``; it may raise
            :class:`NodeStoppedError`, too. The wait is no start of the job: it does not count if the program ends.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        settings: DicomNodeSettings,
        segment: Segment,
        *,
        choice: SeriesChoice = SeriesChoice(),
        digests: Sequence[str] = (),
        stopping: threading.Event | None = None,
        wait_for_model: Callable[[], AbstractContextManager[object]] = nullcontext,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.store = NodeStore(settings.data, unit=choice.unit, digests=digests)
        self._segment, self._choice, self._clock = segment, choice, clock
        self._stopping, self._wait_for_model = stopping or threading.Event(), wait_for_model
        self._receiver = Receiver(settings, self.store, clock=clock) if settings.port is not None else None
        self._archive = (
            Archive(
                settings.dicomweb,
                modalities=choice.modalities or settings.modalities,
                choice=choice,
                digests=digests,
                max_bytes=settings.max_bytes,
                image_bytes=settings.image_bytes,
                first_wait_s=settings.retry_seconds,
                should_stop=self._stopping.is_set,
                clock=clock,
            )
            if settings.dicomweb
            else None
        )
        self._next_poll = 0.0
        self._archive_problem: str | None = None
        self._threads = [threading.Thread(target=self._repeat, args=(step,), daemon=True) for step in self._steps()]

    @property
    def port(self) -> int | None:
        """The port that it listens at, after :meth:`start`."""
        return self._receiver.port if self._receiver is not None else None

    def start(self) -> None:
        """Listen, and work in threads of its own.

        Raises:
            OptionError: the port cannot be used.
        """
        settings, channels = self.settings, ", ".join(self._choice.channels)
        if self._receiver is not None:
            self._receiver.start()
            log.info("%s receives series at %s:%d (channels: %s)", settings.aet, settings.host, self.port, channels)
        if self._archive is not None:
            log.info("%s is queried every %g s (channels: %s)", settings.dicomweb, settings.poll_seconds, channels)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what is not finished is continued at the next start."""
        self._stopping.set()
        if self._receiver is not None:
            self._receiver.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self.store.close()

    def poll(self) -> bool:
        """Query the archive if it is time; return whether a series was copied."""
        now = self._clock()
        if self._archive is None or now < self._next_poll:
            return False
        self._next_poll = now + self.settings.poll_seconds
        try:
            n_copied = self._archive.fetch_new(self.store)
        except NodeStoppedError:
            return False
        except Exception as problem:  # of requests, in many kinds; the archive may be back at the next poll
            self._report_archive(describe_failure(problem))
            return False
        self._report_archive(None)
        return n_copied > 0

    def status(self) -> NodeStatus:
        """Return what the node has done, and what it waits for."""
        jobs = self.store.jobs()
        return NodeStatus(
            jobs=dict(Counter(job.state for job in jobs)),
            n_undelivered=sum(job.state == "computed" and job.attempts > 0 for job in jobs),
            failed_copies=self._archive.failed.list() if self._archive is not None else (),
            archive_problem=self._archive_problem,
        )

    def compute_next(self) -> bool:
        """Make jobs of what is complete, and compute one; return whether there was one."""
        now = self._clock()
        busy = self._receiver.busy_series() if self._receiver is not None else frozenset()
        busy |= self._archive.busy_studies(self.store) if self._archive is not None else frozenset()
        self.store.open_jobs(quiet_since=now - self.settings.quiet_seconds, busy=busy, now=now)
        self.store.delete_old(now - self.settings.keep_seconds)
        job = self.store.next_job("queued", now=now)
        if job is None:
            return False
        self._compute(job)
        return True

    def deliver_next(self) -> bool:
        """Send the results of a job that is due; return whether there was one."""
        job = self.store.next_job("computed", now=self._clock())
        if job is None:
            return False
        try:
            self._send(job, sorted((self.store.job_folder(job) / "results").iterdir()))
        except Exception as problem:  # other results must not wait for this one, whatever is wrong with it
            self._keep_result(job, describe_failure(problem))
            return True
        self.store.finish(job, "sent")
        remove(self.store.job_folder(job))
        log.info("job %d: delivered", job.number)
        return True

    def _steps(self) -> list[Callable[[], bool]]:
        """Computing, sending and polling do not wait for one another."""
        return [self.compute_next, self.deliver_next, *([self.poll] if self._archive is not None else [])]

    def _repeat(self, step: Callable[[], bool]) -> None:
        while not self._stopping.is_set():
            try:
                worked = step()
            except Exception as problem:  # such as a full disk below the database: try again later
                log.error("the DICOM node failed unexpectedly: %s", type(problem).__name__)
                worked = False
            if not worked:
                self._stopping.wait(_STEP_S)

    def _postpone(self, job: NodeJob) -> float:
        """Let a job wait before its next attempt; return for how many seconds."""
        wait_s = backoff_seconds(self.settings.retry_seconds, job.attempts + 1)
        self.store.postpone(job, self._clock() + wait_s)
        return wait_s

    def _keep_result(self, job: NodeJob, reason: str) -> None:
        """Let a result that was not accepted wait, or give it up when it is too old to be kept."""
        if self._clock() < job.created + self.settings.keep_seconds:
            wait_s = self._postpone(job)
            log.warning("job %d: not delivered (%s); sent again in %.0f s", job.number, reason, wait_s)
            return
        self.store.finish(job, "failed", f"its result was not accepted: {reason}")
        remove(self.store.job_folder(job))
        log.error("job %d: failed, and its result is deleted: it was not accepted (%s)", job.number, reason)

    def _report_archive(self, problem: str | None) -> None:
        """Log once that the archive cannot be queried, and once that it can again."""
        if problem is not None and problem != self._archive_problem:
            log.warning("the archive could not be queried (%s); tried every %g s", problem, self.settings.poll_seconds)
        elif problem is None and self._archive_problem is not None:
            log.info("the archive can be queried again")
        self._archive_problem = problem

    def _compute(self, job: NodeJob) -> None:
        if job.starts >= MAX_STARTS:
            self.store.finish(job, "failed", f"its computation ended the program {MAX_STARTS} times")
            return
        if job.content != self.store.content_of(job.unit_uid):
            self._skip(job, "more instances arrived, which a later job segments, too")
            return
        self.store.count_start(job)
        try:
            self._segment_job(job)
        except NodeStoppedError:
            self.store.postpone(job, self._clock())  # its start does not count: an orderly end is no crash
        except Exception as problem:
            reason = describe_failure(problem)
            if _is_temporary(problem) and self._clock() < job.created + self.settings.keep_seconds:
                log.warning("job %d: not computed (%s); tried again in %.0f s", job.number, reason, self._postpone(job))
            else:
                self._fail(job, problem)

    def _fail(self, job: NodeJob, problem: Exception) -> None:
        if isinstance(problem, DecathleteError):
            self.store.finish(job, "failed", f"{problem.code}: {type(problem).__name__}")
            log.warning("job %d: failed (%s)", job.number, problem.code)
        else:
            self.store.finish(job, "failed", type(problem).__name__)
            log.error("job %d: failed unexpectedly (%s)", job.number, type(problem).__name__)

    def _segment_job(self, job: NodeJob) -> None:
        if not self.store.is_complete(job.unit_uid):
            reason = "files of its earlier instances were deleted to make room: send all of them again"
            self.store.finish(job, "failed", reason)
            log.warning("job %d: failed (%s)", job.number, reason)
            return
        with linked_files(self.store.files(job.unit_uid), self.store.job_folder(job) / "received") as received:
            try:
                scan = sort_series(sorted(received.iterdir()))
                images = self._choice.choose(scan)
            except ImageError as problem:
                self._skip(job, problem.problem)
                return
            sources = [file for image in images for series in image for file in series.files]
            if (earlier := self.store.claim_sources(job, sources)) is not None:
                self._skip(job, f"job {earlier} segmented the same series")
                return
            if left_out := self._choice.left_out(scan, images):
                log.info("job %d: not segmented: %s", job.number, "; ".join(left_out))
            self._segment_images(job, images)

    def _skip(self, job: NodeJob, reason: str) -> None:
        self.store.finish(job, "skipped", reason)
        log.info("job %d: skipped (%s)", job.number, reason)

    def _segment_images(self, job: NodeJob, images: Sequence[Sequence[DicomSeries]]) -> None:
        folder = self.store.job_folder(job)
        for leftover in (folder / "series", folder / "results", *folder.glob(f"{TEMPORARY_PREFIX}*")):
            remove(leftover)
        (folder / "results").mkdir(parents=True)
        self.store.reset_starts(job)
        with self._wait_for_model():
            self.store.count_start(job)
            self._segment_each(images, folder)
        self.store.finish(job, "computed")
        log.info("job %d: computed", job.number)

    def _segment_each(self, images: Sequence[Sequence[DicomSeries]], folder: Path) -> None:
        for number, image in enumerate(images):
            sources = [stage_series(one, folder / "series" / f"{number}_{c}") for c, one in enumerate(image)]
            self._segment(sources, folder / "results")

    def _send(self, job: NodeJob, files: Sequence[Path]) -> None:
        if job.origin == "web" and self._archive is not None:
            send_by_web(files, self._archive.client)
        elif job.origin == "store" and self.settings.send_to is not None:
            send_by_store(files, self.settings.send_to, self.settings.aet)
        else:
            raise ServiceError("the receiver of its results is no longer configured", remedy="name it again")


def _is_temporary(problem: Exception) -> bool:
    """Return whether a computation may succeed later: the disk or the memory was full or could not be used."""
    if isinstance(problem, OutputError):
        return problem.code != "E-OUTPUT-DICOM"  # the series lacks what a segmentation object needs
    return isinstance(problem, OSError | InsufficientMemoryError)
