"""Which folds a user means."""

from __future__ import annotations

import pytest

from decathlete.dataset.splits import Fold, Splits
from decathlete.errors import OptionError
from decathlete.workflows.folds import FoldSelection, format_folds, require_held_out_cases


@pytest.mark.parametrize(
    ("wanted", "folds"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("0,2,4", (0, 2, 4)),
        ("4, 0-1", (0, 1, 4)),
        ("3-", (3, 4)),
        ("1,1,0-1", (0, 1)),
        ([2, 0], (0, 2)),
        (None, (0, 1, 2, 3, 4)),
    ],
)
def test_folds_are_read_in_order_each_once(wanted: str | list[int] | None, folds: tuple[int, ...]) -> None:
    assert FoldSelection.parse(wanted).resolve(5) == folds
    assert FoldSelection.parse(format_folds(folds)).resolve(5) == folds


@pytest.mark.parametrize("wanted", ["", "a", "-1", "3-1", "0,,1", "0.5", [], [-1]])
def test_what_names_no_folds_is_refused(wanted: str | list[int]) -> None:
    with pytest.raises(OptionError):
        FoldSelection.parse(wanted)


@pytest.mark.parametrize("wanted", ["0-5", "5", "7-", [0, 9]])
def test_folds_that_do_not_exist_are_refused(wanted: str | list[int]) -> None:
    with pytest.raises(OptionError, match=r"does not exist: this dataset is split into 5\n.*0-4"):
        FoldSelection.parse(wanted).resolve(5)


def test_all_could_mean_two_things() -> None:
    with pytest.raises(OptionError, match="--fold all for one model trained on every case"):
        FoldSelection.parse("all")


def test_folds_are_said_in_ranges() -> None:
    assert [format_folds(f) for f in ([0], [0, 1, 2, 3, 4], [0, 2, 3, 6])] == ["0", "0-4", "0,2-3,6"]


def test_folds_that_hold_out_a_case_twice_are_rejected_before_they_are_trained() -> None:
    """As with several random splits: their scores cannot be combined."""
    folds = (Fold(train=("a",), val=("b", "c")), Fold(train=("b",), val=("c",)), Fold(train=("b",), val=("a",)))
    splits = Splits(seed=0, grouped=False, folds=folds, source="splits_final.json")
    require_held_out_cases(splits, [0, 2])
    with pytest.raises(OptionError, match=r"folds 0-1 hold out 1 case more than once \(splits_final.json\).*: c") as no:
        require_held_out_cases(splits, [0, 1])
    assert no.value.code == "E-OPTION-FOLD"
