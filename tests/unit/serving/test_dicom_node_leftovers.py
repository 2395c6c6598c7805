"""What a DICOM node left in the folder of a service is deleted when it is old, also if the service runs no node."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from decathlete.serving.dicom_node.leftovers import NodeLeftovers
from decathlete.serving.dicom_node.node_store import NodeStore
from decathlete.serving.http.server import serve
from dicom_node_support import Clock, slices, store_datasets
from service_support import save_model, settings_for, wait_until

KEEP_S = 100.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A node with a study of 1000 s and a series of 1050 s; a result of the study was not sent."""
    folder = tmp_path / "data" / "dicom-node"
    (tmp_path / "data").mkdir()
    with closing(NodeStore(folder, unit="study", digests=["a"])) as store:
        store_datasets(store, slices(tmp_path, "ct"), now=1000.0)
        assert store.open_jobs(quiet_since=1010.0, busy=frozenset(), now=1010.0) == 1
        (job,) = store.jobs()
        result = store.job_folder(job) / "results" / "0.seg.dcm"
        result.parent.mkdir(parents=True)
        result.write_bytes(b"of a patient")
        store.finish(job, "computed")
        store_datasets(store, slices(tmp_path, "late", study="another"), now=1050.0)
    return folder


@pytest.fixture
def leftovers(folder: Path, clock: Clock) -> Iterator[NodeLeftovers]:
    with closing(NodeLeftovers(folder, keep_seconds=KEEP_S, clock=clock)) as opened:
        yield opened


def n_files(folder: Path) -> int:
    return sum(path.suffix == ".dcm" for path in folder.rglob("*"))


def test_series_and_results_are_deleted_at_their_age(leftovers: NodeLeftovers, folder: Path, clock: Clock) -> None:
    found = []
    for now in (1099.0, 1101.0, 1111.0, 1151.0):
        clock.now = now
        leftovers.delete_old()
        found.append((n_files(folder), folder.exists()))
    assert found == [(7, True), (4, True), (3, True), (0, False)]
    leftovers.delete_old()  # nothing is left to delete
    assert not folder.exists()


def test_a_service_without_a_node_deletes_them(folder: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    settings = settings_for(model, tmp_path / "data", port=0, limits={"keep_seconds": 0.4})

    def wait_and_stop(_address: str) -> None:
        wait_until(lambda: not folder.exists())
        os.kill(os.getpid(), signal.SIGINT)

    serve(settings, on_start=wait_and_stop)
    assert not folder.exists()


def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(tmp_path / "node.sqlite")) as database:
        database.execute("CREATE TABLE jobs (number INTEGER)")
    leftovers = NodeLeftovers(tmp_path, keep_seconds=KEEP_S)
    leftovers.delete_old()
    assert "what a DICOM node left is not deleted" in caplog.text
    assert str(tmp_path / "node.sqlite") in caplog.text
    assert "another version of Decathlete" in caplog.text


def test_a_service_that_had_no_node_gets_no_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        NodeLeftovers(tmp_path / "dicom-node", keep_seconds=KEEP_S).delete_old()
    assert (list(tmp_path.iterdir()), caplog.text) == ([], "")
