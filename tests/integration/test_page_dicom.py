"""The page with a DICOM folder: by drop and by button, its warnings, its classes, and the result as DICOM SEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from decathlete.io.images import read_label
from decathlete.planning.plan import Range, TrainingRanges
from dicom_support import uid, write_series
from page_support import download, drop_path, legend_amounts, volume_text, wait_for_result
from service_support import save_model, service_client, settings_for
from viewer_support import browser_page

pytestmark = pytest.mark.full

VOXEL_ML = 0.9 * 1.1 * 2.0 / 1000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained with thicker slices than those of the series."""
    wide = Range(low=0.0, high=1e9)
    ranges = TrainingRanges(
        spacing=(Range(low=4.0, high=5.0), wide, wide),
        size=(wide,) * 3,
        intensity=(Range(low=-1e9, high=1e9),),
    )
    return save_model(tmp_path_factory.mktemp("model") / "model", seed=1, training_ranges=ranges)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with a series, in a folder of its own as on a disc of a hospital, and its directory."""
    voxels = np.random.default_rng(0).normal(0, 300, (9, 18, 20)).astype(np.int16)
    write_series(tmp_path / "Doe Jane" / "CT1", voxels)
    (tmp_path / "Doe Jane" / "DICOMDIR").write_bytes(b"a directory")
    return tmp_path / "Doe Jane"


@pytest.mark.parametrize("way", ["drop", "button"])
def test_a_dicom_folder_becomes_a_dicom_seg(model: Path, study: Path, tmp_path: Path, way: str) -> None:
    with service_client(settings_for(model, tmp_path / "data")) as client, browser_page() as page:
        page.goto(str(client.base_url))
        if way == "drop":
            drop_path(page, study)
        else:
            page.wait_for_selector("#start:not([hidden])")
            page.set_input_files("#folder", study)
        wait_for_result(page)
        assert page.inner_text("#result-title") == "Doe Jane"
        warnings = page.locator("#warnings-list li").all_inner_texts()
        assert page.is_visible("#warnings")
        assert len(warnings) == 1
        assert warnings[0].startswith("Spacing along axis 0")
        amounts = legend_amounts(page)
        assert download(page, "dicom-seg", tmp_path / "made.dcm") == "Doe Jane_seg.dcm"
        assert download(page, "nifti", tmp_path / "made.nii.gz") == "Doe Jane_seg.nii.gz"
        assert [path.name for path in (tmp_path / "data").rglob("*") if "Doe" in path.name] == []
    label = read_label(tmp_path / "made.nii.gz").array_ZYX
    n_voxels = [int(np.sum(label == value)) for value in (1, 2)]
    assert min(n_voxels) > 0
    assert amounts == {f"c{k + 1}": volume_text(n * VOXEL_ML) for k, n in enumerate(n_voxels)}
    made = pydicom.dcmread(tmp_path / "made.dcm")
    assert (made.Modality, made.PatientName) == ("SEG", "Müller^Jörg")
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == uid("series", "series")
    np.testing.assert_array_equal(label_of(made, label.shape), label)


def label_of(made: pydicom.Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """The label map of a SEG of axial slices that are 2 mm apart, from 5 mm."""
    painted = np.zeros(shape, int)
    for frame, groups in zip(made.pixel_array, made.PerFrameFunctionalGroupsSequence, strict=True):
        place = round((groups.PlanePositionSequence[0].ImagePositionPatient[2] - 5.0) / 2.0)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        painted[place][frame > 0] = number
    return painted
