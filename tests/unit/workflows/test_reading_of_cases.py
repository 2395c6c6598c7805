"""Files without a spacing: exports and Triton read a run's cases as in its training, and others as the user says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.dataset.conversion.plain_sources import FileNames
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import ImageError, OptionError
from decathlete.export.parity import check_windows
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_image, write_image
from decathlete.io.reading import Reading
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.triton.benchmark_requests import real_data
from decathlete.serving.triton.cases import find_cases, require_sendable
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.export_int8 import export_int8
from decathlete.workflows.export_model import export_model, load_comparison_windows
from decathlete.workflows.int8_cases import choose_cases
from decathlete.workflows.plain_dataset import describe_folders
from decathlete.workflows.workspace import Workspace
from factories import make_test_plan
from triton_support import fake_server

PLAN = make_test_plan()
GIVEN, OTHER = (2.0, 1.0, 1.0), (3.0, 1.0, 1.0)
SHAPE = (8, 18, 16)
NO_SPACING = "E-IMAGE-SPACING"


def write_nrrd(path: Path, array_ZYX: np.ndarray) -> None:
    """Write a file without a spacing."""
    kind = {"float32": "float", "uint8": "uint8"}[array_ZYX.dtype.name]
    sizes = " ".join(str(n) for n in reversed(array_ZYX.shape))
    lines = ["NRRD0004", f"type: {kind}", "dimension: 3", f"sizes: {sizes}", "endian: little", "encoding: raw", "", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode() + array_ZYX.tobytes())


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "Dataset001_Plain"
    label_ZYX = np.zeros(SHAPE, np.uint8)
    label_ZYX[2:6, 4:10, 4:10] = 1
    for number, case in enumerate("abcdef"):
        image_ZYX = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
        write_nrrd(root / f"imagesTr/{case}_0000.nrrd", image_ZYX)
        write_nrrd(root / f"labelsTr/{case}.nrrd", label_ZYX)
    manifest = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nrrd"}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Path:
    """The folder of a run whose prepared cases are gone."""
    folder = tmp_path / "fold_0"
    networks = [build_network(PLAN.network, seed=0)]
    ModelBundle.save(folder / "model", TrainedMember(plan=PLAN, networks=networks))
    RunRecord(
        version="0", dataset=dataset.name, dataset_root=str(dataset), dataset_digest="d", dims=3, fold=0,
        prepared=str(tmp_path / "gone"), train=("a", "b", "c", "d"), val=("e", "f"), config=TrainConfig(epochs=1),
        plan_digest="p", started="now", spacing=GIVEN,
    ).save(folder / "run.json")  # fmt: skip
    return folder


def test_a_comparison_reads_the_runs_cases_and_named_ones(run: Path, dataset: Path) -> None:
    own = load_comparison_windows(run, PLAN)
    assert own.origin == "cases that the run held out"
    with pytest.raises(ImageError) as raised:
        check_windows(PLAN, dataset / "imagesTr")
    assert raised.value.code == NO_SPACING
    image = dataset / "imagesTr/e_0000.nrrd"
    named = check_windows(PLAN, image, Reading(spacing=GIVEN))
    assert torch.equal(named[0], own.windows[0])
    assert not torch.equal(check_windows(PLAN, image, Reading(spacing=OTHER))[0], named[0])


def test_int8_reads_a_datasets_cases_as_in_training_and_calibration_as_the_user_says(run: Path, dataset: Path) -> None:
    found = choose_cases(run, PLAN)
    assert [case.spacing for case in found.validate] == [GIVEN] * 2
    trained = found.calibrate["a"]()
    assert trained.shape == (1, 16, 18, 16)  # resampled to 1 mm
    assert np.array_equal(choose_cases(run, PLAN, dataset=dataset).calibrate["a"](), trained)
    changed = choose_cases(run, PLAN, dataset=dataset, spacing=OTHER)
    assert [case.spacing for case in changed.validate] == [OTHER] * 2
    assert changed.calibrate["a"]().shape == (1, 24, 18, 16)
    for calibration in (dataset, dataset / "imagesTr"):
        with pytest.raises(ImageError) as raised:
            choose_cases(run, PLAN, calibration=calibration).calibrate["a"]()
        assert raised.value.code == NO_SPACING
        found = choose_cases(run, PLAN, calibration=calibration, spacing=GIVEN)
        assert np.array_equal(found.calibrate["a"](), trained)


def test_int8_of_a_model_without_a_run_reads_a_dataset_as_the_user_says(dataset: Path, tmp_path: Path) -> None:
    found = choose_cases(tmp_path / "imported", PLAN, dataset=dataset, spacing=GIVEN)
    assert [case.spacing for case in found.validate] == [GIVEN]
    assert found.calibrate["a"]().shape == (1, 16, 18, 16)


def test_a_predictor_reads_a_file_with_the_spacing(run: Path, dataset: Path) -> None:
    predictor = Predictor.load(run, device="cpu", engine="torch", precision="fp32")
    image = dataset / "imagesTr/a_0000.nrrd"
    found = predictor.predict(image, spacing=GIVEN)
    assert found.geometry.spacing_ZYX == GIVEN
    read = read_image(image, spacing=GIVEN)
    expected = predictor.predict(read.array_CZYX, geometry=read.geometry)
    np.testing.assert_array_equal(found.label_ZYX, expected.label_ZYX)


def test_a_spacing_of_no_named_file_is_an_error(run: Path, tmp_path: Path) -> None:
    calls: list[tuple[Callable[..., object], str]] = [
        (lambda **given: export_model("onnx", run, tmp_path / "p", **given), "--input"),
        (lambda **given: export_int8(run, tmp_path / "p", **given), "--calibration or --dataset"),
    ]
    for call, names in calls:
        for given, said in (({"spacing": GIVEN}, "--spacing"), ({"image_formats": {"nifti": {}}}, "nifti")):
            with pytest.raises(OptionError, match=f"{said} without {names}") as raised:
                call(**given)
            assert raised.value.code == "E-OPTION-CONFLICT"


def test_triton_verify_reads_the_runs_cases_and_named_ones(run: Path, dataset: Path) -> None:
    pytest.importorskip("tritonclient.http")
    network = build_network(PLAN.network, seed=0).eval()

    def compute(windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(windows.copy())).numpy()

    def verify(*more: str):
        options = ["--http", address, "--protocol", "http", "--models", "network", "--json"]
        return CliRunner().invoke(app, ["triton", "verify", str(run), *options, *more])

    with fake_server(compute) as address:
        done = verify()
        assert done.exit_code == 0, done.output
        assert [case["case_id"] for case in json.loads(done.stdout)["models"][0]["cases"]] == ["e", "f"]
        images = ["--input", str(dataset / "imagesTr/a_0000.nrrd")]
        assert getattr(verify(*images).exception, "code", None) == NO_SPACING
        assert verify(*images, "--spacing", "2,1,1").exit_code == 0
        assert getattr(verify("--spacing", "2,1,1").exception, "code", None) == "E-OPTION-CONFLICT"


def test_triton_benchmark_sends_images_with_their_spacing(run: Path, dataset: Path) -> None:
    image = dataset / "imagesTr/a_0000.nrrd"
    with pytest.raises(ImageError) as raised:
        real_data(image, PLAN, "pipeline")
    assert raised.value.code == NO_SPACING
    (sent,) = real_data(image, PLAN, "pipeline", Reading(spacing=GIVEN))
    assert np.abs(sent["affine"][0][:3, :3]).max(axis=0).tolist() == [1, 1, 2]


def test_a_file_is_sent_only_if_the_server_reads_it_alike(run: Path, dataset: Path, tmp_path: Path) -> None:
    case, *_ = find_cases(run, None, n_channels=1, limit=1)
    assert (case.id, case.spacing) == ("e", GIVEN)
    with pytest.raises(OptionError, match=r"would read this file without its spacing.*\n.*--send volume"):
        require_sendable(case)
    image_CZYX = read_image(case.images[0], spacing=GIVEN).array_CZYX
    write_image(tmp_path / "complete.nrrd", image_CZYX, Geometry.plain(SHAPE, spacing_ZYX=GIVEN))
    require_sendable(Case(id="g", images=(tmp_path / "complete.nrrd",), spacing=OTHER))
    with pytest.raises(OptionError, match="one file for each case"):
        require_sendable(Case(id="g", images=(tmp_path / "complete.nrrd", tmp_path / "complete.nrrd")))


def test_channels_of_plain_folders_are_found_without_a_spacing_in_the_files(dataset: Path, tmp_path: Path) -> None:
    names = FileNames(images=dataset / "imagesTr", labels=dataset / "labelsTr")
    folder = describe_folders(names, name="Plain", workspace=Workspace(prepared=tmp_path / "prepared"), spacing=GIVEN)
    assert read_dataset(folder).channels == ("image",)
