"""What can fail at the end is checked at the start, and temporary names stay out of messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from decathlete.core.files import TEMPORARY_PREFIX, atomic_path, remove_partials, temporary_name
from decathlete.core.output_paths import check_output_folder, check_output_path, check_outside
from decathlete.core.scratch import PREFIX, scratch_folder
from decathlete.errors import DecathleteError, OutputError


@pytest.mark.parametrize("check", [check_output_path, check_output_folder])
def test_an_empty_path_is_rejected(check) -> None:
    with pytest.raises(OutputError, match="empty"):
        check("")


@pytest.mark.parametrize("check", [check_output_path, check_output_folder])
@pytest.mark.parametrize("inside", [".", "results", "imagesTr/deep/er"])
@pytest.mark.parametrize("images", ["imagesTr", "labelsTr", "imagesTs"])
def test_nothing_goes_into_a_raw_dataset(check, inside: str, images: str, tmp_path: Path) -> None:
    (tmp_path / images).mkdir()
    (tmp_path / "dataset.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError) as caught:
        check(tmp_path / inside)
    assert caught.value.code == "E-OUTPUT-INPUT"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_dataset_that_is_read_is_known_without_its_folders(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="raw dataset"):
        check_outside(tmp_path / "set" / ".." / "set" / "results", tmp_path / "set")
    check_outside(tmp_path / "set-results", tmp_path / "set")


@pytest.mark.parametrize("place", ["file", "file/results", "file/a/b"])
def test_a_file_in_the_way_is_found(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="not a folder"):
        check_output_folder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_permission_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="no permission"):
        check_output_folder(tmp_path / "results" / "set")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [DecathleteError, ValueError, RuntimeError])
def test_messages_name_the_file_that_the_user_knows(error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error) as caught, atomic_path(tmp_path / "case") as partial:
        raise error(f"cannot write {partial / 'image.b2nd'}")
    assert TEMPORARY_PREFIX not in str(caught.value)
    assert str(tmp_path / "case" / "image.b2nd") in str(caught.value)


def test_the_place_of_an_error_is_the_final_one(tmp_path: Path) -> None:
    with pytest.raises(DecathleteError) as caught, atomic_path(tmp_path / "case") as partial:
        raise DecathleteError("cannot be written", where=partial / "image.b2nd")
    assert caught.value.where == tmp_path / "case" / "image.b2nd"


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_what_ended_processes_left_is_removed(tmp_path: Path) -> None:
    pid = ended_process()
    ours = tmp_path / temporary_name("model")
    left = [
        tmp_path / f"{TEMPORARY_PREFIX}p{pid}-0badcafe-model",
        tmp_path / f"{TEMPORARY_PREFIX}p{pid}-old-0badcafe-model",
        tmp_path / f"{TEMPORARY_PREFIX}0badcafe-model",
    ]
    other = tmp_path / f"{TEMPORARY_PREFIX}p{pid}-0badcafe-second-model"
    finished = tmp_path / "model"
    for path in (ours, *left, other, finished):
        path.mkdir()
    remove_partials(tmp_path, "model")
    assert sorted(tmp_path.iterdir()) == sorted([ours, other, finished])
    remove_partials(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([ours, finished])


def test_a_later_process_with_the_number_of_the_owner_keeps_nothing(tmp_path: Path) -> None:
    leftover = tmp_path / temporary_name("model")
    leftover.mkdir()
    os.utime(leftover, (1e9, 1e9))  # long before this process started
    remove_partials(tmp_path)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal
from decathlete.core.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "weights").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_temporary_folder_of_a_killed_process_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert len(list(tmp_path.glob(f"{PREFIX}*/weights"))) == 1
    with scratch_folder() as first, scratch_folder() as second:
        assert {p for p in tmp_path.iterdir() if p.is_dir()} == {first, second}
    assert list(tmp_path.iterdir()) == []
