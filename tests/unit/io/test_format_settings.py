"""Settings of image formats: they reach the writer, change no voxel, and the record of a prediction has them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.errors import OptionError, OutputError
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import PredictedFile, predict_files
from decathlete.io.format_settings import format_settings
from decathlete.io.images import read_label, write_image, write_label
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.workflows.predict import predict as predict_command
from factories import make_test_plan, make_volumes

SHAPE = (6, 24, 20)
GRID = Geometry.plain(SHAPE, spacing_ZYX=(2.0, 1.0, 1.0))


def smallest(level: int = 9) -> dict[str, Any]:
    return {"nifti": {"compression_level": level}}


@pytest.mark.parametrize(
    ("suffix", "larger", "smaller"),
    [
        (".nii.gz", {"nifti": {"compression_level": 1}}, {"nifti": {"compression_level": 9}}),
        (".mha", {"mha": {"is_compressed": False}}, {"mha": {"is_compressed": True}}),
        (".nrrd", {"nrrd": {"is_compressed": False}}, {"nrrd": {"is_compressed": True}}),
        (".tif", {"tiff": {"compression": "uncompressed"}}, {"tiff": {"compression": "lzw"}}),
        (".tif", {"tiff": {"compression": "uncompressed"}}, {"tiff": {"compression": "deflate"}}),
    ],
)
def test_compression_changes_the_size_and_no_voxel(
    suffix: str, larger: dict[str, Any], smaller: dict[str, Any], tmp_path: Path
) -> None:
    label_ZYX = (np.random.default_rng(0).random((20, 40, 40)) > 0.9).astype(np.uint8)
    sizes = []
    for number, chosen in enumerate((larger, smaller)):
        path = tmp_path / f"{number}{suffix}"
        write_label(
            path,
            label_ZYX,
            Geometry.plain(label_ZYX.shape, spacing_ZYX=(2.0, 1.0, 1.0)),
            settings=format_settings(chosen),
        )
        np.testing.assert_array_equal(read_label(path).array_ZYX, label_ZYX)
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0]


def test_files_are_as_nibabel_writes_them(tmp_path: Path) -> None:
    """Without settings, files are the same bytes as in older releases, in any folder, of any name and at any time."""
    label_ZYX, _ = make_volumes(SHAPE)
    write_label(tmp_path / "a.nii.gz", (label_ZYX[0] > 0).astype(np.uint8), GRID)
    nibabel.load(tmp_path / "a.nii.gz").to_filename(tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    write_label(tmp_path / "a.nii", (label_ZYX[0] > 0).astype(np.uint8), GRID, settings=format_settings(smallest()))
    assert (tmp_path / "a.nii").read_bytes() == gzip.decompress((tmp_path / "a.nii.gz").read_bytes())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    plan = make_test_plan(2)
    image, _ = make_volumes(SHAPE)
    write_image(tmp_path / "a.nii.gz", image, GRID)
    network = build_network(plan.network, seed=0)
    return ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[network])).folder


def predict(model: Path, image_formats: Any = None) -> PredictedFile:
    predictor = Predictor.load(model, engine="torch", device="cpu", precision="fp32")
    kind = OutputKind(image_formats=image_formats or {})
    (predicted,) = predict_files(predictor, model.parent / "a.nii.gz", model.parent / "out", kind=kind)
    return predicted


def test_the_record_has_the_settings_and_other_settings_are_noticed(model: Path) -> None:
    predicted = predict(model, smallest())
    content = predicted.path.read_bytes()
    record = json.loads(predicted.path.with_name("a.json").read_text())
    assert record["settings"]["image_formats"] == {"nifti": {"compression_level": 9}}
    assert predict(model, smallest()).kept
    with pytest.raises(OutputError, match="other inputs or settings"):
        predict(model)
    assert predicted.path.read_bytes() == content


def test_a_record_without_settings_is_as_before(model: Path) -> None:
    """Predictions of an older release are kept; so are those of settings that are the defaults."""
    predicted = predict(model)
    assert "image_formats" not in json.loads(predicted.path.with_name("a.json").read_text())["settings"]
    assert predict(model, smallest(1)).kept


def test_settings_of_a_format_that_is_not_written_are_rejected(model: Path) -> None:
    with pytest.raises(OptionError, match=r"settings of the image format mha have no effect.*\(but in nifti\)"):
        predict_command(
            model, model.parent / "a.nii.gz", model.parent / "out", kind=OutputKind(image_formats={"mha": {}})
        )
    assert not (model.parent / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nifti": {"level": 9}}, "level is not a setting of the image format nifti"),
        ({"nifti": {"compression_level": 10}}, "less than or equal to 9"),
        ({"png": {"level": 9}}, r"image format png \(which has none\)"),
        ({"nfti": {"compression_level": 9}}, "did you mean nifti"),
        ({"nifti": 9}, "settings of the image format nifti are not 9"),
    ],
)
def test_settings_that_a_format_does_not_have_are_errors(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        format_settings(given)
