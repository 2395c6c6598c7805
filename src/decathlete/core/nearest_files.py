"""Say what lies where a missing file was expected: the files with the nearest names."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from decathlete.errors import printable

_MAX_ENTRIES = 20_000  # of a folder: more are not listed
_MAX_COMPARED = 500  # of a folder: more are not compared letter by letter
_MAX_CHANNELS = 20  # of a case: greater numbers at the end of a name are those of cases
_LISTED = 3
_NUMBERS = re.compile(r"\d+")
_CHANNEL = re.compile(r"(?<=[0-9])_[0-9]{4}$")
_ENDING = re.compile(r"(\.[A-Za-z]+(\.gz)?)$")


def nearest_files(path: Path) -> str:
    """Describe what lies in place of the missing ``path``: a clause that starts with ``; ``, or an empty text.

    Names that differ in Unicode form (as after a copy from macOS) or in upper and lower case are said to do so.
    """
    if path.is_symlink():
        return f"; it is a link to {printable(_target_of(path))}, which is missing or leads back to itself"
    parent = path.parent
    if not parent.is_dir():
        existing = next((p for p in parent.parents if p.is_dir()), None)
        missing = parent if existing is None else existing / parent.relative_to(existing).parts[0]
        names = nearest_names(missing) if existing is not None else []
        return f"; there is no folder {missing}{_listed(existing, names) if existing is not None and names else ''}"
    names = nearest_names(path)
    return _listed(parent, names) + _difference(path.name, names) if names else ""


def nearest_names(path: Path) -> list[str]:
    """Return the names in the folder of the missing ``path`` that are probably meant, the best kind of match only.

    Kinds, in this order: the same name in another Unicode form, or in upper and lower case; names that begin with the
    stem of the missing one (``a.nii`` or ``a_0000.nii.gz`` for ``a.nii.gz``); names whose stem is the beginning
    (``a.nii.gz`` for ``a_0000.nii.gz``); other channels of a numbered case (``a1_0002.nii.gz`` for ``a1_0001.nii.gz``);
    similar names with the same numbers.
    """
    folder = _folder(path.parent)
    if folder is None:
        return []
    key, stem = _key(path.name), _stem(_key(path.name))
    matches = folder.names_of.get(key) or list(folder.starting_with(stem)) or folder.with_beginning(stem)
    if not matches:
        matches = folder.other_channels(stem)
    if not matches and len(folder.keys) <= _MAX_COMPARED:
        numbers = _NUMBERS.findall(key)  # of the case: a name with other numbers is of another case
        alike = [other for other in folder.keys if _NUMBERS.findall(other) == numbers]
        close = difflib.get_close_matches(key, alike, n=_LISTED, cutoff=0.8)
        matches = [name for match in dict.fromkeys(close) for name in folder.names_of[match]]
    return [name for name in matches if name != path.name]


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """The names in a folder, by their keys (one Unicode form, lower case)."""

    keys: list[str]
    names_of: dict[str, list[str]]
    names_of_stem: dict[str, list[str]]

    def starting_with(self, stem: str) -> Iterator[str]:
        """Yield the names that begin with ``stem`` as a whole word: ``a_1`` begins ``a_1_seg`` and not ``a_10``."""
        for key in islice(self.keys, bisect_left(self.keys, stem), None):
            if not stem or not key.startswith(stem):
                return
            if not key[len(stem) : len(stem) + 1].isalnum():
                yield from self.names_of[key]

    def other_channels(self, stem: str) -> list[str]:
        """Return the names of other channels of a case; numbers that are too great for channels are those of cases."""
        channel = _CHANNEL.search(stem)
        if channel is None:
            return []
        names = [n for n in self.starting_with(stem[: channel.start()]) if _CHANNEL.search(_stem(n))]
        numbers = (int(_stem(name)[-4:]) for name in (stem, *names))
        return names if all(number < _MAX_CHANNELS for number in numbers) else []

    def with_beginning(self, stem: str) -> list[str]:
        """Return the names whose stem is the longest possible beginning of ``stem``, up to ``_``, ``-`` or ``.``."""
        ends = [match.start() for match in re.finditer(r"[_.-]", stem)]
        return next((found for end in reversed(ends) if (found := self.names_of_stem.get(stem[:end]))), [])


def _folder(path: Path) -> _Folder | None:
    try:
        return _read_folder(os.fspath(path), path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=16)  # a dataset often lacks many files of one folder
def _read_folder(path: str, modified_ns: int) -> _Folder:  # noqa: ARG001 - the time is part of the cache's key
    with os.scandir(path) as entries:
        names = sorted(e.name for e in islice(entries, _MAX_ENTRIES) if not e.name.startswith("."))
    names_of: dict[str, list[str]] = defaultdict(list)
    names_of_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        names_of[_key(name)].append(name)
        names_of_stem[_stem(_key(name))].append(name)
    return _Folder(keys=sorted(names_of), names_of=dict(names_of), names_of_stem=dict(names_of_stem))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _ENDING.sub("", name)


def _target_of(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return "another file"


def _listed(folder: Path, names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return printable(f"; {folder.name or folder} contains {', '.join(names[:_LISTED])}{more}")


def _difference(name: str, names: list[str]) -> str:
    """Return what differs where the names look alike."""
    if unicodedata.normalize("NFC", name) in (unicodedata.normalize("NFC", other) for other in names):
        form = "composed (NFC)" if unicodedata.is_normalized("NFC", name) else "decomposed (NFD)"
        return f", with letters in another Unicode form than this name, which is {form}"
    if name.casefold() in (other.casefold() for other in names):
        return ", which differs in upper and lower case"
    return ""
