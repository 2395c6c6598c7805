"""Settings of a plug-in's image format that change how its files are read: they reach every reader and every record."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, ImageError, OptionError, OutputError
from decathlete.evaluation.evaluate import evaluate
from decathlete.export.parity import check_windows
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.sources import as_image
from decathlete.io.format_settings import format_settings
from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.images import read_grid, read_image, read_volume
from decathlete.io.reading import Reading
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.preprocessing.store import StoreSource
from decathlete.serving.inputs import check_image
from decathlete.serving.triton.benchmark_requests import real_data
from decathlete.serving.triton.cases import find_cases, require_sendable
from decathlete.workflows.check import check
from decathlete.workflows.convert import convert
from decathlete.workflows.int8_cases import choose_cases
from decathlete.workflows.predict import predict
from decathlete.workflows.prepare_for_model import prepare_for_model
from decathlete.workflows.preprocess import preprocess
from decathlete.workflows.workspace import Workspace
from factories import make_test_plan, make_volumes

MODULE = '''
import numpy as np

from decathlete.core.geometry import Geometry
from decathlete.core.registry import ComponentSettings
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.volumes import Volume


@IMAGE_FORMATS.register("arrays")
class Arrays(ImageFormat):
    """Several images in one NumPy archive."""

    class Settings(ComponentSettings):
        array: str = "first"
        """Name of the array that is the image."""
        is_compressed: bool = False
        """Whether written archives are compressed."""

    title = "arrays"
    suffixes = written_suffixes = (".arrays",)
    reading_settings = frozenset({"array"})

    def read_volume(self, path, *, as_float32=False):
        with path.open("rb") as stream, np.load(stream) as stored:
            image_CZYX = stored[self.settings.array]
        return Volume(array_CZYX=image_CZYX, geometry=Geometry.plain(image_CZYX.shape[1:], spacing_ZYX=(2.0, 1.0, 1.0)))

    def write_volume(self, path, array_CZYX, geometry):
        with path.open("wb") as stream:
            np.savez(stream, **{self.settings.array: array_CZYX})
'''
SHAPE = (16, 16, 16)
SECOND = {"arrays": {"array": "second"}}


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "arrays_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    with IMAGE_FORMATS.isolated():
        IMAGE_FORMATS.load("arrays_plugin:Arrays")
        yield
    sys.modules.pop("arrays_plugin", None)


def save(path: Path, first_ZYX: Any, second_ZYX: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(stream, first=first_ZYX[None], second=second_ZYX[None])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset whose files hold two images; only the second label maps have the declared values."""
    root = tmp_path / "data" / "Dataset001_Arrays"
    label_ZYX = np.zeros(SHAPE, np.uint8)
    label_ZYX[4:10, 4:10, 4:10] = 1
    for number, case in enumerate("abcdef"):
        image_ZYX = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
        save(root / f"imagesTr/{case}_0000.arrays", image_ZYX, 100 * label_ZYX + image_ZYX)
        save(root / f"labelsTr/{case}.arrays", label_ZYX + 5, label_ZYX)
    save(root / "imagesTs/t_0000.arrays", image_ZYX, 100 * label_ZYX + image_ZYX)
    manifest = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".arrays"}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(data=tmp_path / "data", prepared=tmp_path / "prepared", results=tmp_path / "results")


def test_readers_use_the_settings_of_the_files_format(tmp_path: Path) -> None:
    save(tmp_path / "x.arrays", np.zeros((2, 3, 4)), np.ones((5, 6, 7)))
    second = format_settings({"nifti": {"compression_level": 3}, **SECOND})
    assert read_image(tmp_path / "x.arrays").array_CZYX.max() == 0
    assert read_image(tmp_path / "x.arrays", formats=second).array_CZYX.min() == 1
    assert read_volume(tmp_path / "x.arrays", formats=second).geometry.shape_ZYX == (5, 6, 7)
    assert read_grid(tmp_path / "x.arrays", formats=second)[1].shape_ZYX == (5, 6, 7)


