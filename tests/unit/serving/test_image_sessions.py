"""Sessions of viewers: files without names, and their time."""

from __future__ import annotations

from pathlib import Path

import pytest

from decathlete.errors import ServiceError
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.monai_label.image_sessions import DEFAULT_SECONDS, ImageSessions


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(tmp_path: Path, clock: Clock) -> ImageSessions:
    return ImageSessions(tmp_path / "sessions", longest_seconds=5000, clock=clock)


def upload(tmp_path: Path, *names: str) -> tuple[list[ReceivedFile], Path]:
    folder = tmp_path / f"upload-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    files = [ReceivedFile(name=name, path=folder / str(number)) for number, name in enumerate(names)]
    for file in files:
        file.path.write_bytes(file.name.encode())
    return files, folder


def test_a_session_keeps_files_in_order_and_no_names(sessions, tmp_path) -> None:
    record = sessions.add(*upload(tmp_path, "Jane Doe.nii.gz", "Jane Doe 2.DCM", "Jane"))
    stored = [path.name for path in (tmp_path / "sessions").rglob("*") if path.is_file()]
    assert not any("Jane" in name for name in stored)
    (tmp_path / "copy").mkdir()
    copied = sessions.copy_files(record["name"], tmp_path / "copy")
    assert [file.name for file in copied] == ["00000.nii.gz", "00001.dcm", "00002"]
    assert copied[2].path.read_bytes() == b"Jane"


def test_a_session_lives_from_its_last_use(sessions, clock, tmp_path) -> None:
    session_id = sessions.add(*upload(tmp_path, "a.nii"))["name"]
    clock.now += DEFAULT_SECONDS - 1
    sessions.get(session_id)
    clock.now += DEFAULT_SECONDS - 1
    sessions.get(session_id, is_use=False)
    clock.now += 1
    with pytest.raises(ServiceError, match="expired"):
        sessions.get(session_id)
    assert list((tmp_path / "sessions").iterdir()) == []


def test_a_viewer_cannot_ask_for_more_time_than_images_are_kept(sessions, tmp_path) -> None:
    assert sessions.add(*upload(tmp_path, "a.nii"), seconds=10**9)["expiry"] == 5000
    assert sessions.add(*upload(tmp_path, "a.nii"), seconds=60)["expiry"] == 60


def test_sessions_survive_a_restart_and_damaged_ones_do_not(sessions, clock, tmp_path) -> None:
    session_id = sessions.add(*upload(tmp_path, "a.nii"))["name"]
    damaged = sessions.add(*upload(tmp_path, "a.nii"))["name"]
    (tmp_path / "sessions" / damaged / "session.json").write_text("{")
    again = ImageSessions(tmp_path / "sessions", longest_seconds=5000, clock=clock)
    assert again.get(session_id)["name"] == session_id
    assert [path.name for path in (tmp_path / "sessions").iterdir()] == [session_id]


@pytest.mark.parametrize("session_id", ["", "..", "../sessions", "A" * 32, "0" * 31])
def test_other_names_are_no_sessions(sessions, session_id) -> None:
    with pytest.raises(ServiceError) as caught:
        sessions.get(session_id)
    assert caught.value.code == "E-SERVICE-DATASTORE"


def test_a_session_needs_a_file(sessions, tmp_path) -> None:
    with pytest.raises(ServiceError, match="no file"):
        sessions.add([], tmp_path)
