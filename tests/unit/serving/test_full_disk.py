"""A service whose disk is full, or whose database is damaged: it says so, frees room, and continues."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from decathlete.errors import OutputError
from decathlete.serving.dicom_node.node_store import NodeStore
from decathlete.serving.http.server import serve
from decathlete.serving.jobs import Job, JobStore
from decathlete.serving.service import Service
from decathlete.serving.storage import Storage
from decathlete.serving.worker import Worker
from service_support import save_model, settings_for

FULL = OutputError("cannot be written: the disk is full", code="E-DISK-FULL")


def add(store: JobStore, job_id: str) -> None:
    store.add(job_id, model="m", input_kind="nifti", keep_seconds=100)


def add_many(store: JobStore) -> None:
    for number in range(10_000):
        add(store, f"{number:032x}")


def test_a_database_that_cannot_grow_says_that_the_disk_is_full(tmp_path: Path) -> None:
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        store._connection.execute("PRAGMA max_page_count = 10")
        with pytest.raises(OutputError, match="the disk is full") as caught:
            add_many(store)
        assert caught.value.code == "E-DISK-FULL"
        n_jobs = len(store.ids())
        store._connection.execute("PRAGMA max_page_count = 1000")
        add(store, "f" * 32)
        assert store.count()["queued"] == n_jobs + 1


@pytest.mark.parametrize(
    ("name", "open_"), [("jobs.sqlite", lambda folder: JobStore(folder / "jobs.sqlite")), ("node.sqlite", NodeStore)]
)
def test_a_damaged_database_is_an_error_that_names_it(
    tmp_path: Path, name: str, open_: Callable[[Path], object]
) -> None:
    (tmp_path / name).write_bytes(b"no database at all" * 500)
    with pytest.raises(OutputError, match="is damaged") as caught:
        open_(tmp_path)
    assert caught.value.where == tmp_path / name


class FullWith(JobStore):
    """A queue on a disk that is full as long as a folder exists."""

    folder: Path

    def delete(self, job_id: str) -> Job | None:
        if self.folder.exists():
            raise FULL
        return super().delete(job_id)


def test_a_job_is_deleted_although_the_disk_is_full(tmp_path: Path) -> None:
    now = [0.0]
    service = Service(settings_for(save_model(tmp_path / "model"), tmp_path / "data"), clock=lambda: now[0])
    service.store.close()
    service.store = full = FullWith(service.storage.database, clock=lambda: now[0])
    add(full, "a" * 32)
    full.folder = service.storage.job_folder("a" * 32)
    (full.folder / "input").mkdir(parents=True)
    now[0] = 100.0
    assert service.delete_expired() == 1
    assert (full.ids(), full.folder.exists()) == (set(), False)
    service.stop()


class FullAtFirst(JobStore):
    """A queue whose disk is full when the first jobs are taken."""

    n_failures = 0
    is_usable = threading.Event()

    def take_next(self) -> Job | None:
        if self.n_failures < 5:
            self.n_failures += 1
            raise FULL
        if self.n_failures == 5:
            self.n_failures += 1
            return super().take_next()
        self.is_usable.set()
        return super().take_next()


def test_a_queue_that_cannot_be_used_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("decathlete.serving.worker._POLL_S", 0.01)
    store = FullAtFirst(tmp_path / "jobs.sqlite")
    worker = Worker(store, Storage(tmp_path), None, job_seconds=9)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO):
        worker.start()
        assert store.is_usable.wait(600)  # against a test that hangs
        worker.stop()
    store.close()
    assert caplog.text.count("the queue cannot be written: the disk is full") == 1
    assert caplog.text.count("the queue can be used again") == 1


def test_a_service_that_cannot_start_ends_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: JobStore) -> int:
        raise FULL

    monkeypatch.setattr(JobStore, "requeue_running", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        serve(settings_for(save_model(tmp_path / "model"), tmp_path / "data", port=0))
