"""Archives that would write elsewhere, unpack without end, or lie about their members."""

from __future__ import annotations

import io
import tarfile
import zipfile
from random import Random

from robustness.datasets import make_dataset
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.formats.models import make_nnunet_zip, pack_zip, unpack_zip

_TAR, _ZIP, _TOP = "mutant.tar", "mutant.zip", "Task01_Ball"
NAMES = (
    "../escaped",
    "/tmp/escaped",
    f"{_TOP}/../../escaped",
    f"{_TOP}/..\\..\\escaped",
    "C:\\escaped",
    f"{_TOP}/" + "d/" * 3000 + "deep",
    f"{_TOP}/" + "n" * 5000,
    f"{_TOP}/a\x01b",
    f"{_TOP}/",
    "",
    ".",
    f"{_TOP}/dataset.json",
    f"{_TOP}/\udcff\udcfe",
    f"{_TOP}/con",
)


def _tar_of(files: Files, *more: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in more:
            tar.addfile(info, io.BytesIO(b"x" * min(info.size, 4096)) if info.isreg() else None)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _content() -> Files:
    return {f"{_TOP}/{name}": content for name, content in make_dataset(1).items()}


def add_hostile_member(data: bytes, random: Random) -> bytes:
    """Put a member with a hostile name, kind or size first."""
    info = tarfile.TarInfo(random.choice(NAMES))
    info.type = random.choice((tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE))
    info.linkname = random.choice(("/etc/passwd", "../../..", f"{_TOP}/dataset.json", _TOP))
    info.size = random.choice((0, 4096)) if info.type == tarfile.REGTYPE else 0
    info.mode = random.choice((0o644, 0o4777, 0))
    try:
        return _tar_of(_content(), info)
    except (ValueError, UnicodeError):  # the writer of archives cannot express it
        return data


def claim_size(data: bytes, random: Random) -> bytes:
    """Declare another size of the first member, in any of tar's notations, with a valid checksum."""
    size = random.choice((0, 1, 2**33, 2**60, -1))
    field = b"%011o\0" % size if 0 <= size < 2**33 else b"\x80" + size.to_bytes(11, "big", signed=True)
    head = bytearray(data[:512])
    head[124:136] = field[:12].ljust(12, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


def _tar() -> Files:
    return {_TAR: _tar_of(_content())}


def rename_in_zip(files: Files, random: Random) -> Files:
    """Give one member of the zip a hostile name, or add many, deep or large ones."""
    members = unpack_zip(files[_ZIP])
    choice = random.randrange(4)
    if choice == 0:
        members[random.choice(NAMES[:-2]) or "x"] = b"x"
    elif choice == 1:
        members |= {f"d{i}/plans.json": b"" for i in range(2000)}
    elif choice == 2:
        members["x/" * 5000 + "plans.json"] = b"{}"
    else:
        members["x/plans.json"] = b"\0" * 2**26
    return {_ZIP: pack_zip(members)}


def spoil_central_directory(files: Files, random: Random) -> Files:
    """Change a field of one entry of the zip's directory: size, checksum, offset, method or flags."""
    data = bytearray(files[_ZIP])
    entries = [i for i in range(len(data) - 4) if data[i : i + 4] == b"PK\x01\x02"]
    at = random.choice(entries) + random.choice((8, 10, 16, 20, 24, 28, 30, 34, 42))
    data[at : at + 4] = random.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0", b"\0\0\0\x7f"))
    return {_ZIP: bytes(data)}


def _zip() -> Files:
    return {_ZIP: make_nnunet_zip()}


def pack_like_bomb(files: Files, random: Random) -> Files:
    """Compress a large member of zeros in one of zip's methods."""
    members = unpack_zip(files[_ZIP])
    name = next(n for n in members if n.endswith(".pth"))
    members[name] = b"\0" * random.choice((2**24, 2**27))
    return {_ZIP: pack_zip(members, random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))}


_IN_ZIP: dict[str, FileMutation] = {
    "members": rename_in_zip,
    "directory": spoil_central_directory,
    "bomb": pack_like_bomb,
}
_IN_TAR: dict[str, FileMutation] = {
    **byte_mutations(_TAR),
    "member": on_file(_TAR, add_hostile_member),
    "size": on_file(_TAR, claim_size),
}
FORMATS = (
    Format(name="tar", make=_tar, entry=_TAR, mutations=_IN_TAR, actions=("unpack",)),
    Format(name="zip", make=_zip, entry=_ZIP, mutations=_IN_ZIP, actions=("import_nnunet",)),
)
