"""DICOM folders: order, rescale, gaps, several series, files without a suffix; no patient's name in any message."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from decathlete.errors import ImageError
from decathlete.io.images import find_inputs, output_suffix, read_grid, read_image
from decathlete.io.read_warnings import separate_warnings, warn_once

SERIES = generate_uid(entropy_srcs=["series"])


def write_slice(
    path: Path,
    value: int,
    position,
    *,
    slope=1.0,
    intercept=0.0,
    orientation=(1, 0, 0, 0, 1, 0),
    series=SERIES,
    size=(4, 5),
) -> None:
    """One 4 x 5 slice of a constant stored value, with value + 1 in its first voxel."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.PatientName, ds.PatientID, ds.Modality = "Secret^Name", "SecretID", "CT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(entropy_srcs=["study"]), series
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [f"{v:.6g}" for v in position], list(orientation)
    ds.PixelSpacing, ds.SliceThickness = [0.5, 0.75], 3  # rows are 0.5 mm apart, columns 0.75 mm
    ds.Rows, ds.Columns = size
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    pixels = np.full(size, value, np.int16)
    pixels[0, 0] += 1
    ds.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def test_slices_are_sorted_by_position_whatever_their_names(tmp_path: Path) -> None:
    for name, z in (("c", 0), ("a", 2), ("b", 4), ("d", 6)):
        write_slice(tmp_path / name, 10 * z, (-7, 9, z))
    image = read_image(tmp_path)
    assert image.array_CZYX.shape == (1, 4, 4, 5)
    assert image.array_CZYX[0, :, 1, 1].tolist() == [0, 20, 40, 60]
    assert image.geometry.spacing_ZYX == pytest.approx((2, 0.5, 0.75))
    assert image.geometry.origin_mm == pytest.approx((7, -9, 0))
    # columns run to the patient's left, rows to the back
    np.testing.assert_allclose(image.geometry.direction, [[0, 0, -1], [0, -1, 0], [1, 0, 0]], atol=1e-6)
    assert read_grid(tmp_path) == (1, image.geometry)


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    for z, slope in enumerate((1, 0.25, 0.125)):
        write_slice(tmp_path / f"{z}.dcm", 10, (0, 0, z), slope=slope, intercept=-1024)
    found = read_image(tmp_path).array_CZYX[0, :, 1, 1]
    np.testing.assert_allclose(found, [10 - 1024, 2.5 - 1024, 1.25 - 1024])


def test_a_tilted_gantry_keeps_its_shear(tmp_path: Path) -> None:
    for k in range(4):
        write_slice(tmp_path / f"{k}.dcm", k, (0, 0.4 * k, 2 * k))
    step = read_image(tmp_path).geometry.matrix[:3, 0]
    np.testing.assert_allclose(step, [0, -0.4, 2], atol=1e-5)


def test_sagittal_slices(tmp_path: Path) -> None:
    for k in range(3):
        write_slice(tmp_path / f"{k}.dcm", k, (2 * k, 0, 0), orientation=(0, 1, 0, 0, 0, -1))
    geometry = read_image(tmp_path).geometry
    lowest = read_image(tmp_path).array_CZYX[0, 0, 1, 1]
    normal = np.cross((0, 1, 0), (0, 0, -1))
    assert lowest == (0 if normal[0] > 0 else 2)
    np.testing.assert_allclose(np.abs(geometry.direction[:, 0]), [1, 0, 0], atol=1e-6)


def test_one_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    write_slice(tmp_path / "only", 1, (0, 0, 0))
    assert read_image(tmp_path).geometry.spacing_ZYX == pytest.approx((3, 0.5, 0.75))
    write_slice(tmp_path / "file.dcm", 1, (0, 0, 0))
    assert read_image(tmp_path / "file.dcm").array_CZYX.shape == (1, 1, 4, 5)