def test_a_check_reads_with_them(dataset: Path, workspace: Workspace) -> None:
    assert not check(dataset, workspace=workspace, workers=1, n_folds=2).ok
    assert check(dataset, workspace=workspace, workers=1, n_folds=2, image_formats=SECOND).ok


def test_prepared_data_contain_them(dataset: Path, workspace: Workspace) -> None:
    with pytest.raises(DatasetError, match="values"):
        preprocess(dataset, workspace=workspace, workers=1)
    store = preprocess(dataset, workspace=workspace, workers=1, image_formats=SECOND)
    case = store.case("a")
    image_CZYX, label_ZYX = case.read_image(), case.read_label()
    assert image_CZYX[0][label_ZYX == 1].mean() > image_CZYX[0][label_ZYX == 0].mean() + 1
    assert StoreSource.load(store.folder / "source.json").image_formats == SECOND
    again = preprocess(dataset, workspace=workspace, workers=1, image_formats=SECOND, reuse=True)
    assert again.case("a").record == case.record


def test_data_prepared_with_other_settings_are_not_reused(dataset: Path, workspace: Workspace) -> None:
    for path in (dataset / "labelsTr").iterdir():
        save(path, np.eye(16, dtype=np.uint8)[None].repeat(16, axis=0), np.load(path)["second"][0])
    assert read_dataset(dataset).digest() != read_dataset(dataset, formats=format_settings(SECOND)).digest()
    first = preprocess(dataset, workspace=workspace, workers=1)
    assert "image_formats" not in (first.folder / "source.json").read_text()
    before = first.case("a").read_image()
    second = preprocess(dataset, workspace=workspace, workers=1, image_formats=SECOND, reuse=True)
    assert StoreSource.load(second.folder / "source.json").image_formats == SECOND
    assert not np.array_equal(second.case("a").read_image(), before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"arrays": {"is_compressed": True}},
            "is_compressed of the image format arrays has no effect: no file is",
        ),
        ({"nifti": {}}, r"settings of the image format nifti have no effect: no file is written in it"),
        ({"arrays": {"arrey": "second"}}, "arrey is not a setting of the image format arrays"),
    ],
)
def test_settings_without_effect_are_errors(
    given: dict[str, Any], message: str, dataset: Path, workspace: Workspace
) -> None:
    for command in (check, preprocess):
        with pytest.raises(OptionError, match=message):
            command(dataset, workspace=workspace, workers=1, image_formats=given)  # type: ignore[operator]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    plan = make_test_plan()
    return ModelBundle.save(
        tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)])
    ).folder


def test_images_of_a_predictor_are_read_with_them(tmp_path: Path) -> None:
    save(tmp_path / "a.arrays", np.zeros(SHAPE), np.ones(SHAPE))
    assert as_image(tmp_path / "a.arrays", image_formats=SECOND).array_CZYX.min() == 1
    with pytest.raises(OptionError, match="nifti has no effect"):
        as_image(tmp_path / "a.arrays", image_formats={"nifti": {"compression_level": 1}})


def test_predictions_read_and_record_them(model: Path, tmp_path: Path) -> None:
    image_ZYX = make_volumes(SHAPE)[0][0]
    save(tmp_path / "in/a.arrays", np.zeros(SHAPE), image_ZYX)
    save(tmp_path / "plain/a.arrays", image_ZYX, image_ZYX)
    options = PredictOptions(engine="torch", device="cpu", precision="fp32")
    expected = predict(model, tmp_path / "plain", tmp_path / "expected", options=options)
    kind = OutputKind(image_formats=SECOND)
    (found,) = predict(model, tmp_path / "in", tmp_path / "out", options=options, kind=kind)
    np.testing.assert_array_equal(np.load(found.path)["second"], np.load(expected[0].path)["first"])
    assert json.loads(found.path.with_name("a.json").read_text())["settings"]["image_formats"] == SECOND
    with pytest.raises(OutputError, match="other inputs or settings"):
        predict(model, tmp_path / "in", tmp_path / "out", options=options)
    save(tmp_path / "truth/a.arrays", np.full(SHAPE, 7), np.load(found.path)["second"][0])
    scores = evaluate(tmp_path / "out", tmp_path / "truth", image_formats=SECOND, metrics=["dice"], workers=1)
    assert scores.cases[0].values == {"dice": 1.0}


