"""Stored scores whose parts do not fit are an error of the file, wherever a class, a case or a metric is missing."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.scores import CaseScores, ClassScores, Scores
from decathlete.workflows.report import render_cross_validation


def class_scores(name: str, dice: float | None) -> ClassScores:
    return ClassScores(
        name=name,
        presence="neither" if dice is None else "both",
        values={"dice": dice, "hd95_mm": dice},
        truth_ml=1,
        prediction_ml=1,
    )


def scores(*case_ids: str) -> Scores:
    cases = [CaseScores.of(i, [class_scores("organ", 0.5), class_scores("tumour", None)]) for i in case_ids]
    return Scores.of(cases, make_metrics(["dice", "hd95_mm"]))


FOLDS = CrossValidation.of({0: scores("a"), 1: scores("b")}, dataset="D", dims=3, n_folds=2)
STORED: dict[str, Schema] = {"scores": scores("a", "b"), "cross-validation": FOLDS}


def use(stored: Schema) -> None:
    """Show stored scores in every form."""
    if isinstance(stored, CrossValidation):
        render_cross_validation(stored)
        stored = stored.pooled
    assert isinstance(stored, Scores)
    stored.table()
    stored.ranked()
    stored.headline_line()


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*place, key))


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("damage", ["remove", "empty", "text"])
def test_damage_anywhere_is_an_error_of_the_file_or_can_be_shown(tmp_path: Path, kind: str, damage: str) -> None:
    stored = STORED[kind]
    good = json.loads(stored.model_dump_json())
    path = tmp_path / "scores.json"
    n_rejected = 0
    for place in places(good):
        bad = copy.deepcopy(good)
        parent = bad
        for key in place[:-1]:
            parent = parent[key]
        if damage == "remove":
            del parent[place[-1]]
        else:
            empty = type(parent[place[-1]])() if isinstance(parent[place[-1]], (dict, list, str)) else 0
            parent[place[-1]] = empty if damage == "empty" else "x"
        path.write_text(json.dumps(bad))
        try:
            found = type(stored).load(path)
        except DecathleteError as problem:
            n_rejected += 1
            assert problem.where == path  # noqa: PT017 - one of two allowed outcomes
        else:
            use(found)
    assert n_rejected > 20


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s["cases"][0]["classes"].pop(), "case a has the classes organ; the summary has organ, tumour"),
        (lambda s: s["classes"].pop(), "the summary has organ"),
        (lambda s: s["cases"][1]["classes"][0]["values"].pop("dice"), "class organ of case b lacks dice"),
        (lambda s: s["headline"]["values"].pop("hd95_mm"), "headline lacks hd95_mm"),
        (lambda s: s["cases"].clear(), "at least one"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, edit: Any, said: str) -> None:
    content = json.loads(STORED["scores"].model_dump_json())
    edit(content)
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DecathleteError, match=said):
        Scores.load(path)


@pytest.mark.parametrize("content", [{"version": 1}, {"version": 1, "classes": 3}, [], 3, {"version": 1, "cases": [1]}])
@pytest.mark.parametrize("kind", STORED)
def test_damaged_files_of_version_1_are_errors(tmp_path: Path, kind: str, content: Any) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DecathleteError) as caught:
        type(STORED[kind]).load(path)
    assert caught.value.where == path
