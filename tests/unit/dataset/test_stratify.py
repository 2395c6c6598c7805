"""Folds train on every class where that is possible, and nothing else about them changes."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlete.core.labels import LabelSet
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.split_cases import describe_untrained, find_untrained
from decathlete.dataset.splits import Fold, Splits, make_splits


def dataset(groups: list[str | None]) -> DatasetSpec:
    return DatasetSpec(
        name="d",
        root=Path("d"),
        layout="decathlon",
        channels=("MRI",),
        labels=LabelSet.from_names(["a", "b", "c"]),
        cases=tuple(Case(id=f"c{i:03d}", images=(), group=g) for i, g in enumerate(groups)),
        groups_from="option",
    )


def n_untrained(splits: Splits, presence: dict[str, frozenset[str]]) -> int:
    """How many pairs of fold and class (any foreground is one, too) are held out and not trained on."""
    found = 0
    for fold in splits.folds:
        trained = frozenset().union(*(presence[i] for i in fold.train))
        held_out = frozenset().union(*(presence[i] for i in fold.val))
        found += len(held_out - trained) + (bool(held_out) and not trained)
    return found


CLASSES = st.frozensets(st.sampled_from("abc"), max_size=3)


@given(st.lists(CLASSES, min_size=2, max_size=7), st.integers(2, 3))
def test_as_few_classes_are_untrained_as_any_even_deal_allows(classes, n_folds) -> None:
    spec = dataset([None] * len(classes))
    presence = {case.id: names for case, names in zip(spec.cases, classes, strict=True)}
    splits = make_splits(spec, n_folds=n_folds, presence=presence)
    n_folds = len(splits.folds)
    every = [case.id for case in spec.cases]
    least = n_untrained(splits, presence)
    for order in set(permutations([i % n_folds for i in range(len(every))])):
        parts = [tuple(i for i, f in zip(every, order, strict=True) if f == k) for k in range(n_folds)]
        folds = tuple(Fold(train=tuple(i for i in every if i not in val), val=val) for val in parts)
        least = min(least, n_untrained(Splits(seed=0, grouped=False, folds=folds), presence))
    assert n_untrained(splits, presence) == least


@given(
    st.lists(st.tuples(st.none() | st.sampled_from("pqrstuvw"), CLASSES), min_size=4, max_size=40), st.integers(2, 5)
)
def test_groups_stay_whole_and_folds_stay_even(cases, n_folds) -> None:
    spec = dataset([group for group, _ in cases])
    presence = {case.id: names for case, (_, names) in zip(spec.cases, cases, strict=True)}
    group_of = {case.id: case.group or case.id for case in spec.cases}
    if len(set(group_of.values())) < 2:
        return
    plain = make_splits(spec, n_folds=n_folds)
    splits = make_splits(spec, n_folds=n_folds, presence=presence)
    assert splits == make_splits(spec, n_folds=n_folds, presence=presence)
    assert sorted(i for f in splits.folds for i in f.val) == sorted(group_of)
    sizes = [len({group_of[i] for i in f.val}) for f in splits.folds]
    assert sizes == [len({group_of[i] for i in f.val}) for f in plain.folds]
    for fold in splits.folds:
        assert not {group_of[i] for i in fold.train} & {group_of[i] for i in fold.val}
    if not find_untrained(plain, presence):
        assert splits == plain, "the deal changes only where a fold would train without a class"


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_of_two_patients_is_trained_by_every_fold(seed: int) -> None:
    spec = dataset([f"p{i // 3}" for i in range(60)])
    for first in range(19):
        presence = {
            case.id: frozenset({"a", "b"} if case.group in (f"p{first}", f"p{first + 1}") else {"a"})
            for case in spec.cases
        }
        assert find_untrained(make_splits(spec, seed=seed, presence=presence), presence) == []


def test_a_class_of_one_case_is_named_with_the_fold_and_the_case() -> None:
    spec = dataset([None] * 10)
    presence = {case.id: frozenset({"a"}) for case in spec.cases} | {"c003": frozenset({"a", "b"})}
    splits = make_splits(spec, presence=presence)
    number = next(k for k, fold in enumerate(splits.folds) if "c003" in fold.val)
    assert find_untrained(splits, presence) == [
        f"fold {number} trains without class 'b', which occurs only in cases that it does not train on (c003)"
    ]


def test_all_foreground_in_held_out_cases_is_named() -> None:
    fold = Fold(train=("x", "y"), val=("z",))
    presence = {"x": frozenset[str](), "y": frozenset[str](), "z": frozenset({"a", "b"})}
    said = describe_untrained(0, fold, presence)
    assert said == "fold 0 trains without any foreground, which occurs only in cases that it does not train on (z)"
    assert describe_untrained(0, fold, {"x": frozenset({"a"}), "z": frozenset({"a"})}) is None


def test_many_cases_and_classes_take_moderate_work() -> None:
    """117 classes, 2000 cases, of which two have each class: about half of the classes begin in one fold of two."""
    spec = dataset([None] * 2000)
    draw = np.random.default_rng(0)
    owners = {f"k{k}": draw.choice(2000, 2, replace=False) for k in range(117)}
    presence = {
        case.id: frozenset({"a", *(k for k, cases in owners.items() if i in cases)})
        for i, case in enumerate(spec.cases)
    }
    assert find_untrained(make_splits(spec, n_folds=2), presence) != []
    assert find_untrained(make_splits(spec, n_folds=2, presence=presence), presence) == []
