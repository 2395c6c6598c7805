"""Whatever a package raises for a damaged file becomes one kind of error that names the file."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from decathlete.core.schema import describe
from decathlete.errors import ImageError
from decathlete.io.missing_files import missing_image

_DAMAGE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,  # SimpleITK's
    ValueError,
    gzip.BadGzipFile,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def translate_read_error(path: Path, title: str) -> Iterator[None]:
    """Turn errors about the content of ``path`` into an :class:`~decathlete.errors.ImageError`.

    Args:
        title: of the format, for the message.
    """
    if not path.exists():
        raise missing_image(path)
    try:
        yield
    except ImageError:
        raise
    except ValidationError as problem:  # the header describes no grid
        remedy = "fix the header, or export this file again"
        raise ImageError("; ".join(describe(problem)), where=path, remedy=remedy) from None
    except _DAMAGE as problem:
        raise ImageError(
            f"cannot be read as {title}: truncated, damaged, or of another format ({_last_line(problem)})",
            where=path,
            remedy="download or export this file again",
            code="E-IMAGE-DAMAGED",
        ) from problem


def _last_line(problem: Exception) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(problem).__name__
