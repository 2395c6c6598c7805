"""Zip files that are damaged or made to harm."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from decathlete.errors import ArchiveError
from decathlete.transfer import zips
from decathlete.transfer.zips import unpack_zip

FILES = {"a/plans.json": b"{}", "a/fold_0/x.pth": bytes(range(256)) * 400}


def _packed(*more: tuple[zipfile.ZipInfo | str, bytes], files: dict[str, bytes] = FILES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*files.items(), *more]:
            archive.writestr(name, content)
    return buffer.getvalue()


def _link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def _unpack(content: bytes, tmp_path: Path, *, limit_bytes: int = 10**6) -> Path:
    (tmp_path / "x.zip").write_bytes(content)
    unpack_zip(tmp_path / "x.zip", tmp_path / "out", limit_bytes=limit_bytes)
    return tmp_path / "out"


def test_files_come_back_as_they_were_packed(tmp_path: Path) -> None:
    out = _unpack(_packed(), tmp_path)
    assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} == FILES


def test_what_is_not_wanted_is_not_written_and_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(_packed(("large.bin", bytes(10**6))))
    unpack_zip(tmp_path / "x.zip", tmp_path / "out", limit_bytes=10, wanted=lambda path: path.name == "plans.json")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["plans.json"]


def test_the_room_is_checked_before_bytes_are_written(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(_packed())
    checked: list[int] = []

    def check(n_bytes: int) -> None:
        checked.append(n_bytes)
        if len(checked) == limit:
            raise MemoryError

    total = sum(map(len, FILES.values()))
    limit = 2  # with all bytes, then with those of the first file
    with pytest.raises(MemoryError):
        unpack_zip(tmp_path / "x.zip", tmp_path / "out", limit_bytes=10**6, check=check)
    assert checked == [total, len(FILES["a/plans.json"])]
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) == 0
    limit = 0
    checked.clear()
    unpack_zip(tmp_path / "x.zip", tmp_path / "again", limit_bytes=10**6, check=check)
    assert sum(checked[1:]) == checked[0] == total


HOSTILE = {
    "leaves its folder": _packed(("../../evil", b"x")),
    "leaves its folder by an absolute path": _packed(("/tmp/evil", b"x")),
    "leaves its folder on Windows": _packed(("a\\..\\..\\evil", b"x")),
    "a link": _packed(_link("a/link", "/etc/passwd")),
    "twice": _packed(("a/plans.json/inside", b"x")),
    "more than 32 folders": _packed(("a/" * 33 + "x", b"x")),
    "more than 32 folders, and a very long path": _packed(("a/" * 30_000 + "x", b"x")),
    "more than 1024 characters": _packed(("a/" + "x" * 1024, b"x")),
    "cannot be the name of a file": _packed(("a/" + "ä" * 200, b"x")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=" ".join(kind.split()[:3])):
        _unpack(HOSTILE[kind], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"would unpack to more than 1\.0 MB"):
        _unpack(_packed(("a/zeros", bytes(10**6))), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_a_bomb_that_lies_about_its_size_does_not_grow(tmp_path: Path) -> None:
    honest = _packed(files={"zeros": bytes(10**6)})
    liar = honest.replace((10**6).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    with pytest.raises(ArchiveError, match="damaged"):
        _unpack(liar, tmp_path)
    assert (tmp_path / "out" / "zeros").stat().st_size <= 100


def test_countless_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MAX_MEMBERS", 2)
    with pytest.raises(ArchiveError, match="more than 2 files"):
        _unpack(_packed(("b", b"")), tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "damaged, or not a zip file"),
        (_packed()[:-30], "damaged, or not a zip file"),
        (b"<html>please log in</html>" * 100, "is a web page"),
    ],
)
def test_a_damaged_archive_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=problem):
        _unpack(content, tmp_path)


def test_damage_inside_a_file_is_found(tmp_path: Path) -> None:
    content = bytearray(_packed(files={"x": bytes(range(256)) * 1000}))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(ArchiveError, match="damaged"):
        _unpack(bytes(content), tmp_path)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = bytearray(_packed(files={"x": b"secret"}))
    for start in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[start] |= 1
    with pytest.raises(ArchiveError, match="encrypted"):
        _unpack(bytes(content), tmp_path)


@pytest.mark.parametrize("removed", [40, 400, 3000])
def test_an_archive_without_its_first_bytes_is_damaged(removed: int, tmp_path: Path) -> None:
    """The directory at the end then leads to places before the file."""
    content = _packed()
    with pytest.raises(ArchiveError, match="is damaged") as caught:
        _unpack(content[removed % len(content) :], tmp_path)
    assert caught.value.where == tmp_path / "x.zip"
