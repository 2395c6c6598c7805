"""Archives that are damaged or made to harm, below what a download's digest would let through."""

from __future__ import annotations

import shutil
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest

from decathlete.errors import ArchiveError, OutputError
from decathlete.transfer import archive as archives
from decathlete.transfer.archive import unpack_tar
from mirror import FILES, FOLDER, member, tar_of


def _unpack(content: bytes, tmp_path: Path, *, limit_bytes: int = 10**7) -> Path:
    archive = tmp_path / "x.tar"
    archive.write_bytes(content)
    unpack_tar(archive, tmp_path / "out", top=FOLDER, limit_bytes=limit_bytes)
    return tmp_path / "out"


def test_files_come_back_as_they_were_packed(tmp_path: Path) -> None:
    out = _unpack(tar_of(), tmp_path)
    assert {f"{FOLDER}/{p.relative_to(out)}": p.read_bytes() for p in out.rglob("*") if p.is_file()} == FILES


def _with_bad_header(content: bytes) -> bytes:
    """The second member's header overwritten, as a failing disk does."""
    second = tarfile.BLOCKSIZE * 2  # the first is dataset.json, of one block
    return content[:second] + b"?" * tarfile.BLOCKSIZE + content[second + tarfile.BLOCKSIZE :]


def _with_negative_size() -> bytes:
    header, _ = member(f"{FOLDER}/loop")
    header.size = -tarfile.BLOCKSIZE
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(4 * tarfile.BLOCKSIZE)


DAMAGED = {
    "not a tar file": b"<html>please log in</html>" * 100,
    "empty": b"",
    "cut short": tar_of()[:100_000],
    "header overwritten": _with_bad_header(tar_of()),
    "negative size": _with_negative_size(),
    "header too long for memory": tar_of(member("x", pax_headers={"comment": "x" * 3_000_000})),
    "nested too deeply": tar_of(member("a/" * 33 + "x")),
    "nested too deeply, on Windows": tar_of(member("a\\" * 33 + "x")),
    "nested 100 000 times": tar_of(member("a/" * 100_000 + "x")),
    "a name that is too long": tar_of(member("x" * 300)),
    "a name that is not UTF-8": tar_of(member("x\udcfc")),
    "sparse map of nonsense": tar_of(member("x", pax_headers={"GNU.sparse.map": "a,b", "GNU.sparse.size": "1"})),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_archive_is_refused_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError) as error:
        _unpack(DAMAGED[kind], tmp_path)
    assert "→ do not use this file; download the archive again from its publisher" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_limit_is_kept_to_the_byte(tmp_path: Path) -> None:
    size = sum(len(content) for content in FILES.values())
    with pytest.raises(ArchiveError, match="would unpack to more than"):
        _unpack(tar_of(), tmp_path, limit_bytes=size - 1)
    assert _unpack(tar_of(), tmp_path, limit_bytes=size).is_dir()


def test_countless_empty_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 50)
    many = tar_of(*(member(f"{FOLDER}/{i}") for i in range(50)))
    with pytest.raises(ArchiveError, match="would unpack to more than 50 files"):
        _unpack(many, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_disk_without_room_is_said_before_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(OutputError, match=r"are needed to unpack it, but the disk has 1\.0 kB free"):
        _unpack(tar_of(), tmp_path)
    assert not list(tmp_path.rglob("*.gz"))


def test_links_that_were_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _unpack(tar_of(member(f"{FOLDER}/link", type=b"2", linkname="dataset.json")), tmp_path)
    assert f"x.tar: ignored 1 links and devices (first: '{FOLDER}/link')" in caplog.text
