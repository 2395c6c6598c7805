"""Files of version 1: read with the same figures, and rejected where they are damaged."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from decathlete.errors import DecathleteError
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.scores import Scores

GOLDEN = Path(__file__).parents[2] / "reference" / "golden" / "v1" / "results"
SCORES = sorted(GOLDEN.rglob("scores*.json"))
FOLDS = GOLDEN / "classes" / "Task07_Blobs" / "2d" / "cross_validation.json"
METRICS = ("dice", "iou", "nsd", "hd95_mm")


@pytest.mark.parametrize("path", SCORES, ids=lambda p: "-".join(p.relative_to(GOLDEN).parts))
def test_scores_have_the_figures_of_the_file(path: Path, tmp_path: Path) -> None:
    before, scores = json.loads(path.read_text()), Scores.load(path)
    h = before["headline"]
    assert scores.headline.values == {m: h[m] for m in METRICS}
    assert scores.headline.with_absent == {"dice": h["dice_absent_as_one"], "nsd": h["nsd_absent_as_one"]}
    assert scores.headline.n_undefined == {"dice": 0, "iou": 0, "nsd": 0, "hd95_mm": h["n_hd95_undefined"]}
    assert (scores.headline.n_cases, scores.headline.n_left_out) == (h["n_cases"], h["n_left_out"])
    for case, old in zip(scores.cases, before["cases"], strict=True):
        assert case.values == {m: old[m] for m in METRICS}
        assert [c.values for c in case.classes] == [{m: c[m] for m in METRICS} for c in old["classes"]]
    assert scores.metrics[2].settings == {"tolerance_mm": before["tolerance_mm"]}
    scores.save_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_bytes() == path.with_suffix(".csv").read_bytes()


@pytest.mark.parametrize("path", SCORES, ids=lambda p: "-".join(p.relative_to(GOLDEN).parts))
def test_they_are_what_version_2_makes_of_the_same_cases(path: Path, tmp_path: Path) -> None:
    scores = Scores.load(path)
    assert scores == Scores.of(scores.cases, scores.metrics).revised(origin=scores.origin, grid=scores.grid)
    scores.save(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["version"] == 2
    assert Scores.load(tmp_path / "scores.json") == scores


def test_a_cross_validation_has_the_figures_of_the_file(tmp_path: Path) -> None:
    before, found = json.loads(FOLDS.read_text()), CrossValidation.load(FOLDS)
    for spread, old in zip((found.overall, *found.classes), (before["overall"], *before["classes"]), strict=True):
        assert {m: s and s.model_dump() for m, s in spread.values.items()} == {m: old[m] for m in METRICS}
    assert found.folds[0].overall.values == {m: before["folds"][0]["overall"][m] for m in METRICS}
    found.save_csv(tmp_path / "cross_validation.csv")
    old_rows, rows = (
        list(csv.DictReader(p.read_text().splitlines()))
        for p in (FOLDS.with_suffix(".csv"), tmp_path / "cross_validation.csv")
    )
    assert rows == old_rows
    found.save(tmp_path / "cross_validation.json")
    assert CrossValidation.load(tmp_path / "cross_validation.json") == found


@pytest.mark.parametrize("damage", [{"headline": {}}, {"cases": 3}, {"tolerance_mm": -1}, {"version": 3}])
def test_damaged_files_and_later_versions_are_rejected(damage: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(json.loads(SCORES[0].read_text()) | damage))
    with pytest.raises(DecathleteError):
        Scores.load(tmp_path / "scores.json")
