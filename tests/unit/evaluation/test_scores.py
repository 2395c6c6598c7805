"""The two conventions for absent classes, the headline, and what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.errors import GridMismatchError
from decathlete.evaluation.case import mean_dice, score_case
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.scores import CaseScores, Scores

METRICS = make_metrics()
LABELS = LabelSet.from_names(["organ", "tumour"])
GEOMETRY = Geometry.plain((6, 8, 8), spacing_ZYX=(2.0, 1.0, 1.0))


def label(organ: bool = True, tumour: bool = False, shift: int = 0) -> np.ndarray:
    array = np.zeros((6, 8, 8), np.uint8)
    if organ:
        array[1:4, 1 + shift : 5 + shift, 1:5] = 1
    if tumour:
        array[4:5, 6:8, 6:8] = 2
    return array


def score(prediction: np.ndarray, truth: np.ndarray, case_id: str = "a") -> CaseScores:
    return score_case(prediction, truth, GEOMETRY, LABELS, case_id=case_id)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LabelSet(classes=LABELS.classes, ignore=9),
        LABELS.revised(
            regions=(Region(name="whole", values=(1, 2)), Region(name="core", values=(2,))), region_order=(1, 2)
        ),
    ],
    ids=["classes", "ignore", "regions"],
)
def test_the_dice_alone_is_that_of_all_scores(labels: LabelSet) -> None:
    truth = label(tumour=True)
    truth[:2] = 9 if labels.ignore else truth[:2]
    for prediction in (label(tumour=True, shift=1), label(), label(organ=False)):
        assert mean_dice(prediction, truth, labels) == score_case(prediction, truth, GEOMETRY, labels).dice
    assert mean_dice(label(organ=False), label(organ=False), labels) is None


def test_perfect_case() -> None:
    scores = score(label(tumour=True), label(tumour=True))
    assert scores.values == {"dice": 1, "iou": 1, "nsd": 1, "hd95_mm": 0}
    assert [c.presence for c in scores.classes] == ["both", "both"]


def test_volumes_are_millilitres() -> None:
    organ = score(label(), label()).classes[0]
    assert organ.truth_ml == pytest.approx(3 * 4 * 4 * 2.0 / 1000)


def test_class_on_neither_side_is_left_out() -> None:
    scores = score(label(shift=1), label())
    tumour = scores.classes[1]
    assert tumour.presence == "neither"
    assert tumour.values == {"dice": None, "iou": None, "nsd": None, "hd95_mm": None}
    assert scores.dice == scores.classes[0].dice == pytest.approx(0.75)


@pytest.mark.parametrize(("truth_has", "presence"), [(True, "truth only"), (False, "prediction only")])
def test_class_on_one_side_scores_zero_without_hd95(truth_has: bool, presence: str) -> None:
    scores = score(label(tumour=not truth_has), label(tumour=truth_has))
    tumour = scores.classes[1]
    assert tumour.presence == presence
    assert tumour.values == {"dice": 0, "iou": 0, "nsd": 0, "hd95_mm": None}
    assert scores.dice == pytest.approx(0.5)


def test_headline_of_both_conventions() -> None:
    cases = [
        score(label(tumour=True), label(tumour=True), "both"),
        score(label(shift=1), label(), "neither has a tumour"),
        score(label(), label(tumour=True), "missed"),
        score(label(organ=False), label(organ=False), "nothing at all"),
    ]
    h = Scores.of(cases, METRICS).headline
    assert h.dice == pytest.approx((1 + 0.75 + 0.5) / 3)
    assert h.with_absent["dice"] == pytest.approx((1 + (0.75 + 1) / 2 + 0.5 + 1) / 4)
    assert (h.n_cases, h.n_left_out, h.n_undefined["hd95_mm"]) == (4, 1, 1)


def test_class_summary_counts_presences() -> None:
    cases = [
        score(label(tumour=True), label(tumour=True), "a"),
        score(label(), label(tumour=True), "b"),
        score(label(tumour=True), label(), "c"),
        score(label(), label(), "d"),
    ]
    tumour = Scores.of(cases, METRICS).classes[1]
    assert (tumour.n_both, tumour.n_missed, tumour.n_invented, tumour.n_absent) == (1, 1, 1, 1)
    dice, hd95 = tumour.values["dice"], tumour.values["hd95_mm"]
    assert dice is not None
    assert (dice.mean, dice.n) == (pytest.approx(1 / 3), 3)
    assert tumour.with_absent["dice"] == pytest.approx(0.5)
    assert hd95 is not None
    assert hd95.n == 1


def test_regions_are_scored_as_overlapping_masks() -> None:
    labels = LabelSet(
        classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(["background", "organ", "tumour"])),
        regions=(Region(name="all", values=(1, 2)), Region(name="core", values=(2,))),
        region_order=(1, 2),
    )
    prediction, truth = label(), label()
    prediction[prediction == 1] = 2
    scores = score_case(prediction, truth, GEOMETRY, labels)
    assert [(c.name, c.dice) for c in scores.classes] == [("all", 1.0), ("core", 0.0)]


def test_ignored_voxels_belong_to_neither_side() -> None:
    labels = LabelSet(classes=LABELS.classes, ignore=9)
    truth = label()
    truth[5] = 9
    prediction = label()
    prediction[5] = 1
    scores = score_case(prediction, truth, GEOMETRY, labels)
    assert scores.classes[0].dice == 1
    assert scores.classes[0].prediction_ml == scores.classes[0].truth_ml


def test_whole_grid_or_crop_is_the_same() -> None:
    small = score(label(shift=2), label())
    wide = [np.pad(a, ((3, 4), (2, 0), (0, 9))) for a in (label(shift=2), label())]
    assert (
        score_case(wide[0], wide[1], Geometry.plain(wide[0].shape, spacing_ZYX=(2.0, 1.0, 1.0)), LABELS, case_id="a")
        == small
    )


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(GridMismatchError, match=r"\(5, 8, 8\)"):
        score(label()[:5], label())


def test_json_round_trip(tmp_path: Path) -> None:
    scores = Scores.of(
        [score(label(), label(tumour=True), "b"), score(label(), label(), "a")], make_metrics(tolerance_mm=2.0)
    )
    scores.save(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == scores
    plain = json.loads((tmp_path / "scores.json").read_text())
    assert plain["headline"]["values"]["dice"] == scores.headline.dice
    assert plain["headline"]["n_cases"] == 2
    assert plain["cases"][1]["classes"][1]["values"]["hd95_mm"] is None
    assert [c["case_id"] for c in plain["cases"]] == ["a", "b"]


def test_csv_has_a_row_per_case_and_class(tmp_path: Path) -> None:
    scores = Scores.of([score(label(), label(tumour=True), "b"), score(label(), label(), "a")], METRICS)
    scores.save_csv(tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert [(r["case"], r["class"]) for r in rows] == [("a", "organ"), ("a", "tumour"), ("b", "organ"), ("b", "tumour")]
    assert rows[1]["dice"] == ""
    assert (rows[3]["dice"], rows[3]["hd95_mm"], rows[3]["presence"]) == ("0", "", "truth only")


def test_headline_line() -> None:
    one = Scores.of([score(label(), label())], METRICS)
    assert one.headline_line() == "mean Dice 1.000 · NSD 1.000 · HD95 0.00 mm · 1 case"
    empty = label(organ=False)
    more = Scores.of([score(empty, label(), "a"), score(empty, empty, "b")], METRICS)
    assert more.headline_line() == (
        "mean Dice 0.000 · NSD 0.000 · HD95 undefined (undefined 1x) · 2 cases (1 without foreground left out)"
    )


def test_structures_that_are_nowhere_found_are_not_learned() -> None:
    missed = [score(label(), label(tumour=True), case_id) for case_id in "ab"]
    assert Scores.of(missed, METRICS).unlearned == ["tumour"]
    assert Scores.of([*missed, score(label(tumour=True), label(tumour=True), "c")], METRICS).unlearned == []
    assert Scores.of([score(label(), label())], METRICS).unlearned == []
