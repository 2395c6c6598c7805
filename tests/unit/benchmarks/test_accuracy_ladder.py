"""The ladder of training times: what is trained, what is kept, and how the programs are compared."""

import pytest

from benchmark_support import importable


@pytest.fixture(autouse=True)
def accuracy():
    """Its modules."""
    with importable("accuracy"):
        yield


def result(program, dice, *, seed=1, fold=0, minutes=2.0, precision=""):
    from cells import Cell, CellResult

    return CellResult(
        cell=Cell(dataset="ACDC", minutes=minutes, program=program, seed=seed, fold=fold, precision=precision),
        dice=dice,
        structures={"heart": 0.5},
        patients={case: case[0] for case in dice},
        minutes_in_all=2.5,
        notes={"machine": "made up", "steps": 7},
    )


def test_only_cells_without_a_result_are_trained_again(tmp_path):
    from cells import append_result, make_cells, missing, read_results

    datasets = ["ACDC", "BRATS2013_FLAIR_T1c"]
    cells = list(make_cells(datasets, [10, 2], [1, 2], peer_seeds=[1], peer_precisions=["fp32", "bf16"]))
    assert len(cells) == 2 * (4 + 3 * 4)
    assert [cell.minutes for cell in cells] == sorted(cell.minutes for cell in cells)
    record = tmp_path / "cells.jsonl"
    append_result(record, result("decathlete", {"a1": 0.5}))
    with record.open("a") as file:
        file.write('{"cell": {"dataset": "AC')  # a killed process
    append_result(record, result("nnunet", {"a1": 0.25}, precision="bf16"))
    kept = read_results(record)
    assert [found.cell.program for found in kept] == ["decathlete", "nnunet"]
    assert len(missing(cells, kept)) == len(cells) - 2


def test_seeds_are_averaged_by_case_and_folds_are_pooled():
    from ladder_tables import make_rungs

    (rung,) = make_rungs(
        [
            result("decathlete", {"a1": 0.8, "b1": 0.6}),
            result("decathlete", {"a1": 0.6, "b1": 0.8}, seed=2),
            result("decathlete", {"c1": 0.9}, fold=1),
            result("decathlete", {"c1": 0.7}, fold=1, seed=2),
            result("nnunet", {"a1": 0.5, "b1": 0.5}),
            result("nnunet", {"c1": 0.5}, fold=1),
        ]
    )
    assert rung.means("decathlete") == pytest.approx([2.3 / 3, 2.1 / 3])
    difference = rung.difference()
    assert difference.gain == pytest.approx((0.7 + 0.7 + 0.8) / 3 - 0.5)
    assert (difference.low, difference.high) == pytest.approx((0.2, 0.3))


def test_the_better_precision_counts():
    from ladder_tables import make_rungs

    results = [
        result("decathlete", {"a1": 0.8, "b1": 0.8}),
        result("nnunet", {"a1": 0.5, "b1": 0.5}, precision="fp32"),
        result("nnunet", {"a1": 0.7, "b1": 0.4}, precision="bf16"),
    ]
    for given in (results, results[::-1]):
        (rung,) = make_rungs(given)
        assert rung.means("nnunet") == pytest.approx([0.55])
    (rung,) = make_rungs([*results[:2], result("nnunet", {"a1": 0.9}, precision="bf16")])
    assert rung.means("nnunet") == [0.5], "a precision that lacks cases is not compared"


def test_programs_with_other_cases_are_not_compared():
    from ladder_tables import make_rungs

    (rung,) = make_rungs([result("decathlete", {"a1": 0.8}), result("nnunet", {"a1": 0.5, "b1": 0.5})])
    assert rung.difference() is None


def test_the_page_has_a_row_for_each_training_time(tmp_path):
    from ladder_plot import plot
    from ladder_tables import markdown

    results = [result("decathlete", {"a1": 0.75}), result("nnunet", {"a1": 0.5}), result("nnunet", {}, minutes=10)]
    text = markdown(results, plot="dice.png")
    assert "| ACDC | 2 | 1 | 0.750 | **0.750** | 0.500 | **0.500** | +0.250 (95 % interval 0.250 to 0.250) |" in text
    assert "| ACDC | 10 | 0 |" in text
    plot(tmp_path / "dice.png", results)
    assert (tmp_path / "dice.png").read_bytes().startswith(b"\x89PNG")
