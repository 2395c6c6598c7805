"""Pictures in reports: PNG in colour and upright, in pixels, without sides of a patient; slices that show the truth."""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from pydantic import ValidationError

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.evaluate import evaluate_pairs
from decathlete.evaluation.scores import Scores
from decathlete.io.images import write_image, write_label
from decathlete.models.record import MemberRecord, ModelRecord, NetworkRecord
from decathlete.planning.plan import Plan
from decathlete.workflows.report import render_cross_validation, report
from decathlete.workflows.report_pictures import make_case_views
from factories import make_test_plan

LABELS = LabelSet.from_names(["cell"])
N = 32


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(array).save(path)
    return path


def picture() -> np.ndarray:
    """Red at the top, blue at the left below it; the rest is dark."""
    rgb_YXC = np.zeros((N, N, 3), np.uint8)
    rgb_YXC[:8, :, 0] = 200
    rgb_YXC[8:, :8, 2] = 200
    return rgb_YXC


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, tuple[Case, Path]]:
    """Two pictures with a cell at the top; the prediction of the second is three pixels too far to the right."""
    found = {}
    for case_id, shift in (("a", 0), ("b", 3)):
        label = np.zeros((N, N), np.uint8)
        label[2:8, 4:10] = 1
        image = write(tmp_path / "images" / f"{case_id}.png", picture())
        truth = write(tmp_path / "labels" / f"{case_id}.png", label)
        prediction = write(tmp_path / "run" / "validation" / f"{case_id}.png", np.roll(label, shift, axis=1))
        found[case_id] = (Case(id=case_id, images=(image,), label=truth), prediction)
    return found


def scores_of(cases: dict[str, tuple[Case, Path]], **options: object) -> Scores:
    pairs = {i: (prediction, case.label) for i, (case, prediction) in cases.items() if case.label is not None}
    return evaluate_pairs(pairs, LABELS, workers=1, **options)  # type: ignore[arg-type]


def plan_of_pictures() -> Plan:
    plan = make_test_plan(2, n_channels=3, n_foreground=1)
    return plan.revised(
        labels=LABELS, spacing_unit="pixel", channels=("red", "green", "blue"), target_spacing=(None, 1.0, 1.0)
    )


def test_distances_of_pictures_are_in_pixels(cases: dict[str, tuple[Case, Path]], tmp_path: Path) -> None:
    scores = scores_of(cases)
    assert "HD95 1.50 px" in scores.headline_line()
    assert "mm" not in scores.headline_line() + scores.table()
    scores.save_files(tmp_path)
    assert Scores.load(tmp_path / "scores.json") == scores
    assert CrossValidation.of({0: scores}, dataset="Cells", dims=2, n_folds=1).pooled.is_in_pixels


