"""Whatever a reader raises becomes one error that names the file."""

from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path

import pytest

from decathlete.errors import ImageError, InsufficientMemoryError
from decathlete.io.read_errors import translate_read_error


@pytest.mark.parametrize(
    "problem",
    [
        ValueError("odd"),
        TypeError("odd"),
        KeyError("odd"),
        IndexError("odd"),
        AttributeError("odd"),
        OverflowError("odd"),
        RecursionError("odd"),
        ZeroDivisionError("odd"),
        AssertionError("odd"),
        ImportError("odd"),
        struct.error("odd"),
        zlib.error("odd"),
        EOFError(),
        OSError("odd"),
    ],
    ids=repr,
)
def test_any_error_names_the_file(tmp_path: Path, problem: Exception) -> None:
    path = tmp_path / "x.nii"
    path.touch()
    with pytest.raises(ImageError, match="cannot be read as Odd") as caught, translate_read_error(path, "Odd"):
        raise problem
    assert caught.value.where == path
    assert caught.value.code == "E-IMAGE-DAMAGED"


def test_an_error_of_the_system_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    path.touch()
    problem = OSError(errno.EIO, "Input/output error")
    with pytest.raises(ImageError, match="Input/output error") as caught, translate_read_error(path, "Odd"):
        raise problem
    assert caught.value.code == "E-FILE"
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        RuntimeError("Failed to allocate memory for image."),
        RuntimeError("could not create a primitive"),
        InsufficientMemoryError("out of memory"),
    ],
    ids=repr,
)
def test_lack_of_memory_is_no_damage(tmp_path: Path, problem: Exception) -> None:
    (tmp_path / "x.nii").touch()
    with pytest.raises(type(problem)), translate_read_error(tmp_path / "x.nii", "Odd"):
        raise problem
