"""`decathlete serve` as a DICOM node of a real archive: what is sent is segmented once, whatever happens between."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pynetdicom
import pytest

from decathlete.io.dicom_structures import list_structures, read_structure_masks
from decathlete.io.images import read_grid
from decathlete.serving.model_cache import load_predictor
from dicom_checkers import dciodvfy_errors, dcmqi_voxels
from dicom_support import OBLIQUE, SAGITTAL, uid, write_series
from pacs_support import Orthanc, free_port, orthanc
from service_support import FP32, Launcher, ServiceProcess, save_model

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

_WAIT_S = 300.0
LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
CODES = {"c1": {"code": "10200004", "meaning": "Liver", "color": [221, 130, 101]}}


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    started = Launcher()
    yield started
    started.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    return save_model(folder, n_channels=2, channels=("CT", "PET"), structure_codes=CODES)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Path]:
    """A localizer, a CT and a PET of one study on one oblique grid."""
    voxels = np.random.default_rng(0).normal(0, 300, (9, 20, 22)).astype(np.int16)
    return {
        "scout": write_series(tmp_path / "scout", voxels[:1], series="scout", **LOCALIZER),
        "ct": write_series(tmp_path / "ct", voxels, orientation=OBLIQUE, series="ct"),
        "pet": write_series(tmp_path / "pet", voxels[:, ::-1], orientation=OBLIQUE, series="pet", modality="PT"),
    }


def slices(folder: Path) -> list[Any]:
    return sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda one: one.InstanceNumber)


def send(port: int, datasets: Sequence[Any], *, caller: str = "SCANNER") -> list[int]:
    """Send in one association, as a scanner does."""
    entity = pynetdicom.AE(ae_title=caller)
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title="DECATHLETE")
    if not association.is_established:
        return []
    statuses = [association.send_c_store(one).Status for one in datasets]
    association.release()
    return statuses


def wait_for(ready: Callable[[], bool], service: ServiceProcess) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not ready():
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.2)


def labels_in(path: Path, source: Path) -> np.ndarray:
    _, geometry = read_grid(source)
    found = np.zeros(geometry.shape_ZYX, int)
    for mask in read_structure_masks(path, geometry, frozenset(s.number for s in list_structures(path))):
        found[mask.indices_ZYX] = mask.number
    return found


def n_referenced(path: Path) -> int:
    return len(pydicom.dcmread(path).ReferencedSeriesSequence[0].ReferencedInstanceSequence)


def n_computed(service: ServiceProcess) -> int:
    """Number of computations in the log, which is kept when the service starts again."""
    return service.log.read_text().count(": computed")


def test_a_study_that_is_sent_is_segmented_once(launcher, model, archive, study, tmp_path) -> None:
    port = free_port()
    options = ["--dicom-node", f"DECATHLETE:{port}", "--dicom-caller", "SCANNER", "--send-to", archive.peer]
    ct, pet = slices(study["ct"]), slices(study["pet"])
    with ServiceProcess(launcher, model, tmp_path / "data", *options) as service:
        assert send(port, slices(study["scout"]), caller="STRANGER") == []
        assert set(send(port, [*slices(study["scout"]), *pet[:8], *ct[:8]])) == {0}
        service.kill()  # before the study is complete
        service.start()
        wait_for(lambda: len(archive.segmentations(tmp_path / "found")) == 1, service)
        assert set(send(port, ct[8:])) == {0}  # late slices of both channels, in two associations
        service.kill()
        service.start()
        assert set(send(port, [*pet[8:], *ct])) == {0}  # and some that came before
        wait_for(lambda: len(archive.segmentations(tmp_path / "found")) == 2, service)
        assert set(send(port, [*pet, *ct])) == {0}  # nothing new
        time.sleep(14)
        found = archive.segmentations(tmp_path / "found")
        assert [n_referenced(path) for path in found] == [8, 9]
        assert n_computed(service) == 2  # the archive keeps an object that it gets twice once
        assert service.stop() == 0
    expected = load_predictor(model, FP32).predict([study["ct"], study["pet"]]).label_ZYX
    assert expected.any()
    np.testing.assert_array_equal(labels_in(found[1], study["ct"]), expected)
    (code,) = pydicom.dcmread(found[1]).SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("10200004", "SCT")  # of the model
    assert "Müller" not in service.log.read_text()


def test_a_study_of_an_archive_is_segmented_once(launcher, model, archive, study, tmp_path) -> None:
    options = ["--dicomweb", archive.web, "--dicomweb-every", "1"]
    beside = {"orientation": SAGITTAL, "SeriesInstanceUID": uid("series", "ct")}  # slices of the same series
    archive.store(study["scout"], study["ct"], write_series(tmp_path / "b", np.ones((2, 5, 6)), series="b", **beside))
    with ServiceProcess(launcher, model, tmp_path / "data", *options) as service:
        wait_for(lambda: "skipped" in service.log.read_text(), service)  # it lacks a channel
        archive.store(study["pet"])
        service.kill()
        service.start()
        wait_for(lambda: len(archive.segmentations(tmp_path / "found")) == 1, service)
        assert service.stop() == 0
    before = n_computed(service)
    assert before == 1
    shutil.rmtree(tmp_path / "data")
    with ServiceProcess(launcher, model, tmp_path / "data", *options) as service:  # a node that knows nothing of it
        wait_for(lambda: "series of the archive that were segmented before: 3" in service.log.read_text(), service)
        (found,) = archive.segmentations(tmp_path / "found")
        assert service.stop() == 0
    assert n_computed(service) == before
    expected = load_predictor(model, FP32).predict([study["ct"], study["pet"]]).label_ZYX
    np.testing.assert_array_equal(labels_in(found, study["ct"]), expected)
    assert dciodvfy_errors(found) == []
    _, geometry = read_grid(study["ct"])
    read = dcmqi_voxels(found, tmp_path / "dcmqi", tuple(np.unique(expected[expected > 0])), geometry)
    for number, voxels in read.items():
        np.testing.assert_array_equal(voxels, np.argwhere(expected == number))


class SlowArchive:
    """A proxy before an archive that holds back one series, until it is opened.

    Attributes:
        held: whether a client waits for the series.
        opened: set it to send the series.
    """

    def __init__(self, archive: Orthanc, series_uid: str) -> None:
        self.held, self.opened = threading.Event(), threading.Event()
        self._archive, self._series_uid = archive.web, series_uid

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run it, and provide its address."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.pass_on(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            self.opened.set()
            server.shutdown()
            server.server_close()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        if request.path.endswith(f"/series/{self._series_uid}"):
            self.held.set()
            self.opened.wait()
        content = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        answer = httpx.request(request.command, self._archive + request.path, content=content, headers=headers)
        try:
            request.send_response(answer.status_code)
            request.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            request.send_header("Content-Length", str(len(answer.content)))
            request.end_headers()
            request.wfile.write(answer.content)
        except OSError:  # the client was killed
            pass


def test_a_study_whose_copy_is_killed_between_two_series_is_segmented_once(
    launcher, model, archive, study, tmp_path
) -> None:
    archive.store(study["scout"], study["ct"], study["pet"])
    pet_uid = str(slices(study["pet"])[0].SeriesInstanceUID)
    slow = SlowArchive(archive, pet_uid)
    with (
        slow.running() as address,
        ServiceProcess(launcher, model, tmp_path / "data", "--dicomweb", address, "--dicomweb-every", "1") as service,
    ):
        wait_for(lambda: "copied a series of 9 instances" in service.log.read_text(), service)
        assert slow.held.wait(_WAIT_S)
        service.kill()
        service.start()
        time.sleep(12)  # longer than a study must be quiet: what was copied is not the whole study
        assert ": skipped" not in service.log.read_text()
        slow.opened.set()
        wait_for(lambda: len(archive.segmentations(tmp_path / "found")) == 1, service)
        time.sleep(14)
        (found,) = archive.segmentations(tmp_path / "found")
        assert (n_computed(service), n_referenced(found)) == (1, 9)
        assert httpx.get(f"{service.address}/api/v1/dicom-node").json()["jobs"]["sent"] == 1
        assert service.stop() == 0
    expected = load_predictor(model, FP32).predict([study["ct"], study["pet"]]).label_ZYX
    np.testing.assert_array_equal(labels_in(found, study["ct"]), expected)
