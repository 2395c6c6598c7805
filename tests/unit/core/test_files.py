"""Files and folders appear whole or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from decathlete.core.exchange_names import exchange_names
from decathlete.core.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    file_digest,
    read_text,
    remove,
    remove_partials,
    replace_folder,
    temporary_name,
    translate_os_error,
    value_digest,
    write_json,
    write_text,
)
from decathlete.core.output_paths import writable_folder
from decathlete.errors import OptionError, OutputError

Fail = Callable[[str, int], None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let a function of ``os`` find the disk full, at its n-th call (the first is 1)."""

    def fail(name: str, at: int) -> None:
        inner, calls = getattr(os, name), []

        def failing(*arguments: object, **options: object) -> object:
            calls.append(arguments)
            if len(calls) == at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return inner(*arguments, **options)

        monkeypatch.setattr(os, name, failing)

    return fail


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "scan.nii.gz"
    with atomic_path(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == path.parent
        assert partial.name.endswith("scan.nii.gz"), "writers choose their format by it"
        assert partial.name.startswith(TEMPORARY_PREFIX)
    assert path.read_text() == "new"
    assert names(path.parent) == ["scan.nii.gz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_while_writing_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def fail_halfway() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


@pytest.mark.parametrize(("name", "at"), [("replace", 1), ("fsync", 1)])
def test_a_full_disk_leaves_what_was_there_and_is_told(name: str, at: int, tmp_path: Path, fail: Fail) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    fail(name, at)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        write_text(path, "new")
    assert caught.value.where == path
    assert caught.value.remedy
    assert path.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_contents_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power failure could leave an empty file under the final name."""
    synced: list[int] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd)))
    before: list[int] = []
    monkeypatch.setattr(os, "replace", lambda a, b: (before.extend(synced), replace(a, b)))
    with atomic_path(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "inside").write_text("x")
        expected = [path.stat().st_ino for path in (partial / "inside", partial)]
    assert before == expected
    assert synced == [*expected, tmp_path.stat().st_ino]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "old").touch()
    with replace_folder(folder) as partial:
        (partial / "new").touch()
        assert names(folder) == ["old"]
    assert names(folder) == ["new"]
    assert names(tmp_path) == ["store"]


def test_a_folder_is_never_missing_while_another_takes_its_place(tmp_path: Path) -> None:
    folder, other = tmp_path / "store", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    if not exchange_names(folder, other):
        pytest.skip("this file system cannot exchange names")
    (folder / "content").touch()
    finished = threading.Event()

    def replace_it_often() -> None:
        for _ in range(50):
            with replace_folder(folder) as partial:
                (partial / "content").touch()
        finished.set()

    with ThreadPoolExecutor() as executor:
        replacing = executor.submit(replace_it_often)
        missing = 0
        while not finished.is_set() and not replacing.done():
            missing += not (folder / "content").exists()
        replacing.result()
    assert missing == 0
    assert names(tmp_path) == ["other", "store"]


@pytest.mark.parametrize("at", [1, 2])
def test_a_folder_that_cannot_be_replaced_stays(at: int, tmp_path: Path, fail: Fail) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "old").touch()
    fail("fsync", at)
    with pytest.raises(OutputError, match="No space left"), replace_folder(folder) as partial:
        (partial / "new").touch()
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["store"]


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system: a folder is moved away before the new one is moved in."""
    monkeypatch.setattr("decathlete.core.files.exchange_names", lambda first, second: False)


@pytest.mark.usefixtures("no_exchange")
def test_a_folder_takes_the_place_of_another_without_an_exchange_of_names(tmp_path: Path) -> None:
    test_a_folder_takes_the_place_of_another(tmp_path)


@pytest.mark.usefixtures("no_exchange")
@pytest.mark.parametrize("at", [1, 2])
def test_a_folder_that_cannot_be_renamed_stays(at: int, tmp_path: Path, fail: Fail) -> None:
    """The first rename moves the old folder away, the second one moves the new folder in."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "old").touch()
    fail("replace", at)
    with pytest.raises(OutputError, match="No space left"), replace_folder(folder) as partial:
        (partial / "new").touch()
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["store"]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_a_killed_run_moved_away_gets_its_name_back(is_replaced: bool, tmp_path: Path) -> None:
    """... unless the new one was already in its place."""
    old = tmp_path / temporary_name("store", is_displaced=True).replace(f"p{os.getpid()}-", "")
    old.mkdir()
    (old / "old").touch()
    (tmp_path / temporary_name("store").replace(f"p{os.getpid()}-", "")).mkdir()
    if is_replaced:
        (tmp_path / "store").mkdir()
    remove_partials(tmp_path)
    assert names(tmp_path) == ["store"]
    assert names(tmp_path / "store") == ([] if is_replaced else ["old"])


def test_names_of_what_is_missing_are_not_exchanged(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with suppress(FileNotFoundError):
        assert not exchange_names(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["a"]


def test_a_failure_inside_leaves_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "old").touch()

    def fail_halfway() -> None:
        with replace_folder(folder) as partial:
            (partial / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["store"]


def test_what_a_killed_run_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY_PREFIX}1234-case.nii").touch()
    (tmp_path / f"{TEMPORARY_PREFIX}5678-store").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}5678-store" / "image").touch()
    (tmp_path / "case.nii").touch()
    remove_partials(tmp_path)
    assert names(tmp_path) == ["case.nii"]


def test_the_longest_names_of_the_file_system_can_be_written(tmp_path: Path) -> None:
    name = "ü" * 120 + ".nii.gz"  # 247 bytes of 255
    write_text(tmp_path / name, "x")
    assert temporary_name(name).endswith("ü.nii.gz"), "writers choose their format by the suffix"
    (tmp_path / temporary_name(name).replace(f"p{os.getpid()}-", "")).touch()  # as a killed process leaves it
    remove_partials(tmp_path, "other.nii.gz")
    assert len(names(tmp_path)) == 2
    remove_partials(tmp_path, name)
    assert names(tmp_path) == [name]


def test_removing_a_link_spares_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "image").touch()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for path in (tmp_path / "link", tmp_path / "none", tmp_path / "data" / "image" / "none"):
        remove(path)
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == ["image"]


def test_text_and_numbers_survive(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Größe\n")
    assert read_text(tmp_path / "a.txt") == "Größe\n"
    write_json(tmp_path / "a.json", {"dice": math.nan, "name": "ü"})
    values = json.loads(read_text(tmp_path / "a.json"))
    assert math.isnan(values["dice"])
    assert values["name"] == "ü"


def test_text_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist") as caught:
        read_text(tmp_path / "none", error=OptionError)
    assert caught.value.where == tmp_path / "none"
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match="cannot be read"):
        read_text(tmp_path / "binary", error=OptionError)
    with pytest.raises(OptionError, match="cannot be read"):
        read_text(tmp_path, error=OptionError)


def test_only_errors_of_the_disk_are_renamed(tmp_path: Path) -> None:
    def kept(problem: Exception) -> None:
        with translate_os_error("cannot be kept", where=tmp_path, remedy="ask"):
            raise problem

    with pytest.raises(OutputError, match=r"cannot be kept \(Permission denied\)"):
        kept(PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(KeyError):
        kept(KeyError())


def test_a_folder_is_made_and_proved_writable(tmp_path: Path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be written"):
            writable_folder(path)


def test_nothing_is_written_into_a_raw_dataset(tmp_path: Path) -> None:
    (tmp_path / "Task" / "imagesTr").mkdir(parents=True)
    (tmp_path / "Task" / "dataset.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "Task")
    for path in (tmp_path / "Task", tmp_path / "Task" / "deep" / "down", tmp_path / "link" / "out"):
        with pytest.raises(OutputError, match="raw dataset Task"):
            writable_folder(path)
    assert names(tmp_path / "Task") == ["dataset.json", "imagesTr"]


def test_digests_follow_contents_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"voxels" * 100_000)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"voxels" * 100_000).hexdigest()
    assert value_digest({"a": 1, "b": [2, 3]}) == value_digest({"b": [2, 3], "a": 1})
    assert value_digest({"a": 1}) != value_digest({"a": 2})
    assert len(value_digest({})) == 16
