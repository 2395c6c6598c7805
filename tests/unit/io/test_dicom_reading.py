"""DICOM files that are compressed as a whole are read if they fit into the memory, whatever declares their syntax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from decathlete.errors import ImageError
from decathlete.io import dicom_reading
from decathlete.io.dicom_reading import DEFLATED, read_dicom
from decathlete.io.dicom_series import sort_series
from decathlete.io.images import read_grid, read_image
from decathlete.serving.inputs import ReceivedFile, make_image
from dicom_support import write_series

LIMIT = 1_000_000


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_reading, "MAX_INFLATED_BYTES", LIMIT)


def write_deflated(folder: Path, *, n_hidden: int, has_preamble: bool = True) -> Path:
    """A slice in a dataset that is compressed as a whole, with zeros in a private attribute."""
    (path,) = write_series(folder, np.arange(20, dtype=np.int16).reshape(1, 4, 5)).iterdir()
    dataset: Any = pydicom.dcmread(path)
    dataset.private_block(0x0009, "made up", create=True).add_new(1, "OB", bytes(n_hidden))
    dataset.file_meta.TransferSyntaxUID = DEFLATED
    dataset.file_meta.PrivateInformationCreatorUID = "1.2"
    dataset.file_meta.PrivateInformation = bytes(100_000)  # longer than any look at the start of the file
    dataset.save_as(path, enforce_file_format=True)
    if not has_preamble:
        path.write_bytes(path.read_bytes()[132:])
    return path


def test_a_small_dataset_is_read(tmp_path: Path) -> None:
    path = write_deflated(tmp_path / "a", n_hidden=LIMIT // 2)
    assert read_dicom(path).Rows == 4
    np.testing.assert_array_equal(read_image(path).array_CZYX.ravel(), np.arange(20))


@pytest.mark.parametrize("has_preamble", [True, False])
def test_a_large_dataset_is_rejected(tmp_path: Path, has_preamble: bool) -> None:
    path = write_deflated(tmp_path / "a", n_hidden=LIMIT, has_preamble=has_preamble)
    assert path.stat().st_size < LIMIT // 5
    with pytest.raises(ImageError, match=r"is compressed as a whole, and has more than 1\.0 MB") as caught:
        read_dicom(path, force=True)
    assert caught.value.code == "E-IMAGE-DICOM"
    with pytest.raises(ImageError):
        read_grid(path)
    scan = sort_series([path])
    assert (scan.series, scan.damaged) == ((), {path})


def test_an_upload_of_a_large_dataset_is_rejected(tmp_path: Path) -> None:
    path = write_deflated(tmp_path / "sent", n_hidden=LIMIT)
    folder = tmp_path / "upload"
    folder.mkdir()
    with pytest.raises(ImageError):
        make_image([ReceivedFile(name="a.dcm", path=path)], folder, channels=("CT",), image_bytes=10**9)
