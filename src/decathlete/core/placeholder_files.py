"""Recognise files that stand for others: pointers of Git LFS or git-annex, and web pages of a failed download."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

_N_BYTES = 512


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """What a file is instead of its content, and how to get the content."""

    problem: str
    remedy: str


_GIT_LFS = Placeholder(
    problem="is a pointer of Git LFS, not the file itself", remedy="run `git lfs pull` in the folder of its repository"
)
_GIT_ANNEX = Placeholder(
    problem="is a pointer of git-annex, not the file itself", remedy="run `git annex get` for this file"
)
_WEB_PAGE = Placeholder(
    problem="is a web page (HTML), not the file itself",
    remedy="download it again, from a link to the file itself; the server may ask for a login first",
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
    """Return what a file is, by its first bytes; ``None`` for folders and for files that cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return find_placeholder(os.read(descriptor, _N_BYTES)) if regular else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
