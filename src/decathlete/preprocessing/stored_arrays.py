"""Arrays of a prepared case on disk, which are read in parts; damage becomes an error that names the file."""

from __future__ import annotations

import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from decathlete.core.checksums import file_crc32
from decathlete.core.files import access_error, is_access_error
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import StoreError

Value = TypeVar("Value", bound=np.generic)

blosc2 = lazy_import("blosc2")

AGAIN = (
    "run `decathlete preprocess` again with the same options: it makes what is missing or damaged and keeps the rest"
)

_DAMAGE = (
    AttributeError, EOFError, IndexError, KeyError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What blosc2 and NumPy raise for damaged files."""
_ONE_HEADER = threading.Lock()
"""NumPy has Python parse an array's header, and the parser of Python 3.11 fails now and then in two threads at once
(``SystemError``, cpython issue 106905)."""


def verify_file(path: Path, crc32: int) -> None:
    """Compare a file with the checksum that was recorded when it was written; about 0.45 s for each GB.

    Neither blosc2 nor ZSTD checks what it decompresses: most changed bits would only change voxels.

    Raises:
        StoreError: it differs, is missing, or cannot be read.
    """
    with translate_damage(path):
        if file_crc32(path) != crc32:
            raise ValueError("its content does not match its checksum")


def read_array(path: Path, where: tuple[slice, ...], *, shape: tuple[int, ...], dtype: type[Value]) -> NDArray[Value]:
    """Read a part of a blosc2 array.

    Args:
        where: a slice for each axis; empty: all of it.
        shape: of the whole array.

    Raises:
        StoreError: it is damaged or missing, cannot be read, or has another shape or type.
    """
    # A handle per read costs 0.2 ms and spares readers in several threads a lock.
    with translate_damage(path):
        array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
        if tuple(array.shape) != shape or array.dtype != dtype:
            raise ValueError(f"it has shape {tuple(array.shape)} and type {array.dtype}, not {shape}")
        return np.asarray(array[where])


class ForegroundOnDisk(Mapping[int, NDArray[np.int64]]):
    """``foreground.npz``, each of whose classes is read again for each access.

    Kept in memory, 10,000 cases with two classes would hold 1.6 GB. To draw a place takes 0.4 ms with 2
    classes, 2 ms with 117.

    Raises:
        StoreError: (while used) the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        with _ONE_HEADER, self._opened() as arrays:
            places: NDArray[np.int64] | None = arrays[str(index)] if str(index) in arrays.files else None
        if places is None:
            raise KeyError(index)
        return places

    def __iter__(self) -> Iterator[int]:
        with self._opened() as arrays:
            return iter([int(name) for name in arrays.files])

    def __len__(self) -> int:
        with self._opened() as arrays:
            return len(arrays.files)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with translate_damage(self._path), np.load(self._path, allow_pickle=False) as arrays:
            yield arrays


@contextmanager
def translate_damage(path: Path) -> Iterator[None]:
    """Raise a :class:`StoreError` in place of the error of a damaged, missing or unreadable file."""
    try:
        yield
    except FileNotFoundError as problem:
        raise StoreError("is missing", where=path, remedy=AGAIN, code="E-STORE-DAMAGED") from problem
    except (OSError, *_DAMAGE) as problem:
        if isinstance(problem, OSError) and is_access_error(problem):
            raise access_error(problem, path, kind=StoreError) from problem
        raise StoreError(f"is damaged ({problem})", where=path, remedy=AGAIN, code="E-STORE-DAMAGED") from problem