def test_cases_prepared_for_a_model_are_read_with_them(dataset: Path, model: Path, workspace: Workspace) -> None:
    given: dict[str, Any] = {"model": model, "workspace": workspace, "workers": 1}
    store = prepare_for_model(dataset, **given, image_formats=SECOND)
    means = store.case("t").record.raw
    assert means is not None
    assert means.channel_means[0] > 1  # of the first images: about 0


def test_a_conversion_reads_with_them(dataset: Path, tmp_path: Path) -> None:
    convert(dataset, tmp_path / "new", to="decathlon", suffix=".nii.gz", workers=1, image_formats=SECOND)
    with (dataset / "imagesTr/a_0000.arrays").open("rb") as stream:
        expected = np.load(stream)["second"]
    np.testing.assert_array_equal(read_image(tmp_path / "new/imagesTr/a.nii.gz").array_CZYX, expected)


def test_a_models_calibration_and_comparison_read_with_them(dataset: Path, model: Path) -> None:
    plan = make_test_plan()
    images = dataset / "imagesTr"
    with (images / "a_0000.arrays").open("rb") as stream:
        second_ZYX = np.load(stream)["second"][0]
    found = choose_cases(model, plan, dataset=dataset, image_formats=SECOND)
    plain = choose_cases(model, plan, dataset=dataset)
    assert found.validate[0].formats == format_settings(SECOND)
    assert not np.array_equal(found.calibrate["a"](), plain.calibrate["a"]())
    other = dataset.parent / "g.arrays"
    other.write_bytes((images / "a_0000.arrays").read_bytes())
    named = choose_cases(model, plan, dataset=dataset, calibration=other, image_formats=SECOND)
    assert np.array_equal(named.calibrate["g"](), found.calibrate["a"]())
    assert find_cases(model, images, n_channels=1, limit=1, reading=Reading().revised(None, SECOND))[0].id == "a"
    (sent, *_) = real_data(images, plan, "pipeline", Reading().revised(None, SECOND))
    assert np.array_equal(sent["volume"][0, 0], second_ZYX)
    without_effect = {"nifti": {"compression_level": 1}}
    for call in (
        lambda: choose_cases(model, plan, dataset=dataset, image_formats=without_effect),
        lambda: check_windows(plan, images, Reading().revised(None, without_effect)),
        lambda: find_cases(model, images, n_channels=1, limit=1, reading=Reading().revised(None, without_effect)),
    ):
        with pytest.raises(OptionError, match="nifti has no effect"):
            call()


def test_a_server_does_not_receive_files_that_it_reads_without_them(dataset: Path) -> None:
    path = dataset / "imagesTr/a_0000.arrays"
    require_sendable(Case(id="a", images=(path,)))
    with pytest.raises(OptionError, match="settings of its image format"):
        require_sendable(Case(id="a", images=(path,), formats=format_settings(SECOND)))


def test_a_service_reads_images_with_them(tmp_path: Path) -> None:
    with (tmp_path / "a.arrays").open("wb") as stream:
        np.savez(stream, second=np.ones((1, *SHAPE)))  # there is no first
    check = partial(check_image, [tmp_path / "a.arrays"], channels=("MR",), image_bytes=10**6)
    check(reading=Reading().revised(None, SECOND))
    with pytest.raises(ImageError):
        check(reading=Reading())
