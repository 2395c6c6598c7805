"""The queue: order, states, restarts, deletion and expiry."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from decathlete.errors import ModelError
from decathlete.serving.jobs import JobError, JobStore
from decathlete.serving.storage import Storage
from decathlete.serving.worker import Worker


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "jobs.sqlite", clock=clock)
    yield opened
    opened.close()


def add(store: JobStore, *ids: str) -> None:
    for job_id in ids:
        store.add(job_id, model="m", input_kind="nifti", keep_seconds=100)


class FullOnce(JobStore):
    """A queue whose disk is full when the first job ends."""

    has_failed = False

    def fail(self, job_id: str, error: JobError) -> bool:
        if not self.has_failed:
            self.has_failed = True
            raise sqlite3.OperationalError("database or disk is full")
        return super().fail(job_id, error)


class NoModels:
    """A service without models, so that every job fails."""

    def use(self, name: str, *, check: Callable[[], None]) -> None:
        check()
        raise ModelError("was replaced", where=name)


def test_jobs_start_in_the_order_of_acceptance(store: JobStore) -> None:
    add(store, "c", "a", "b")
    waiting = [store.get(i) for i in "cab"]
    assert [store.position(job) for job in waiting if job] == [1, 2, 3]
    started = [store.take_next() for _ in range(4)]
    assert [job and job.id for job in started] == ["c", "a", "b", None]
    assert all(job.starts == 0 and job.state == "running" for job in started if job)  # they may wait for their model


def test_warnings_of_an_upload_stay_when_its_job_fails(store: JobStore) -> None:
    store.add("a", model="m", input_kind="dicom", keep_seconds=100, warnings=["not used: 1 file (a localizer)"])
    assert store.take_next()
    store.fail("a", JobError(code="E-IMAGE", message="is damaged", remedy=None))
    job = store.get("a")
    assert job
    assert (job.state, job.warnings) == ("failed", ("not used: 1 file (a localizer)",))


def test_a_job_that_is_put_back_was_not_started(store: JobStore) -> None:
    add(store, "a", "b")
    waiting = store.get("b")
    for is_computed in (False, True, True):
        taken = store.take_next()
        assert taken is not None
        assert (taken.id, taken.starts) == ("a", 0)
        if is_computed:
            store.count_start("a")
        store.put_back(taken)
    assert waiting
    store.put_back(waiting)
    assert [(job.state, job.starts, job.started) for i in "ab" if (job := store.get(i))] == [("queued", 0, None)] * 2


def test_a_finished_job_keeps_what_it_was_told(store: JobStore, clock: Clock) -> None:
    add(store, "a", "b")
    store.take_next()
    clock.now += 60  # it waits for its model, which is no part of the duration
    store.count_start("a")
    clock.now += 4
    assert store.publish("a", volumes_ml={"liver": 1.5}, voxels={"liver": 3}, warnings=["spacing"])
    store.take_next()
    assert store.fail("b", JobError(code="E-IMAGE", message="cut", remedy="send it again"))
    done, failed = store.get("a"), store.get("b")
    assert done
    assert (done.state, done.warnings, done.finished) == ("done", ("spacing",), 1064.0)
    assert (done.volumes_ml, done.voxels) == ({"liver": 1.5}, {"liver": 3})
    assert failed
    assert failed.error == JobError(code="E-IMAGE", message="cut", remedy="send it again")
    assert store.mean_seconds() == 4.0
    assert store.count() == {"queued": 0, "running": 0, "done": 1, "failed": 1}


def test_a_result_is_published_once_and_never_for_a_deleted_job(store: JobStore) -> None:
    add(store, "a", "b")
    store.take_next()
    assert store.publish("a", volumes_ml={}, voxels={}, warnings=[])
    assert not store.publish("a", volumes_ml={}, voxels={}, warnings=[])
    store.take_next()
    store.delete("b")
    assert not store.publish("b", volumes_ml={}, voxels={}, warnings=[])
    assert not store.fail("b", JobError(code="E", message="", remedy=None))
    assert store.ids() == {"a"}


def test_a_restart_computes_the_interrupted_job_first(tmp_path: Path, clock: Clock) -> None:
    killed = JobStore(tmp_path / "jobs.sqlite", clock=clock)
    add(killed, "a", "b")
    killed.take_next()
    killed.count_start("a")
    later = JobStore(tmp_path / "jobs.sqlite", clock=clock)  # the first one is not closed, as after SIGKILL
    assert later.requeue_running() == 1
    first, second = later.take_next(), later.take_next()
    assert first
    assert second
    assert (first.id, first.starts, second.id, second.starts) == ("a", 1, "b", 0)
    later.close()
    killed.close()


def test_old_jobs_expire_whatever_their_state(store: JobStore, clock: Clock) -> None:
    add(store, "a")
    clock.now += 60
    add(store, "b")
    clock.now += 40
    assert store.expired() == ["a"]
    clock.now += 60
    assert store.expired() == ["a", "b"]


def test_many_threads_take_each_job_once(store: JobStore) -> None:
    add(store, *(f"{n:03d}" for n in range(40)))
    taken: list[str] = []

    def take() -> None:
        while job := store.take_next():
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"{n:03d}" for n in range(40)]


def test_a_job_whose_end_cannot_be_stored_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decathlete.serving.worker._POLL_S", 0.01)
    finished, storage, store = threading.Event(), Storage(tmp_path), FullOnce(tmp_path / "jobs.sqlite")
    (storage.job_folder("a") / "input").mkdir(parents=True)
    add(store, "a")
    worker = Worker(store, storage, NoModels(), job_seconds=9, on_finished=lambda *_: finished.set())  # type: ignore[arg-type]
    worker.start()
    assert finished.wait(60)
    worker.stop()
    job = store.get("a")
    store.close()
    assert job
    assert (job.state, job.starts) == ("failed", 0)
    assert job.error
    assert job.error.code == "E-MODEL"


def test_a_queue_of_an_older_release_is_read(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    add(store, "a")
    store.close()
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    for column in ("voxels", "is_awaited"):
        database.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    database.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    job = again.get("a")
    again.close()
    assert job
    assert (job.voxels, job.is_awaited) == ({}, False)
