"""Whatever a reader raises for a file becomes one kind of error that names the file."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from decathlete.core.memory import is_out_of_memory
from decathlete.core.schema import describe
from decathlete.errors import DecathleteError, ImageError
from decathlete.io.format_lookup import formats_of_content, suffix_of
from decathlete.io.missing_files import missing_image, placeholder_image

_NOT_READ: dict[bytes, tuple[str, tuple[str, ...]]] = {
    b"GIF8": ("GIF", (".gif",)),
    b"\x89HDF": ("HDF5", (".h5", ".hdf5")),
}
"""First bytes of a file of a format that is not read -> the name of the format, and the ends of its names."""
_NOT_READ_BYTES = max(map(len, _NOT_READ))
_CLEAR_WITHOUT_TYPE = (EOFError, OSError, RuntimeError, ValueError, zlib.error)


@contextmanager
def translate_read_error(path: Path, title: str) -> Iterator[None]:
    """Turn any error while ``path`` is read into an :class:`~decathlete.errors.ImageError`, except lack of memory.

    Readers, also those of plug-ins, raise whatever their packages raise for a damaged file. Where the file that an
    error names is a placeholder, as a part of an image may be (a slice, the voxels of a header), the error says so.

    Args:
        title: of the format, for the message.
    """
    if not path.exists():
        raise missing_image(path)
    try:
        yield
    except DecathleteError as problem:
        if isinstance(problem.where, Path) and (not_downloaded := placeholder_image(problem.where)) is not None:
            raise not_downloaded from None
        is_damaged = problem.code in ("E-IMAGE-DAMAGED", "E-IMAGE-HEADER") and problem.where == path
        if is_damaged and (other := _misnamed(path)) is not None:
            raise other from None
        raise
    except ValidationError as problem:  # the header describes no grid
        remedy = "fix the header, or export this file again"
        raise ImageError("; ".join(describe(problem)), where=path, remedy=remedy) from None
    except Exception as problem:
        if is_out_of_memory(problem):
            raise
        raise placeholder_image(path) or _misnamed(path) or _read_error(problem, path, title) from problem


def _read_error(problem: Exception, path: Path, title: str) -> ImageError:
    if isinstance(problem, OSError) and problem.errno is not None:
        return ImageError(
            f"cannot be read ({problem.strerror})",
            where=path,
            remedy="check the file, its permissions, and whether the disk or network share is connected",
            code="E-FILE",
        )
    return ImageError(
        f"cannot be read as {title}: truncated, damaged, or of another format ({_last_line(problem)})",
        where=path,
        remedy="download or export this file again",
        code="E-IMAGE-DAMAGED",
    )


def _misnamed(path: Path) -> ImageError | None:
    """Return the error of a file whose content is of another format than its name says; ``None``: it is not."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_NOT_READ_BYTES)
        suffix_of_format = formats_of_content(path)
    except OSError:
        return None
    ending = suffix_of(path.name) or path.suffix
    for kind, suffix in suffix_of_format.items():
        if not any(ending in known.suffixes for known in suffix_of_format):
            name = path.name[: len(path.name) - len(ending)] + suffix
            return _misnamed_error(path, kind.title, ending, remedy=f"rename it to {name}")
    for mark, (title, suffixes) in _NOT_READ.items():
        if start.startswith(mark) and not path.name.lower().endswith(suffixes):
            return _misnamed_error(path, title, ending, remedy="save it in a format that is read")
    return None


def _misnamed_error(path: Path, title: str, ending: str, *, remedy: str) -> ImageError:
    problem = f"is a {title} file, and its name ends with {ending}"
    return ImageError(problem, where=path, remedy=remedy, code="E-IMAGE-FORMAT")


def _last_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    name = type(problem).__name__
    if not lines:
        return name
    return lines[-1][:160] if isinstance(problem, _CLEAR_WITHOUT_TYPE) else f"{name}: {lines[-1][:160]}"
