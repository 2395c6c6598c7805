"""The format of a file, and the suffixes of all formats: built in, of installed plug-ins, or registered."""

from __future__ import annotations

import logging
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from decathlete.errors import ImageError, OptionError
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat

DEFAULT_FORMAT = "nifti"
DEFAULT_SUFFIX = ".nii.gz"
"""Of outputs, where nothing else decides."""

_START_BYTES = 352
"""Bytes in which signatures are searched: a header of NIfTI-1 with its end."""
_GZIP = b"\x1f\x8b"
_log = logging.getLogger(__name__)
_formats: dict[str, ImageFormat] = {}  # replaced as a whole: readers in other threads see the old or the new
_broken: set[str] = set()


@cache
def _installed_names() -> frozenset[str]:
    """Built-in formats and those of plug-ins; entry points are read once, since this is asked for every file."""
    return frozenset(IMAGE_FORMATS.installed_names)


def known_formats() -> tuple[ImageFormat, ...]:
    """All formats, NIfTI first, then by name. A plug-in that cannot be imported is left out, with a warning."""
    global _formats
    names = (_installed_names() | set(IMAGE_FORMATS.registered_names)) - _broken
    if names != _formats.keys():
        formats = {}
        for name in sorted(names, key=lambda n: (n != DEFAULT_FORMAT, n)):
            try:
                formats[name] = IMAGE_FORMATS.build(IMAGE_FORMATS.settings(name))
            except (ImportError, OptionError) as problem:
                _log.warning("the image format %s cannot be imported and is not used: %s", name, problem)
                _broken.add(name)
        _formats = formats
        return tuple(formats.values())
    return tuple(_formats.values())


def image_suffixes(*, slices: bool = True, pictures: bool = True) -> tuple[str, ...]:
    """Suffixes of all files that can be read, NIfTI's first.

    Args:
        slices: with those of files that may be single slices of an image (DICOM).
        pictures: with those of formats that also hold pictures for documents (PNG, JPEG).
    """
    formats = [f for f in known_formats() if (slices or not f.reads_folders) and (pictures or not f.is_picture)]
    return tuple(s for f in formats for s in f.suffixes)


def detached_suffixes() -> tuple[str, ...]:
    """Suffixes of headers whose voxels are in another file."""
    return tuple(s for f in known_formats() for s in f.detached_suffixes)


def writable_suffixes() -> tuple[str, ...]:
    """Suffixes of all files that can be written, NIfTI's first."""
    return tuple(s for f in known_formats() for s in f.written_suffixes)


def check_suffix(suffix: str | None) -> None:
    """Check that files of a suffix can be written; ``None``: no suffix was chosen.

    Raises:
        OptionError: they cannot.
    """
    if suffix is not None and suffix not in writable_suffixes():
        raise OptionError(
            f"files with the suffix {suffix!r} cannot be written", remedy=f"use one of {', '.join(writable_suffixes())}"
        )


def suffix_of(name: str) -> str | None:
    """The longest known suffix that a file name ends with, in lower case.

    >>> suffix_of("case.1_0000.NII.GZ")
    '.nii.gz'
    """
    lower = name.lower()
    return max((s for s in image_suffixes() if lower.endswith(s)), key=len, default=None)


def strip_suffix(name: str) -> str:
    """A file name without its image suffix; other names are left alone.

    >>> strip_suffix("case.1_0000.nii.gz")
    'case.1_0000'
    """
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix else name


def format_of_suffix(suffix: str) -> ImageFormat:
    """The format that has ``suffix``, one of :func:`image_suffixes`."""
    return next(f for f in known_formats() if suffix in f.suffixes)


def find_format(path: Path) -> ImageFormat | None:
    """The format of an existing file or folder: first by the longest suffix, then by content; ``None``: unknown."""
    suffix = suffix_of(path.name)
    formats = sorted(known_formats(), key=lambda f: suffix not in f.suffixes)
    if path.is_dir():
        formats = [f for f in formats if f.reads_folders]
    return next((f for f in formats if f.reads(path)), None)


def formats_of_content(path: Path) -> dict[ImageFormat, str]:
    """Return the formats whose signature a file has, each with the suffix that such a file has.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(4096)
    is_gzipped = start.startswith(_GZIP)
    if is_gzipped:
        with suppress(zlib.error):
            start = zlib.decompressobj(wbits=31).decompress(start, _START_BYTES)
    suffix_of_format: dict[ImageFormat, str] = {}
    for known in known_formats():
        suffixes = [suffix for suffix in known.suffixes if suffix.endswith(".gz") == is_gzipped]
        if suffixes and any(start[offset:].startswith(mark) for offset, mark in known.signatures):
            suffix_of_format[known] = suffixes[0]
    return suffix_of_format


def files_of(path: Path) -> tuple[Path, ...]:
    """Return all files that an image is read from: header and voxels, a spacing beside it, the slices of a folder.

    What cannot be read as an image counts as its one file, or as all files of its folder.
    """
    try:
        found = find_format(path)
        files = found.files_of(path) if found else ()
    except (ImageError, OSError, ValueError, OverflowError):
        files = ()
    if path.is_dir() and files in ((), (path,)):
        files = _files_in(path)
    return files or (path,)


def _files_in(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(sorted(path for path in folder.iterdir() if path.is_file()))
    except OSError:
        return ()


def is_picture(path: Path) -> bool:
    """Whether a file is of a format that also holds pictures for documents (PNG, JPEG), by its name."""
    suffix = suffix_of(path.name)
    return suffix is not None and format_of_suffix(suffix).is_picture


def output_suffix(path: Path) -> str:
    """The suffix for a prediction of ``path``: its own if it can be written, else another of its format, else NIfTI's.

    >>> output_suffix(Path("a.nrrd")), output_suffix(Path("a.mhd")), output_suffix(Path("folder"))
    ('.nrrd', '.mha', '.nii.gz')
    >>> output_suffix(Path("a.jpg"))  # JPEG does not keep label values
    '.png'
    """
    suffix = suffix_of(path.name)
    if suffix is None:
        return DEFAULT_SUFFIX
    found = format_of_suffix(suffix)
    written = found.written_suffixes
    return suffix if suffix in written else next(iter(written), found.prediction_suffix or DEFAULT_SUFFIX)
