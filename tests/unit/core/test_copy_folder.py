"""Copies of folders: what is left out, and the error of a failure."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from decathlete.core.copy_folder import copy_folder


def make_folder(folder: Path) -> Path:
    for name in ("a/b/deep.txt", "a/__pycache__/x.pyc", "a/.hidden", "z.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_has_the_files_that_are_not_left_out(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source")
    copy_folder(source, tmp_path / "new" / "all")
    assert files(tmp_path / "new" / "all") == files(source)
    copy_folder(source, tmp_path / "some", without=("__pycache__", ".*"))
    assert files(tmp_path / "some") == {name: name for name in ("a/b/deep.txt", "z.txt")}


def test_the_first_failure_ends_the_copy_with_its_own_error(tmp_path: Path) -> None:
    copied = []

    def fail_at_the_second(source: Path, target: Path) -> None:
        if copied:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        copied.append(source.name)

    with pytest.raises(OSError, match="No space left") as caught:
        copy_folder(make_folder(tmp_path / "source"), tmp_path / "target", copy=fail_at_the_second)
    assert (caught.value.errno, len(copied)) == (errno.ENOSPC, 1)
