"""Images of a format without a spacing are planned in pixels, and plan and page say so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DatasetError
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.images import write_image, write_label
from decathlete.io.volumes import Volume
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.explain import explain
from decathlete.planning.fingerprint import Fingerprint, make_fingerprint
from decathlete.planning.grid import Spacing
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import plan_at
from decathlete.planning.plan import Plan
from decathlete.planning.planner import make_plan
from decathlete.planning.resolution import Ceiling, candidate_spacings, choose_resolution


class Picture(ImageFormat):
    """Arrays of NumPy: a format without any geometry."""

    title = "NumPy array"
    suffixes = (".npy",)
    written_suffixes = (".npy",)

    def read_volume(self, path: Path, *, as_float32: bool = False) -> Volume:
        array_CZYX = np.load(path)
        return Volume(array_CZYX=array_CZYX, geometry=Geometry.pixels(array_CZYX.shape[1:]))

    def write_volume(self, path: Path, array_CZYX, geometry: Geometry) -> None:
        with path.open("wb") as stream:
            np.save(stream, array_CZYX)


@pytest.fixture(autouse=True)
def picture() -> Iterator[None]:
    with IMAGE_FORMATS.isolated():
        IMAGE_FORMATS.register("numpy_array")(Picture)
        yield


def make_dataset(root: Path, *, suffixes=(".npy", ".npy")) -> Path:
    generator = np.random.default_rng(0)
    grid = Geometry.plain((1, 32, 32))
    training = []
    for case, suffix in zip(("a", "b"), suffixes, strict=True):
        write_image(root / "imagesTr" / f"{case}{suffix}", generator.normal(5, 1, (1, 1, 32, 32)), grid)
        write_label(root / "labelsTr" / f"{case}{suffix}", np.eye(32, dtype=int)[None], grid)
        training.append({"image": f"imagesTr/{case}{suffix}", "label": f"labelsTr/{case}{suffix}"})
    manifest = {"modality": {"0": "photo"}, "labels": {"0": "background", "1": "cell"}, "training": training}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def test_the_plan_is_in_pixels_and_says_so(tmp_path: Path) -> None:
    spec = read_dataset(make_dataset(tmp_path / "Task01_Photos"))
    fingerprint = make_fingerprint(spec)
    plan = make_plan(spec, fingerprint, dims=2)
    assert (fingerprint.unit, plan.spacing_unit) == ("pixel", "pixel")
    assert "1 × 1 pixel" in explain(plan)
    assert "the format of the images has no spacing" in " ".join(explain(plan).split())
    assert not re.search(r"[0-9] mm|RAS", explain(plan)), "pictures have no anatomical orientation either"
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_coarser_grid_is_in_pixels_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = read_dataset(make_dataset(tmp_path / "Task01_Photos"))
    fingerprint = make_fingerprint(spec)
    plan = make_plan(spec, fingerprint, dims=2)

    def replan(spacing: Spacing) -> Plan:
        return plan_at(spacing, spec, fingerprint, dims=2, options=PlanOptions(), configuration="2d")

    ceilings = [Ceiling(spacing=spacing, dice=(1.0,)) for spacing in candidate_spacings(plan)]
    budget = ComputeBudget(device="cpu", max_time_s=0.5, threads=1)
    coarse = choose_resolution(plan, ceilings, budget, n_cases=20, replan=replan)
    assert coarse.target_spacing != plan.target_spacing
    assert not caplog.text, "no warnings about grids that are only compared"
    assert "coarser than full resolution (as it is × 1 × 1 pixel" in coarse.reasons["target_spacing"]


def test_a_given_spacing_is_mm(tmp_path: Path) -> None:
    spec = read_dataset(make_dataset(tmp_path / "Task01_Photos"), spacing=(1, 0.5, 0.5))
    fingerprint = make_fingerprint(spec)
    assert fingerprint.unit == "mm"
    assert "0.5 × 0.5 mm" in explain(make_plan(spec, fingerprint, dims=2))


def test_pixels_and_mm_do_not_mix(tmp_path: Path) -> None:
    spec = read_dataset(make_dataset(tmp_path / "Task01_Photos", suffixes=(".npy", ".nii.gz")))
    with pytest.raises(DatasetError, match=r"1 of 2 cases have no spacing, the others are in mm \(a\)"):
        make_fingerprint(spec)


def test_digests_in_mm_are_those_of_older_releases(tmp_path: Path) -> None:
    spec = read_dataset(make_dataset(tmp_path / "Task01_Photos", suffixes=(".nii.gz", ".nii.gz")))
    fingerprint = make_fingerprint(spec)
    plan = make_plan(spec, fingerprint, dims=2)
    old = json.loads(fingerprint.model_dump_json())
    for case in old["cases"]:
        del case["unit"]
    assert Fingerprint.model_validate(old).digest() == fingerprint.digest()
    old_plan = json.loads(plan.model_dump_json())
    del old_plan["spacing_unit"]
    assert Plan.model_validate(old_plan).digest == plan.digest
