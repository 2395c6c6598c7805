"""Locks: one process writes, others wait or are told who writes, and a lock ends with its process."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from decathlete.core import locks
from decathlete.core.locks import LOCK_NAME, Owner, locked_folder, locked_output, reading, require_no_readers
from decathlete.errors import OutputError
from guards import HANG_S

Lock = Callable[..., AbstractContextManager[Any]]
LOCKS: list[Lock] = [locked_folder, locked_output, reading]
SPAWN = multiprocessing.get_context("spawn")


def hold(lock: Lock, path: Path, connection: Connection) -> None:
    """Take a lock, say so, and keep it until told to release it."""
    with lock(path):
        connection.send(os.getpid())
        connection.recv()


@contextmanager
def holder(lock: Lock, path: Path) -> Iterator[tuple[multiprocessing.process.BaseProcess, Connection]]:
    """Another process that holds a lock."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(lock, path, there))
    process.start()
    there.close()
    assert here.poll(HANG_S), "the process does not get the lock"
    assert here.recv() == process.pid
    try:
        yield process, here
    finally:
        process.kill()
        process.join(HANG_S)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("lock", [locked_folder, locked_output])
def test_the_message_names_the_other_process(lock: Lock, tmp_path: Path) -> None:
    with holder(lock, tmp_path / "out") as (process, _), pytest.raises(OutputError) as caught, lock(tmp_path / "out"):
        pass
    assert caught.value.code == "E-OUTPUT-LOCKED"
    assert f"another process (pid {process.pid}, host " in str(caught.value)
    assert ", since 20" in str(caught.value)
    assert caught.value.where == tmp_path / "out"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_ends_with_its_process_and_leaves_nothing(lock: Lock, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with holder(lock, tmp_path / "out") as (process, _):
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(HANG_S)
        with lock(tmp_path / "out"):
            pass
    assert [*hidden(tmp_path), *hidden(tmp_path / "out")] == []


@pytest.mark.parametrize("lock", [locked_folder, locked_output])
def test_a_process_waits_and_says_for_whom(lock: Lock, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    class MessageWaiter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    listener = MessageWaiter()
    logging.getLogger("decathlete.core.locks").addHandler(listener)
    caplog.set_level(logging.INFO, "decathlete.core.locks")
    try:
        with holder(lock, tmp_path / "store") as (process, connection):
            release = threading.Thread(target=lambda: told.wait(HANG_S) and connection.send("release"))
            release.start()
            with lock(tmp_path / "store", wait_for="prepared"):
                process.join(HANG_S)
            release.join(HANG_S)
            assert process.exitcode == 0
    finally:
        logging.getLogger("decathlete.core.locks").removeHandler(listener)
    (message,) = caplog.messages
    assert message.startswith(f"waiting until another process (pid {process.pid}, host ")
    assert message.endswith(f"has prepared {tmp_path / 'store'}")


@pytest.mark.parametrize("lock", [locked_folder, locked_output])
def test_workflows_nest_in_one_thread_and_not_in_two(lock: Lock, tmp_path: Path) -> None:
    found: list[str] = []

    def other_thread() -> None:
        try:
            with lock(tmp_path / "out"):
                found.append("locked")
        except OutputError as problem:
            found.append(problem.code)

    with lock(tmp_path / "out"), lock(tmp_path / "out"):
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join(HANG_S)
    assert found == ["E-OUTPUT-LOCKED"]
    other_thread()
    assert found == ["E-OUTPUT-LOCKED", "locked"]


def test_readers_share_a_store_and_keep_it(tmp_path: Path) -> None:
    store = tmp_path / "3d"
    store.mkdir()
    with ExitStack() as stack:
        readers = [stack.enter_context(holder(reading, store))[0] for _ in range(2)]
        with reading(store):
            pass
        with pytest.raises(OutputError, match="is reading it") as caught, locked_output(store, wait_for="prepared"):
            require_no_readers(store)
        assert caught.value.code == "E-OUTPUT-LOCKED"
        assert any(f"pid {reader.pid}," in str(caught.value) for reader in readers)
        assert len(hidden(tmp_path)) == 2
    with locked_output(store):
        require_no_readers(store)
    assert hidden(tmp_path) == []


def test_a_reader_is_not_in_its_own_way(tmp_path: Path) -> None:
    store = tmp_path / "3d"
    store.mkdir()
    with locked_output(store), reading(store):
        require_no_readers(store)


def test_readers_of_other_stores_are_not_in_the_way(tmp_path: Path) -> None:
    for name in ("3d", "3d_test"):
        (tmp_path / name).mkdir()
    with holder(reading, tmp_path / "3d_test"), locked_output(tmp_path / "3d"):
        require_no_readers(tmp_path / "3d")


def test_an_absent_store_is_read_without_a_lock(tmp_path: Path) -> None:
    with reading(tmp_path / "absent"):
        assert list(tmp_path.iterdir()) == []


def test_the_lock_file_is_there_only_while_it_is_held(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a" / "results") as folder:
        assert hidden(folder) == [LOCK_NAME]
        (folder / "model").touch()
    assert [path.name for path in folder.iterdir()] == ["model"]
    with locked_output(tmp_path / "b" / "model.onnx") as path:
        assert hidden(path.parent) == [f"{LOCK_NAME}-model.onnx"]
    assert hidden(path.parent) == []


def test_a_lock_file_without_content_is_no_obstacle(tmp_path: Path) -> None:
    """A process may be killed, or the disk be full, before the owner is written."""
    (tmp_path / LOCK_NAME).touch()
    assert Owner.read(tmp_path / LOCK_NAME) is None
    with locked_folder(tmp_path):
        owner = Owner.read(tmp_path / LOCK_NAME)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert hidden(tmp_path) == []


def test_a_file_system_without_locks_is_named_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class NoLock:
        def __init__(self, path: Path, **options: object) -> None: ...

        def acquire(self, **options: object) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks, "FileLock", NoLock)
    with locked_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert "has no locks" in caplog.text


@pytest.mark.parametrize("name", [".", "..", "out/.."])
def test_the_current_folder_cannot_be_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="cannot be replaced"), locked_output(Path(name)):
        pass
