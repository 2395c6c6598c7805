"""Folds: every case held out once, patients never split, the same for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlete.core.labels import LabelSet
from decathlete.dataset.spec import Case, DatasetSpec, GroupSource
from decathlete.dataset.splits import Splits, make_splits
from decathlete.errors import DatasetError, OptionError


def dataset(groups: list[str | None], *, groups_from: GroupSource | None = "option") -> DatasetSpec:
    return DatasetSpec(
        name="d",
        root=Path("d"),
        layout="decathlon",
        channels=("MRI",),
        labels=LabelSet.from_names(["a"]),
        cases=tuple(Case(id=f"c{i:03d}", images=(), group=g) for i, g in enumerate(groups)),
        groups_from=groups_from,
    )


@given(st.lists(st.none() | st.sampled_from("abcdefg"), min_size=2, max_size=40), st.integers(2, 6))
def test_every_case_is_held_out_once_and_no_group_is_split(groups, n_folds) -> None:
    spec = dataset(groups)
    names = {c.id: c.group if c.group is not None else c.id for c in spec.cases}
    if len(set(names.values())) < 2:
        with pytest.raises(DatasetError):
            make_splits(spec, n_folds=n_folds)
        return
    splits = make_splits(spec, n_folds=n_folds)
    assert len(splits.folds) == min(n_folds, len(set(names.values())))
    assert sorted(i for f in splits.folds for i in f.val) == sorted(names)
    for fold in splits.folds:
        assert set(fold.train) | set(fold.val) == set(names)
        assert not {names[i] for i in fold.train} & {names[i] for i in fold.val}


def test_folds_are_even_shuffled_and_seeded(tmp_path: Path) -> None:
    spec = dataset([None] * 23)
    splits = make_splits(spec)
    assert sorted(len(f.val) for f in splits.folds) == [4, 4, 5, 5, 5]
    assert splits == make_splits(spec)
    assert splits != make_splits(spec, seed=1)
    assert splits.folds[0].val != tuple(f"c{i:03d}" for i in range(5))
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == splits


def test_grouped_says_so() -> None:
    assert make_splits(dataset(["a", "a", "b", "b"])).grouped
    assert not make_splits(dataset([None] * 5)).grouped


def test_fewer_groups_give_fewer_folds_and_say_so(caplog) -> None:
    assert len(make_splits(dataset(["a", "a", "b", "c"])).folds) == 3
    assert "3 folds instead of 5" in caplog.text


@pytest.mark.parametrize(
    ("groups", "groups_from", "said"),
    [
        (["a"] * 6, "option", "correct --group-by"),
        (["a"] * 6, "manifest", "correct 'groups' in dataset.json"),
        ([None], None, "add cases"),
    ],
)
def test_a_dataset_without_a_case_to_hold_out_is_rejected_with_what_was_given(groups, groups_from, said) -> None:
    with pytest.raises(DatasetError) as caught:
        make_splits(dataset(groups, groups_from=groups_from))
    assert said in str(caught.value)
    assert ("--group-by" in str(caught.value)) == (groups_from == "option")


def test_an_unknown_fold_is_refused() -> None:
    with pytest.raises(OptionError, match="no fold 5"):
        make_splits(dataset([None] * 10)).fold(5)


def test_ten_times_the_cases_are_ten_times_the_work() -> None:
    """Counted, not timed: how often a case's id is looked up."""

    class Counted(str):
        looked_up = 0

        def __hash__(self) -> int:
            Counted.looked_up += 1
            return super().__hash__()

    def work(n: int) -> int:
        spec = dataset([None] * n)
        spec = replace(spec, cases=tuple(replace(case, id=Counted(case.id)) for case in spec.cases))
        Counted.looked_up = 0
        make_splits(spec)
        return Counted.looked_up

    assert 0 < work(1000) < 12 * work(100)