def test_sizes_of_pictures_are_numbers_of_pixels(cases: dict[str, tuple[Case, Path]], tmp_path: Path) -> None:
    scores = scores_of(cases)
    scores.save_files(tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert [(row["truth_px"], row["prediction_px"]) for row in rows] == [("36", "36")] * 2
    assert not [name for name in rows[0] if name.endswith("_ml")]
    assert "_ml" not in (tmp_path / "scores.json").read_text()
    assert scores.sizes(scores.classes[0]) == (36, 36)
    with pytest.raises(ValidationError, match="class cell needs truth_ml and prediction_ml, and has prediction_px"):
        scores.revised(unit="mm")


def test_files_with_and_without_a_spacing_are_not_scored_together(cases: dict[str, tuple[Case, Path]]) -> None:
    case, prediction = cases["a"]
    assert case.label is not None
    label_ZYX = np.zeros((1, N, N), np.uint8)
    paths = [prediction.with_name(name) for name in ("truth.nii.gz", "prediction.nii.gz")]
    for path in paths:
        write_label(path, label_ZYX, Geometry.plain((1, N, N)))
    pairs = {"a": (prediction, case.label), "c": (paths[1], paths[0])}
    with pytest.raises(DatasetError, match=r"of 1 of 2 cases have no spacing, the others are in mm \(a\)") as raised:
        evaluate_pairs(pairs, LABELS, workers=1)
    assert raised.value.code == "E-IMAGE-SPACING"
    assert evaluate_pairs(pairs, LABELS, spacing=(1.0, 1.0, 1.0), workers=1).unit == "mm"


def test_a_spacing_makes_them_mm(cases: dict[str, tuple[Case, Path]]) -> None:
    scores = scores_of(cases, spacing=(1.0, 0.5, 0.5))
    assert "HD95 0.75 mm" in scores.headline_line()
    assert '"unit": "mm"' not in scores.model_dump_json(indent=1).split('"metrics"')[0]
    assert not scores.is_in_pixels


def test_a_picture_is_shown_in_colour_and_upright(cases: dict[str, tuple[Case, Path]]) -> None:
    (view,) = make_case_views(*cases["b"], plan_of_pictures(), ["#E69F00"])
    image, label, _ = (
        np.asarray(Picture.open(io.BytesIO(base64.b64decode(tile.png))).convert("RGB"), int) for tile in view.tiles
    )
    height, width, _ = image.shape
    top, left, rest = image[height // 20], image[height // 2, width // 20], image[height * 9 // 10, width * 9 // 10]
    assert (top[:, 0] > 150).all(), "red at the top"
    assert (top[:, 2] < 80).all()
    assert left[2] > 150 > left[0], "blue at the left"
    assert rest.max() < 40
    ys, _ = np.nonzero(np.abs(image - label).sum(axis=2) > 30)
    assert ys.mean() < height / 2, "the label lies where the cell is"
    assert not any(tile.letters for tile in view.tiles)
    assert not view.title


def test_the_page_names_no_mm_and_no_side_of_a_patient(cases: dict[str, tuple[Case, Path]], tmp_path: Path) -> None:
    run, plan = tmp_path / "run", plan_of_pictures()
    scores_of(cases).save_files(run)
    network = NetworkRecord(file="weights/2d.safetensors", sha256="0" * 64)
    member = MemberRecord(name="2d", plan=plan, mirror_axes=(0, 1), networks=(network,))
    (run / "model").mkdir()
    ModelRecord(labels=LABELS, members=(member,)).save(run / "model" / "model.json")
    text = re.sub(r"data:[^\"]*|<svg.*?</svg>|<style>.*?</style>", "", report(run).read_text(), flags=re.DOTALL)
    assert "Size px" in text
    assert "36 / 36" in text, "6 x 6 pixels"
    assert not re.search(r"\bmm\b|\bmL\b|patient", text)
    both = render_cross_validation(CrossValidation.of({0: scores_of(cases)}, dataset="Cells", dims=2, n_folds=1))
    assert "HD95 px" in both


@pytest.mark.parametrize(
    ("thickness", "titles"),
    [(5.0, ["axial 12", "axial 11", "axial 10"]), (1.0, ["axial 9", "coronal 5", "sagittal 5"])],
)
def test_slices_are_chosen_by_the_truth_not_by_specks_of_the_prediction(
    tmp_path: Path, thickness: float, titles: list[str]
) -> None:
    grid = Geometry.plain((20, N, N), spacing_ZYX=(thickness, 1.0, 1.0))
    label_ZYX = np.zeros((20, N, N), np.uint8)
    label_ZYX[8:13, 4:12, 4:12] = 1
    specks_ZYX = np.zeros_like(label_ZYX)
    specks_ZYX[:, 20, 20] = specks_ZYX[0, 14:, 14:] = 1
    write_image(tmp_path / "i.nii.gz", label_ZYX[None].astype(np.float32), grid)
    write_label(tmp_path / "t.nii.gz", label_ZYX, grid)
    write_label(tmp_path / "p.nii.gz", specks_ZYX, grid)
    case = Case(id="a", images=(tmp_path / "i.nii.gz",), label=tmp_path / "t.nii.gz")
    views = make_case_views(case, tmp_path / "p.nii.gz", make_test_plan(n_foreground=1), ["#E69F00"])
    assert [view.title for view in views] == titles
