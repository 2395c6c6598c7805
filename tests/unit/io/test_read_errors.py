"""Whatever a reader raises becomes one error that names the file."""

from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path

import pytest

from decathlete.errors import ImageError, InsufficientMemoryError
from decathlete.io.images import read_image
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


@pytest.mark.parametrize(
    ("name", "kind", "remedy"),
    [
        ("a.png", "JPEG", "rename it to a.jpg"),
        ("a.jpg", "PNG", "rename it to a.png"),
        ("a.nii", "DICOM", "rename it to a.dcm"),
        ("a.mha", "NRRD", "rename it to a.nrrd"),
        ("a.tif", "PNG", "rename it to a.png"),
        ("a.nii", "HDF5", "save it in a format that is read"),
    ],
)
def test_a_file_under_the_name_of_another_format_is_recognised(
    tmp_path: Path, name: str, kind: str, remedy: str
) -> None:
    start = {
        "JPEG": b"\xff\xd8\xff\xe0",
        "PNG": b"\x89PNG\r\n\x1a\n",
        "DICOM": bytes(128) + b"DICM",
        "NRRD": b"NRRD0004\n",
        "HDF5": b"\x89HDF\r\n\x1a\n",
    }[kind]
    (tmp_path / name).write_bytes(start + bytes(600))
    with pytest.raises(ImageError, match=f"is a {kind} file, and its name ends with .*\n.*{remedy}"):
        read_image(tmp_path / name)
