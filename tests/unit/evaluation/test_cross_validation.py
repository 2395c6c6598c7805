"""Scores of folds put together: over folds, over cases, and what does not belong together."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from decathlete.errors import DatasetError
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.scores import CaseScores, ClassScores, Scores
from decathlete.workflows.report import render_cross_validation

NAMES = ["organ", "tumour"]


def fold(tolerance_mm: float = 1.0, names: list[str] = NAMES, **dice_of_cases: tuple[float | None, ...]) -> Scores:
    """Scores of a fold: case -> Dice of each class; other metrics follow it."""
    cases = [
        CaseScores.of(case_id, [_class(name, dice) for name, dice in zip(names, values, strict=True)])
        for case_id, values in dice_of_cases.items()
    ]
    return Scores.of(cases, make_metrics(tolerance_mm=tolerance_mm))


def _class(name: str, dice: float | None) -> ClassScores:
    return ClassScores(
        name=name,
        presence="neither" if dice is None else "both" if dice else "truth only",
        values={"dice": dice, "iou": dice, "nsd": dice, "hd95_mm": 10 * (1 - dice) if dice else None},
        truth_ml=1,
        prediction_ml=1,
    )


UNEVEN = {0: fold(a=(0.8, 0.4), b=(0.6, None)), 1: fold(c=(1.0, 0.0))}


def together(scores: dict[int, Scores], **about: Any) -> CrossValidation:
    return CrossValidation.of(scores, **({"dataset": "Test", "dims": 3, "n_folds": 2} | about))


def test_each_fold_counts_alike_over_folds_and_each_case_alike_when_pooled() -> None:
    found = together(UNEVEN)
    organ, tumour = found.classes
    assert organ.dice is not None
    assert tumour.dice is not None
    assert (organ.dice.mean, organ.dice.std, organ.dice.n) == pytest.approx((0.85, 0.15, 2))  # of 0.7 and 1.0
    assert (tumour.dice.mean, tumour.dice.std, tumour.dice.n) == pytest.approx((0.2, 0.2, 2))  # of 0.4 and 0
    assert found.overall.dice is not None
    assert (found.overall.dice.mean, found.overall.dice.std) == pytest.approx((0.55, 0.05))  # of 0.6 and 0.5
    assert found.pooled.headline.dice == pytest.approx((0.6 + 0.6 + 0.5) / 3)
    pooled_organ, pooled_tumour, pooled = (spread.dice for spread in found.over_cases)
    assert pooled_organ is not None
    assert pooled_tumour is not None
    assert pooled is not None
    assert (pooled_organ.mean, pooled_organ.n, pooled_tumour.n) == pytest.approx((0.8, 3, 2))
    assert pooled.mean == found.pooled.headline.dice


def test_order_of_folds_does_not_matter() -> None:
    assert together(dict(reversed(UNEVEN.items()))) == together(UNEVEN)


def test_the_table_and_the_headline_say_how_many_count() -> None:
    found = together(UNEVEN)
    lines = [line.split("  ") for line in found.table().splitlines()]
    table = {cells[0]: [c.strip() for c in cells[1:] if c.strip()] for cells in lines[:4]}
    assert table["mean ± std over 2 folds"] == ["Dice", "NSD", "HD95 mm"]
    assert table["organ"] == ["0.850 ± 0.150", "0.850 ± 0.150", "1.50 ± 1.50"]
    assert table["tumour"] == ["0.200 ± 0.200", "0.200 ± 0.200", "6.00 ± 0.00 (of 1)"]
    assert "mean ± std over 3 cases" in found.table()
    assert found.headline_line().startswith("mean Dice 0.550 ± 0.050 · NSD 0.550 ± 0.050 · HD95 ")
    assert found.headline_line().endswith("mm · 2 folds · 3 cases, pooled Dice 0.567")
    one = together({0: UNEVEN[0]}, failed={1: "no"})
    assert "· 1 fold of 2 · 2 cases" in one.headline_line()


def test_what_is_saved_comes_back_and_the_csv_holds_the_same(tmp_path: Path) -> None:
    found = together(UNEVEN, failed={3: "the disk was full"}, n_folds=4)
    found.save(tmp_path / "cross_validation.json")
    assert CrossValidation.load(tmp_path / "cross_validation.json") == found
    found.save_csv(tmp_path / "cross_validation.csv")
    rows = list(csv.DictReader((tmp_path / "cross_validation.csv").read_text().splitlines()))
    dice = {(row["class"], row["of"]): row["dice"] for row in rows}
    assert dice["organ", "fold 0"] == "0.7"
    assert dice["organ", "mean over folds"] == "0.85"
    assert dice["organ", "mean over cases"] == "0.8"
    assert dice["all classes", "std over folds"] == "0.05"
    assert len(rows) == 3 * (2 + 4)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (fold(a=(0.1, 0.1)), "a is held out in folds 0 and 1"),
        (fold(names=["organ", "cyst"], c=(0.1, 0.1)), "fold 1 has scores of other classes"),
        (fold(tolerance_mm=2, c=(0.1, 0.1)), r"fold 1 has scores of other metrics.*nsd \(tolerance_mm 2\)"),
    ],
)
def test_folds_that_do_not_belong_together_are_refused(other: Scores, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        together({0: UNEVEN[0], 1: other})


def test_the_page_shows_folds_cases_and_failures_without_their_paths() -> None:
    page = render_cross_validation(together(UNEVEN, failed={2: "/home/someone/secret: broken"}, n_folds=3))
    assert "0.850 ± 0.150" in page
    assert 'href="fold_1/report.html"' in page
    assert "Fold 2 failed" in page
    assert "secret" not in page
    assert page.index(">c<") < page.index(">a<"), "the lowest Dice first"
