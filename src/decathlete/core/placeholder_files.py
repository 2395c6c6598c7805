"""Recognise files that stand for others: pointers of Git LFS or git-annex, and web pages of a failed download.

git-annex (DataLad) also stands for a file by a link to content that is not there.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from decathlete.errors import DecathleteError

Error = TypeVar("Error", bound=DecathleteError)

_N_BYTES = 512


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """What a file is instead of its content, and how to get the content.

    Attributes:
        content: what it is, e.g. ``"a web page (HTML)"``.
        remedy: how to get the file itself.
        is_pointer: whether the content exists elsewhere and was not downloaded.
    """

    content: str
    remedy: str
    is_pointer: bool = True

    @property
    def problem(self) -> str:
        """The problem, as a clause about the file."""
        return f"is {self.content}"


_GIT_LFS = Placeholder(
    content="a pointer of Git LFS, not the file itself", remedy="run `git lfs pull` in the folder of its repository"
)
_GET = "run `git annex get` (or `datalad get`) for this file"
_GIT_ANNEX = Placeholder(content="a pointer of git-annex, not the file itself", remedy=_GET)
_ANNEX_LINK = Placeholder(content="a link of git-annex to content that was not downloaded", remedy=_GET)
_WEB_PAGE = Placeholder(
    content="a web page (HTML), not the file itself",
    remedy="download it again, from a link to the file itself; the server may ask for a login first",
    is_pointer=False,
)


def find_placeholder(content: bytes) -> Placeholder | None:
    """Return what a file is that begins with ``content``, or ``None`` if it is no placeholder."""
    start = content[:_N_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return _GIT_LFS
    if start.startswith(b"/annex/objects/"):
        return _GIT_ANNEX
    return _WEB_PAGE if start.startswith((b"<!doctype html", b"<html")) else None


def read_placeholder(path: Path) -> Placeholder | None:
    """Return what a file is, by its first bytes or the target of a link that leads nowhere.

    ``None``: it is a folder, cannot be read, or is no placeholder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return _read_link(path)
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return find_placeholder(os.read(descriptor, _N_BYTES)) if regular else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def placeholder_error(path: Path, kind: type[Error], *, code: str | None = None) -> Error | None:
    """Return the error of a file that is a placeholder; ``None``: it is none."""
    placeholder = read_placeholder(path)
    return None if placeholder is None else kind(placeholder.problem, where=path, remedy=placeholder.remedy, code=code)


def _read_link(path: Path) -> Placeholder | None:
    try:
        target = str(path.readlink()).replace("\\", "/")
    except OSError:
        return None
    return _ANNEX_LINK if "/annex/objects/" in target and not path.exists() else None
