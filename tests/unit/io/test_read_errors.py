"""Whatever a reader raises becomes one error that names the file."""

from __future__ import annotations

import errno
import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError, InsufficientMemoryError
from decathlete.io.folder_tree import image_parts
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.images import read_image, write_label
from decathlete.io.read_errors import translate_read_error
from decathlete.io.volumes import Volume
from decathlete.serving.inputs import ReceivedFile, make_image


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


@pytest.fixture
def odd_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of a plug-in, with a signature."""
    monkeypatch.setattr(IMAGE_FORMATS, "_registered", dict(IMAGE_FORMATS._registered))

    @IMAGE_FORMATS.register("odd")
    class Odd(ImageFormat):
        """Odd format."""

        title = "Odd"
        suffixes = (".odd", ".oddhdr")
        detached_suffixes = (".oddhdr",)
        signatures = ((3, b"ODD"),)

        def read_volume(self, path: Path, *, as_float32: bool = False) -> Volume:
            raise ValueError("never read")


@pytest.mark.usefixtures("odd_format")
def test_a_file_of_a_plugins_format_is_recognised_by_its_signature(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\0\0\0ODD" + bytes(600))
    with pytest.raises(ImageError, match=r"is a Odd file, and its name ends with .png\n.*rename it to a.odd"):
        read_image(tmp_path / "a.png")


@pytest.mark.usefixtures("odd_format")
def test_voxels_beside_a_header_of_a_plugins_format_are_its_part(tmp_path: Path) -> None:
    for name in ("a.oddhdr", "a.raw", "b.odd", "b.raw"):
        (tmp_path / name).touch()
    assert tmp_path / "a.raw" in image_parts([tmp_path / "a.oddhdr", tmp_path / "b.odd"])
    assert tmp_path / "b.raw" not in image_parts([tmp_path / "a.oddhdr", tmp_path / "b.odd"])


@pytest.mark.usefixtures("odd_format")
def test_uploads_of_a_plugins_format_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"\0\0\0ODD" + bytes(600))
    with pytest.raises(ImageError, match="cannot be read as Odd"):
        make_image([ReceivedFile(name="a", path=tmp_path / "0")], tmp_path, channels=("CT",), image_bytes=10**9)
    (tmp_path / "second").mkdir()
    header = ReceivedFile(name="a.oddhdr", path=tmp_path / "second" / "0")
    header.path.touch()
    with pytest.raises(ImageError, match=r"a header of the kind .oddhdr has its voxels in another file"):
        make_image([header], tmp_path / "second", channels=("CT",), image_bytes=10**9)


def test_a_compressed_file_is_recognised_by_its_content(tmp_path: Path) -> None:
    write_label(tmp_path / "x.nii.gz", np.ones((3, 4, 5), int), Geometry.plain((3, 4, 5)))
    (tmp_path / "x.nii.gz").rename(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"is a NIfTI file, and its name ends with .png\n.*rename it to x.nii.gz"):
        read_image(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(gzip.compress(b"\x89PNG\r\n" + bytes(600)))
    with pytest.raises(ImageError, match="does not begin with a PNG signature"):
        read_image(tmp_path / "y.png")


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