@pytest.mark.parametrize(
    ("heights", "message"), [((0, 2, 6, 8), "not evenly spaced.*4 mm between"), ((0, 2, 2, 4), "at one position")]
)
def test_gaps_and_copies_are_errors(tmp_path: Path, heights, message) -> None:
    for k, z in enumerate(heights):
        write_slice(tmp_path / f"{k}.dcm", k, (0, 0, z))
    with pytest.raises(ImageError, match=message) as caught:
        read_grid(tmp_path)
    assert "Secret" not in str(caught.value)


def test_slightly_uneven_slices_are_a_warning(tmp_path: Path, caplog) -> None:
    for k, z in enumerate((0, 2, 4.1, 6)):
        write_slice(tmp_path / f"{k}.dcm", k, (0, 0, z))
    with caplog.at_level(logging.WARNING):
        read_image(tmp_path)
    assert "not quite evenly spaced" in caplog.text
    assert "Secret" not in caplog.text


def test_a_warning_belongs_to_a_reading(tmp_path: Path, caplog) -> None:
    for k, z in enumerate((0, 2, 4.1, 6)):
        write_slice(tmp_path / f"{k}.dcm", k, (0, 0, z))
    counts = []
    for scope in (nullcontext(), separate_warnings(), separate_warnings(), nullcontext()):
        with scope:
            read_grid(tmp_path)
            read_image(tmp_path)
        counts.append(caplog.text.count("not quite evenly spaced"))
    assert counts == [1, 2, 3, 3]


def test_old_warnings_take_no_memory(caplog) -> None:
    texts = [f"image {number} is odd" for number in range(2000)]
    for text in [*texts, texts[-1], texts[0]]:
        warn_once(text)
    assert (caplog.text.count(texts[-1]), caplog.text.count(texts[0])) == (1, 2)


def test_two_series_in_one_folder_are_refused(tmp_path: Path) -> None:
    for k in range(4):
        series = SERIES if k < 3 else generate_uid(entropy_srcs=["other"])
        write_slice(tmp_path / f"{k}.dcm", k, (0, 0, k), series=series)
    with pytest.raises(ImageError, match="2 DICOM series") as caught:
        read_image(tmp_path)
    assert "Secret" not in str(caught.value)


def test_slices_of_different_size_are_refused(tmp_path: Path) -> None:
    write_slice(tmp_path / "0.dcm", 0, (0, 0, 0))
    write_slice(tmp_path / "1.dcm", 0, (0, 0, 1), size=(6, 6))
    with pytest.raises(ImageError, match="differ in size"):
        read_image(tmp_path)


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    for k in range(3):
        write_slice(tmp_path / f"{k}.dcm", k, (0, 0, k))
    bad = tmp_path / "1.dcm"
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(ImageError, match="truncated, damaged") as caught:
        read_image(tmp_path)
    assert caught.value.where == bad


def test_folders_of_slices_are_cases(tmp_path: Path) -> None:
    for case in ("a", "b"):
        for k in range(2):
            write_slice(tmp_path / case / f"IM{k}", k, (0, 0, k))
    assert find_inputs(tmp_path) == {"a": (tmp_path / "a",), "b": (tmp_path / "b",)}
    assert find_inputs(tmp_path / "a") == {"a": (tmp_path / "a",)}
    assert output_suffix(tmp_path / "a") == ".nii.gz"


@pytest.mark.real_data
@pytest.mark.parametrize("series", ["STS_002/CT", "STS_002/MR_T1", "STS_025/PET"])
def test_real_series_equal_their_reference(real_data, series) -> None:
    folder = real_data("DICOM_RTSTRUCT_STS") / series
    image, reference = read_image(folder / "image"), read_image(folder / "reference_image.nii.gz")
    assert image.geometry.differences(reference.geometry) == []
    np.testing.assert_allclose(image.array_CZYX, reference.array_CZYX, atol=1e-5)


@pytest.mark.real_data
def test_real_files_without_suffix(real_data) -> None:
    image = read_image(real_data("TotalSegmentator_examples") / "example_ct_dicom")
    assert image.array_CZYX.shape == (1, 20, 512, 512)
    assert image.array_CZYX.min() == -1024
