"""The service offers DICOM objects for DICOM images, and the node segments with a model of the service."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from decathlete.core.choices import DicomKind
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import ServiceError
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.dicom import read_structure_codes
from decathlete.io.images import read_label
from decathlete.io.reading import Reading
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.dicom_node.model_segment import make_node, running_node
from decathlete.serving.dicom_node.node import MAX_STARTS, DicomNode
from decathlete.serving.dicom_node.settings import DicomNodeSettings
from decathlete.serving.model_cache import ModelCache
from decathlete.serving.results import FinishedJob, ResultStructures, find_format, formats_for, write_result
from decathlete.serving.settings import ModelSource
from dicom_node_support import store_datasets
from dicom_support import paint_structures, uid, write_series
from factories import make_test_plan

KINDS: tuple[DicomKind, ...] = ("dicom-seg", "rtstruct")
CODE = {"code": "T-1", "scheme": "99X", "meaning": "Thing"}


def meaning_of(path: Path) -> str:
    """The meaning of the first structure's code."""
    made = pydicom.dcmread(path)
    if "SegmentSequence" in made:
        return str(made.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning)
    return str(made.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0].CodeMeaning)


def make_models(folder: Path, n_channels: int = 1, **changes: Any) -> ModelCache:
    plan = make_test_plan(n_channels=n_channels, structure_codes={"c1": CODE})
    ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    options = PredictOptions(device="cpu", precision="fp32", engine="torch")
    return ModelCache([ModelSource(folder=folder, name="m")], options, **changes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelCache:
    return make_models(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    voxels = np.random.default_rng(0).normal(0, 300, (9, 18, 20)).astype(np.int16)
    return write_series(tmp_path / "series", voxels)


def object_of(name: DicomKind, job: FinishedJob) -> Path:
    """The file of a finished job in a format; it is made where it is missing, as the service does."""
    chosen = find_format(name, "dicom")
    path = chosen.path(job)
    if not path.is_file() and chosen.write is not None:
        chosen.write(job, path)
    return path


def test_results_as_dicom_equal_the_label_map(models: ModelCache, series: Path, tmp_path: Path) -> None:
    with models.use("m") as predictor:
        write_result(tmp_path, [series], predictor.predict(series), predictor)
    job = FinishedJob(images=[series], result=tmp_path, codes={})
    truth = read_label(find_format("nifti", "dicom").path(job)).array_ZYX
    assert truth.any()
    for name in KINDS:
        path = object_of(name, job)
        np.testing.assert_array_equal(paint_structures(path, series), truth)
        assert meaning_of(path) == "Thing"  # of the model
    assert formats_for("nifti") == ["nifti"]
    with pytest.raises(ServiceError, match="dicom-seg need an input of the kind dicom"):
        find_format("dicom-seg", "nifti")


def test_formats_without_their_package_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decathlete.serving.results.find_spec", lambda name: None if name == "highdicom" else name)
    assert formats_for("dicom") == ["nifti", "rtstruct"]
    with pytest.raises(ServiceError, match="highdicom is not installed") as caught:
        find_format("dicom-seg", "dicom")
    assert caught.value.code == "E-SERVICE-NOT-OFFERED"


def test_codes_of_the_service_precede_those_of_the_model(
    series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "dataset.json").write_text(
        '{"dicom_codes": {"c1": {"code": "T-2", "scheme": "99X", "meaning": "Other thing"},'
        ' "c9": {"code": "T-9", "scheme": "99X", "meaning": "No thing"}}}'
    )
    models = make_models(tmp_path / "m", codes=read_structure_codes(tmp_path / "dataset.json"))
    assert "no model segments c9" in caplog.text
    with models.use("m") as predictor:
        write_result(tmp_path, [series], predictor.predict(series), predictor)
    job = FinishedJob(images=[series], result=tmp_path, codes=models.codes)
    assert [meaning_of(object_of(name, job)) for name in KINDS] == ["Other thing", "Other thing"]
    node = make_node(DicomNodeSettings(data=tmp_path / "node", dicomweb="http://127.0.0.1:1/x"), models, "m")
    store_series(node, series)
    assert node.compute_next()
    (result,) = (node.store.job_folder(node.store.jobs()[0]) / "results").iterdir()
    assert meaning_of(result) == "Other thing"
    node.stop()


@pytest.mark.parametrize("name", KINDS)
def test_a_restart_with_other_codes_makes_another_object(
    models: ModelCache, series: Path, tmp_path: Path, name: DicomKind
) -> None:
    with models.use("m") as predictor:
        write_result(tmp_path, [series], predictor.predict(series), predictor)
    other = StructureCode(code="T-2", scheme="99X", meaning="Other thing")
    of_no_structure = {"c9": other}
    before, after, again, unused = (
        object_of(name, FinishedJob(images=[series], result=tmp_path, codes=codes))
        for codes in ({}, {"c1": other}, {}, of_no_structure)
    )
    assert [meaning_of(path) for path in (before, after, again)] == ["Thing", "Other thing", "Thing"]
    assert again == before
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in (before, after, unused)]
    assert uids[0] == uids[2] != uids[1]


def test_a_result_without_its_structures_is_no_dicom_object(models: ModelCache, series: Path, tmp_path: Path) -> None:
    with models.use("m") as predictor:
        write_result(tmp_path, [series], predictor.predict(series), predictor)
    assert ResultStructures.of_result(tmp_path).labels.structures[0].name == "c1"
    (tmp_path / "structures.json").unlink()
    with pytest.raises(ServiceError, match="earlier version") as caught:
        object_of("dicom-seg", FinishedJob(images=[series], result=tmp_path, codes={}))
    assert caught.value.code == "E-SERVICE-STATE"


def store_series(node: DicomNode, *folders: Path) -> None:
    datasets = [pydicom.dcmread(file) for folder in folders for file in folder.iterdir()]
    store_datasets(node.store, datasets, now=0.0, origin="store")


def test_the_node_segments_with_a_model(models: ModelCache, series: Path, tmp_path: Path) -> None:
    settings = DicomNodeSettings(data=tmp_path / "node", dicomweb="http://127.0.0.1:1/x")
    node = make_node(settings, models, "m")
    store_series(node, series)
    assert node.compute_next()
    (job,) = node.store.jobs()
    (result,) = (node.store.job_folder(job) / "results").iterdir()
    assert job.state == "computed"
    assert paint_structures(result, series).any()
    assert meaning_of(result) == "Thing"
    assert pydicom.dcmread(result).DeviceSerialNumber == models.info("m").digest
    node.stop()


def test_the_node_segments_a_study_with_a_model_of_several_channels(series: Path, tmp_path: Path) -> None:
    models = make_models(tmp_path / "m", n_channels=2)
    other = write_series(tmp_path / "other", np.full((9, 18, 20), 7, np.int16), series="other", modality="PT")
    rules = ("channel0=modality:CT", "channel1=modality:PT")
    node = make_node(
        DicomNodeSettings(data=tmp_path / "node", dicomweb="http://127.0.0.1:1/x", series=rules), models, "m"
    )
    store_series(node, series, other)
    assert node.compute_next()
    (job,) = node.store.jobs()
    assert job.state == "computed", job.reason
    (result,) = (node.store.job_folder(job) / "results").iterdir()
    with models.use("m") as predictor:
        truth = predictor.predict([series, other]).label_ZYX
    np.testing.assert_array_equal(paint_structures(result, series), truth)
    node.stop()


def test_the_node_uses_the_spacing_of_the_service(models: ModelCache, tmp_path: Path) -> None:
    settings = DicomNodeSettings(data=tmp_path / "node", dicomweb="http://127.0.0.1:1/x")
    slice_ = write_series(tmp_path / "slice", np.zeros((1, 16, 16), np.int16), series="slice", SliceThickness=None)
    for spacing, state in ((None, "failed"), ((5.0, 1.0, 1.0), "computed")):
        node = make_node(settings, models, "m", reading=Reading(spacing=spacing))
        store_series(node, slice_)
        node.compute_next()
        (job,) = node.store.jobs()
        assert (job.state, job.reason) == (state, "E-IMAGE-SPACING: ImageError" if state == "failed" else None)
        node.stop()
    (result,) = (node.store.job_folder(job) / "results").iterdir()
    assert pydicom.dcmread(result).ReferencedSeriesSequence[0].SeriesInstanceUID == uid("series", "slice")


def test_an_orderly_end_of_the_node_puts_the_job_back(models: ModelCache, series: Path, tmp_path: Path) -> None:
    settings = DicomNodeSettings(data=tmp_path / "node", dicomweb="http://127.0.0.1:1/x")
    for _ in range(MAX_STARTS + 1):
        node = make_node(settings, models, "m")
        store_series(node, series)
        node._stopping.set()  # as if it was stopped during the computation
        assert node.compute_next()
        (job,) = node.store.jobs()
        assert (job.state, job.starts) == ("queued", 0)
        node.stop()
    node = make_node(settings, models, "m")
    assert node.compute_next()
    assert node.status().jobs == {"computed": 1}
    assert [path.name for path in node.store.job_folder(job).iterdir() if path.name != "series"] == ["results"]
    node.stop()


def test_the_end_of_the_service_ends_the_wait_of_the_node(models: ModelCache, series: Path, tmp_path: Path) -> None:
    settings, stopping = DicomNodeSettings(data=tmp_path / "node", dicomweb="http://127.0.0.1:1/x"), threading.Event()
    before = make_node(settings, models, "m")
    store_series(before, series)
    before.stop()
    with models.use("m"), running_node(settings, models, stopping=stopping) as node:  # a job of the service uses it
        assert node
        results = tmp_path / "node" / "jobs" / "1" / "results"
        deadline = time.monotonic() + 600  # against tests that hang
        while not results.exists() or [job.starts for job in node.store.jobs()] != [0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert node.status().jobs == {"queued": 1}  # and a kill now would not count
        stopping.set()
        for thread in node._threads:
            thread.join()
        assert [(job.state, job.starts) for job in node.store.jobs()] == [("queued", 0)]


@pytest.mark.parametrize(
    ("limit", "code"), [({"job_seconds": 0.0}, "E-SERVICE-TIME"), ({"image_bytes": 9}, "E-SERVICE-SIZE")]
)
def test_a_computation_of_the_node_has_limits(
    models: ModelCache, series: Path, tmp_path: Path, limit: Any, code: str
) -> None:
    settings = DicomNodeSettings(data=tmp_path / "node", dicomweb="http://127.0.0.1:1/x", **limit)
    node = make_node(settings, models, "m")
    store_series(node, series)
    assert node.compute_next()
    (job,) = node.store.jobs()
    assert (job.state, job.reason) == ("failed", f"{code}: ServiceError")
    node.stop()
