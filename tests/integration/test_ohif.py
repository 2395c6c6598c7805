"""OHIF with MONAI Label's plug-in, prebuilt in the wheel, segments a series of a real PACS with a service."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.image import imread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from starlette.staticfiles import StaticFiles

from decathlete.inference.output.output_kind import OutputKind
from decathlete.io.images import read_label
from decathlete.serving.http.app import create_app
from decathlete.workflows.predict import predict
from pacs_support import Orthanc, orthanc
from service_support import FP32, save_model, service_client, settings_for
from viewer_support import VIEWERS, browser_page

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]

OHIF = VIEWERS / "monailabel" / "endpoints" / "static" / "ohif"
STUDY, SERIES, FRAME = (str(generate_uid(entropy_srcs=["decathlete", name])) for name in ("study", "series", "frame"))

CODES = {
    "c1": {"code": "10200004", "meaning": "Liver", "color": [221, 130, 101]},
    "c2": {"code": "78961009", "meaning": "Spleen", "color": [30, 110, 250]},
}


def write_ct(folder: Path, n_slices: int = 12) -> Path:
    """A CT of noise around two values; the order of names is not the order of positions."""
    folder.mkdir()
    voxels = np.random.default_rng(0).normal(0, 30, (n_slices, 32, 40))
    voxels[:5, :16] += 400
    for k, plane in enumerate(voxels.astype(np.int16)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = str(generate_uid(entropy_srcs=["decathlete", str(k)]))
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY, SERIES, FRAME
        ds.PatientName, ds.PatientID, ds.StudyID, ds.AccessionNumber = "Test^Case", "T1", "1", "1"
        ds.PatientBirthDate, ds.PatientSex, ds.ReferringPhysicianName = "20000101", "O", ""
        ds.StudyDate = ds.SeriesDate = "20200101"
        ds.StudyTime = ds.SeriesTime = "101010"
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.SeriesDescription = "CT", 1, k + 1, "CT"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-20, -16, 2.5 * k], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = [1, 1], 2.5, 1, 0
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.WindowCenter, ds.WindowWidth = 100, 800
        ds.PixelData = plane.tobytes()
        pydicom.dcmwrite(folder / f"{(k * 7) % n_slices:02d}.dcm", ds, enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ohif")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return save_model(folder / "model", structure_codes=CODES)


@pytest.fixture(scope="module")
def series(folder: Path) -> Path:
    return write_ct(folder / "series")


@pytest.fixture(scope="module")
def archive(folder: Path, series: Path) -> Iterator[Orthanc]:
    """An archive with the series."""
    with orthanc(folder / "orthanc") as running:
        running.store(series)
        yield running


@pytest.fixture(scope="module")
def viewer(folder: Path, model: Path, archive: Orthanc) -> Iterator[tuple[Any, str]]:
    """OHIF beside a service, and their address."""
    if not (OHIF / "index.html").is_file():
        pytest.skip(f"{OHIF} is missing: run `make viewers`")
    settings = settings_for(model, folder / "data", studies=archive.web)
    app = create_app(settings)
    app.mount("/ohif", _Pages(directory=OHIF, html=True))
    context = {"viewport": {"width": 1400, "height": 850}, "bypass_csp": True, "other_sites": ("https://fonts.",)}
    with service_client(settings, app=app) as client, browser_page(**context) as page:
        page.set_default_timeout(900_000)
        yield page, str(client.base_url)


def read_by_gdcm(folder: Path) -> Any:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_a_series_of_a_pacs_is_segmented_by_its_uid(model, archive, series, tmp_path) -> None:
    predict(model, series, tmp_path / "predicted", options=FP32)
    expected = read_label(tmp_path / "predicted" / "series.nii.gz").array_ZYX
    settings = settings_for(model, tmp_path / "data", studies=archive.web)
    with service_client(settings) as client:
        assert client.get("/info/").json()["datastore"] == {"total": 1, "completed": 0}
        found = client.get("/proxy/dicom/qido/studies").json()
        assert found[0]["0020000D"]["Value"] == [STUDY]
        asked = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
        answer = client.post(
            "/infer/tiny",
            params={"image": SERIES, "output": "image"},
            files={"params": (None, json.dumps(asked))},
        )
        assert answer.content.endswith(expected.astype(np.uint8).tobytes())
        (tmp_path / "answer.nrrd").write_bytes(answer.content)
        segmented, by_gdcm = sitk.ReadImage(str(tmp_path / "answer.nrrd")), read_by_gdcm(series)
        assert segmented.GetSize() == by_gdcm.GetSize()  # the same voxels in the same order as for other readers
        np.testing.assert_allclose(segmented.GetOrigin(), by_gdcm.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(segmented.GetDirection(), by_gdcm.GetDirection(), atol=1e-6)
        files = {"label": ("label.bin", expected.astype(np.uint8).tobytes())}
        assert client.put("/datastore/label", params={"image": SERIES}, files=files).status_code == 200
        stored = client.get("/datastore/label", params={"label": SERIES, "tag": "final"})
        (tmp_path / "stored.nii.gz").write_bytes(stored.content)
        np.testing.assert_array_equal(read_label(tmp_path / "stored.nii.gz").array_ZYX, expected)


def test_ohif_runs_a_segmentation(viewer) -> None:
    page, address = viewer
    answers: list[tuple[str, int]] = []
    page.on("response", lambda response: answers.append((response.url, response.status)))
    page.goto(f"{address}/ohif/monai-label?StudyInstanceUIDs={STUDY}")
    _connect(page, f"{address}/")
    assert not is_coloured(page).any()
    with page.expect_console_message(lambda message: "updated the segmentation's scalar data" in message.text):
        page.get_by_role("button", name="Run", exact=True).last.click()  # the plug-in reads the label map
    wait_for_colour(page)
    assert [entry for entry in answers if "/infer/" in entry[0]]
    assert not [entry for entry in answers if "/infer/" in entry[0] and entry[1] != 200]


def test_ohif_shows_a_segmentation_of_the_archive(viewer, model, archive, series, tmp_path) -> None:
    (result,) = predict(model, series, tmp_path / "seg", options=FP32, kind=OutputKind(format="dicom-seg"))
    archive.store(result.path)
    page, address = viewer
    page.goto(f"{address}/ohif/segmentation?StudyInstanceUIDs={STUDY}")
    entry = page.get_by_text("Decathlete: Tiny").first
    entry.wait_for()
    page.wait_for_timeout(10_000)
    assert not is_blue(page).any()
    entry.dblclick()
    page.get_by_role("button", name="Yes").click()
    page.get_by_text("c2", exact=True).wait_for()  # the name of a segment
    wait_for_colour(page, is_blue)


def pixels(page: Any) -> np.ndarray:
    """The first view of the image, as a person sees it."""
    canvas = page.locator(".cornerstone-canvas").first
    while (box := canvas.bounding_box()) is None:  # OHIF replaces it while it draws
        page.wait_for_timeout(100)
    return imread(io.BytesIO(page.screenshot(clip=box)))[..., :3]


def is_coloured(page: Any) -> np.ndarray:
    """Pixels that are neither of the grey image nor of OHIF's cyan texts."""
    picture = pixels(page)
    return (np.ptp(picture, axis=-1) > 0.4) & (np.abs(picture[..., 1] - picture[..., 2]) > 0.25)


def is_blue(page: Any) -> np.ndarray:
    """Pixels that have the colour of the second structure."""
    picture = pixels(page)
    return (picture[..., 2] - picture[..., 0] > 0.4) & (picture[..., 2] > picture[..., 1] + 0.2)


def wait_for_colour(page: Any, is_drawn: Callable[[Any], np.ndarray] = is_coloured) -> None:
    for _ in range(60):
        if np.count_nonzero(is_drawn(page)) > 100:
            return
        page.wait_for_timeout(1000)
    raise AssertionError("the segmentation is not drawn")


def _connect(page: Any, address: str) -> None:
    page.locator("#monailabelServerURL").wait_for()
    page.wait_for_timeout(10_000)
    confirm = page.get_by_text("Confirm and Hide")
    if confirm.count():
        confirm.click()
    page.fill("#monailabelServerURL", address)
    page.locator(".settingsTable button").first.click()
    page.get_by_text("Auto-Segmentation").wait_for()


class _Pages(StaticFiles):
    """Files of an application that routes in the browser: its start page answers for every other address."""

    def lookup_path(self, path: str) -> Any:
        found = super().lookup_path(path)
        return found if found[1] is not None else super().lookup_path("index.html")
