"""An image format of one module: images are read, written, found, predicted; a dataset may consist of them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import ImageError, ManifestError, OptionError
from decathlete.evaluation.folders import label_files
from decathlete.io import format_lookup
from decathlete.io.formats import IMAGE_FORMATS
from decathlete.io.images import (
    find_inputs,
    image_suffixes,
    output_suffix,
    read_grid,
    read_image,
    read_label,
    write_image,
    write_label,
)
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.workflows.convert import convert
from factories import make_test_plan, make_volumes

MODULE = '''
"""Arrays of NumPy with an affine."""

import numpy as np

from decathlete.core import registry
from decathlete.core.geometry import Geometry
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.volumes import Volume


@IMAGE_FORMATS.register("numpy")
class NumpyFormat(ImageFormat):
    """NumPy archive with the arrays ``image`` (C, Z, Y, X) and ``affine``."""

    title = "NumPy archive"
    suffixes = (".npz",)
    written_suffixes = (".npz",)

    def read_volume(self, path, *, as_float32=False):
        with path.open("rb") as stream, np.load(stream) as stored:
            image_CZYX, matrix = stored["image"], stored["affine"]
        return Volume(array_CZYX=image_CZYX, geometry=Geometry.from_matrix(image_CZYX.shape[1:], matrix))

    def write_volume(self, path, array_CZYX, geometry):
        np.savez_compressed(path, image=array_CZYX, affine=geometry.matrix)
'''
GRID = Geometry.plain((16, 16, 16), spacing_ZYX=(2.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "numpy_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    with IMAGE_FORMATS.isolated():
        IMAGE_FORMATS.load("numpy_plugin:NumpyFormat")
        yield
    sys.modules.pop("numpy_plugin", None)


def test_images_and_label_maps_survive(tmp_path: Path) -> None:
    image_CZYX = np.random.default_rng(0).normal(size=(2, 16, 16, 16)).astype(np.float32)
    write_image(tmp_path / "x.npz", image_CZYX, GRID)
    back = read_image(tmp_path / "x.npz")
    np.testing.assert_array_equal(back.array_CZYX, image_CZYX)
    assert read_grid(tmp_path / "x.npz") == (2, GRID)
    write_label(tmp_path / "y.npz", image_CZYX[0] > 0, GRID)
    assert read_label(tmp_path / "y.npz").array_ZYX.dtype == np.uint8
    assert [p.name for p in sorted(tmp_path.glob("*.npz"))] == ["x.npz", "y.npz"]


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_a_damaged_file_is_an_image_error_though_the_format_says_nothing_of_it(tmp_path: Path, share: float) -> None:
    write_image(tmp_path / "x.npz", np.zeros((1, 16, 16, 16)), GRID)
    (tmp_path / "x.npz").write_bytes((content := (tmp_path / "x.npz").read_bytes())[: int(len(content) * share)])
    with pytest.raises(ImageError, match="truncated, damaged"):
        read_image(tmp_path / "x.npz")


def test_it_is_found_wherever_files_are_listed(tmp_path: Path) -> None:
    assert ".npz" in image_suffixes()
    assert output_suffix(Path("a_0000.npz")) == ".npz"
    for name in ("a_0000", "a_0001", "b_0000"):
        write_image(tmp_path / "images" / f"{name}.npz", np.zeros((1, 16, 16, 16)), GRID)
    assert {i: len(files) for i, files in find_inputs(tmp_path / "images").items()} == {"a": 2, "b": 1}
    assert list(label_files(tmp_path / "images")) == ["a_0000", "a_0001", "b_0000"]


def make_dataset(root: Path) -> Path:
    for case in ("a", "b"):
        write_image(root / "imagesTr" / f"{case}_0000.npz", make_volumes((16, 16, 16))[0], GRID)
        write_label(root / "labelsTr" / f"{case}.npz", np.eye(16, dtype=int)[None].repeat(16, axis=0), GRID)
    manifest = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".npz"}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def test_a_dataset_may_have_it_and_may_be_converted_to_and_from_it(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "Dataset001_Numpy")
    assert [case.label and case.label.name for case in read_dataset(root).cases] == ["a.npz", "b.npz"]
    assert CliRunner().invoke(app, ["check", str(root)]).exit_code == 0
    convert(root, tmp_path / "nifti", to="decathlon", suffix=".nii.gz")
    convert(tmp_path / "nifti", tmp_path / "Dataset002_Again", to="nnunet", suffix=".npz")
    for name in ("imagesTr/a_0000.npz", "labelsTr/b.npz"):
        before, after = (read_image(folder / name) for folder in (root, tmp_path / "Dataset002_Again"))
        np.testing.assert_array_equal(after.array_CZYX, before.array_CZYX)
        assert after.geometry.differences(before.geometry) == []


def test_predictions_are_written_in_it(tmp_path: Path) -> None:
    plan = make_test_plan()
    member = TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)])
    ModelBundle.save(tmp_path / "m", member)
    write_image(tmp_path / "in" / "a.npz", make_volumes((16, 16, 16))[0], GRID)
    command = ["predict", "--model", "m", "--input", "in", "--output", "out", "--engine", "torch", "--device", "cpu"]
    done = CliRunner().invoke(app, [str(tmp_path / w) if w in ("m", "in", "out") else w for w in command])
    assert done.exit_code == 0, done.output
    label = read_label(tmp_path / "out" / "a.npz")
    assert label.geometry == GRID


def test_without_the_plugin_the_suffix_is_unknown(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "Dataset001_Numpy")
    with IMAGE_FORMATS.isolated(without=["numpy"]):
        with pytest.raises(ManifestError, match=r"file_ending '.npz' is not one of .nii.gz"):
            read_dataset(root)
        with pytest.raises(ImageError, match="known kind"):
            read_image(root / "labelsTr" / "a.npz")
        with pytest.raises(OptionError, match=r"'.npz' cannot be written"):
            convert(root, tmp_path / "new", to="decathlon", suffix=".npz")


@IMAGE_FORMATS.isolated(without=["numpy"])
def test_an_installed_plugin_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sys.modules.pop("numpy_plugin")
    entry_point = metadata.EntryPoint(
        name="image_format.numpy", value="numpy_plugin:NumpyFormat", group="decathlete.components"
    )
    monkeypatch.setattr(metadata, "entry_points", lambda **_: (entry_point,))
    monkeypatch.setattr(format_lookup, "_installed_names", lambda: frozenset(IMAGE_FORMATS.installed_names))
    assert "numpy" in IMAGE_FORMATS.names()
    assert "numpy_plugin" not in sys.modules, "names are listed without importing anything"
    write_label(tmp_path / "a.npz", np.eye(16, dtype=int)[None], Geometry.plain((1, 16, 16)))
    assert read_label(tmp_path / "a.npz").array_ZYX.sum() == 16


def test_a_plugin_that_cannot_be_imported_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(format_lookup, "_installed_names", lambda: frozenset({"nifti", "lost"}))
    monkeypatch.setattr(format_lookup, "_formats", {})
    monkeypatch.setattr(format_lookup, "_broken", set())
    settings = IMAGE_FORMATS.settings

    def fail(name: str) -> object:
        if name == "lost":
            raise ImportError("no module named lost")
        return settings(name)

    monkeypatch.setattr(IMAGE_FORMATS, "settings", fail)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert {".nii.gz", ".npz"} <= set(image_suffixes())
    assert caplog.text.count("the image format lost cannot be imported") == 1
