"""The database and the files of the DICOM node: permissions, replaced instances, versions, ages."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from decathlete.errors import OutputError
from decathlete.serving.dicom_node.instance_files import InstanceUids, StagedInstance
from decathlete.serving.dicom_node.node_database import transaction
from decathlete.serving.dicom_node.node_store import NodeStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def store(folder: Path) -> Iterator[NodeStore]:
    with closing(NodeStore(folder)) as opened:
        yield opened


def store_instances(store: NodeStore, *contents: bytes, now: float = 0.0, **changes: str) -> int:
    """Store instances of one series; the number of new ones."""
    with store.arriving() as folder:
        return store.register(staged_instances(folder, *contents, **changes), now=now)


def staged_instances(folder: Path, *contents: bytes, **changes: str) -> Iterator[StagedInstance]:
    for number, content in enumerate(contents):
        uids = InstanceUids(**{"sop_uid": f"1.1{number}", "series_uid": "1.2", "study_uid": "1.3"} | changes)
        path = folder / str(number)
        path.write_bytes(content)
        yield StagedInstance.of_file(path, uids, origin="store")


def contents(store: NodeStore) -> list[bytes]:
    return [path.read_bytes() for path in sorted((store.folder / "series").rglob("*.dcm"))]


def open_jobs(store: NodeStore, now: float = 20.0) -> int:
    return store.open_jobs(quiet_since=now - 10, busy=frozenset(), now=now)


@pytest.mark.parametrize("exists", [False, True])
def test_others_cannot_read_the_folder(folder: Path, exists: bool) -> None:
    if exists:
        folder.mkdir()
        folder.chmod(0o755)
    with closing(NodeStore(folder)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_instance_that_is_replaced_leaves_no_file(store: NodeStore) -> None:
    assert store_instances(store, b"one") == 1
    assert store_instances(store, b"another", now=1.0) == 1
    assert (contents(store), store.stored_bytes()) == ([b"another"], 7)
    assert store_instances(store, b"moved", now=2.0, series_uid="1.9") == 1
    assert contents(store) == [b"moved"]
    assert len(list((store.folder / "series").iterdir())) == 1
    (file,) = store.files("1.9")
    assert file.read_bytes() == b"moved"
    assert store.files("1.2") == ()


def test_all_instances_are_stored_or_none(store: NodeStore) -> None:
    def broken(folder: Path) -> Iterator[StagedInstance]:
        yield from staged_instances(folder, b"new", sop_uid="1.7")
        raise ConnectionError

    store_instances(store, b"one")
    with store.arriving() as folder, pytest.raises(ConnectionError):
        store.register(broken(folder), now=1.0)
    assert (contents(store), store.count_instances("1.2")) == ([b"one"], 1)
    assert store_instances(store, b"new", now=2.0, sop_uid="1.7") == 1  # the database still works


def test_others_are_stored_while_a_series_is_written_to_the_disk(
    store: NodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, stored = os.fsync, list[int]()

    def store_another(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        other = threading.Thread(
            target=lambda: stored.append(store_instances(store, b"x", sop_uid="9", series_uid="8"))
        )
        other.start()
        other.join(60)  # against a test that hangs
        assert stored == [1]
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", store_another)
    assert store_instances(store, b"one", b"two") == 2
    assert sorted(contents(store)) == [b"one", b"two", b"x"]


def test_stored_instances_and_the_names_of_their_files_are_on_the_disk(
    store: NodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, synced = os.fsync, set[int]()
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(os.fstat(fd).st_ino), fsync(fd)))
    store_instances(store, b"one", b"two")
    files = list((store.folder / "series").rglob("*.dcm"))
    expected = {store.folder / "series", *files, *(file.parent for file in files)}
    assert len(files) == 2
    assert synced >= {path.stat().st_ino for path in expected}


@pytest.mark.parametrize("version", [0, 99])
def test_a_database_of_another_version_is_not_used(folder: Path, version: int) -> None:
    folder.mkdir()
    with closing(sqlite3.connect(folder / "node.sqlite")) as database:
        database.execute("CREATE TABLE jobs (number INTEGER)")
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    with pytest.raises(OutputError, match=f"format {version}, not 1") as caught:
        NodeStore(folder)
    assert "another --data" in str(caught.value.remedy)


def test_a_database_is_used_again(folder: Path) -> None:
    with closing(NodeStore(folder)) as store:
        store_instances(store, b"one")
    with closing(NodeStore(folder)) as store:
        assert store.count_instances("1.2") == 1


def test_jobs_of_series_are_deleted_by_a_model_of_several_channels(folder: Path) -> None:
    with closing(NodeStore(folder, unit="series", digests=["a"])) as store:
        store_instances(store, b"one")
        store_instances(store, b"other", sop_uid="2.1", series_uid="2.2")
        assert open_jobs(store) == 2
        sent, _queued = store.jobs()
        store.finish(sent, "sent")
        store.job_folder(sent).mkdir(parents=True)
    with closing(NodeStore(folder, unit="study", digests=["b"])) as store:
        assert open_jobs(store) == 1
        job = store.next_job("queued")
        assert job is not None
        assert job.unit_uid == "1.3"
        assert store.delete_old(before=100.0) == 0  # its job is not finished
        store.finish(job, "sent")
        assert store.delete_old(before=100.0) == 1
        assert (store.jobs(), contents(store)) == ((), [])
        assert not store.job_folder(sent).exists()


def test_results_that_were_not_sent_are_kept(folder: Path) -> None:
    with closing(NodeStore(folder, unit="series")) as store:
        store_instances(store, b"one")
        open_jobs(store)
        store.finish(store.jobs()[0], "computed")
    with closing(NodeStore(folder, unit="study")) as store:
        assert store.delete_old(before=100.0) == 1
        (job,) = store.jobs()
        assert store.next_job("computed") == job


def steps_of(store: NodeStore) -> int:
    """Hundreds of steps that SQLite makes where a node looks for work and for old series, and there are none."""
    n_steps = 0

    def count() -> int:
        nonlocal n_steps
        n_steps += 1
        return 0

    open_jobs(store)  # what is there already is looked at once
    store._database.set_progress_handler(count, 100)
    assert (open_jobs(store), store.delete_old(before=5.0), store.next_job("queued", now=0.0)) == (0, 0, None)
    return n_steps


def test_a_node_without_work_does_not_look_at_all_instances(tmp_path: Path) -> None:
    found = []
    for n_instances in (50, 5000):
        folder = tmp_path / str(n_instances)
        with closing(NodeStore(folder)) as store, transaction(store._database):
            store._database.executemany(
                "INSERT INTO instances (sop_uid, series_uid, study_uid, digest, file, n_bytes, origin, received) "
                "VALUES (?, '1.2', '1.3', 'd', 'f', 1, 'store', 9.0)",
                [(str(number),) for number in range(n_instances)],
            )
        with closing(NodeStore(folder)) as store:
            assert open_jobs(store) == 1
            (job,) = store.jobs()
            store.finish(job, "sent")
            found.append(steps_of(store))
    assert found[1] < found[0] + 10


def test_a_job_that_could_not_be_stored_is_made_later(store: NodeStore) -> None:
    store_instances(store, b"one")
    store._database.execute("CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.IntegrityError, match="full"):
        open_jobs(store)
    store._database.execute("DROP TRIGGER full")
    assert (open_jobs(store), open_jobs(store)) == (1, 0)
