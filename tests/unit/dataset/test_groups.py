"""A guess of patients from names is used only if it is plausible, it is shown, and it never rejects a dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlete.core.labels import LabelSet
from decathlete.dataset.groups import assign_groups, describe_guess, find_doubt, groups_in_force
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.splits import make_splits


def dataset(ids: list[str], *, group_by: str | None = None, declared: dict[str, str] | None = None) -> DatasetSpec:
    groups = assign_groups(ids, group_by=group_by, declared=declared)
    return DatasetSpec(
        name="d",
        root=Path("d"),
        layout="decathlon",
        channels=("MRI",),
        labels=LabelSet.from_names(["a"]),
        cases=tuple(Case(id=i, images=(), group=groups.of.get(i)) for i in ids),
        groups_from=groups.source,
    )


def numbered(pattern: str, n: int) -> list[str]:
    return [pattern.format(i) for i in range(1, n + 1)]


def repeated(pattern: str, n_patients: int, n_each: int) -> list[str]:
    return [pattern.format(p, k) for p in range(1, n_patients + 1) for k in range(1, n_each + 1)]


@pytest.mark.parametrize(
    "ids",
    [
        numbered("prostate_T2_{:03d}", 20),
        numbered("lung_scan_{:03d}", 12),
        numbered("liver-slice-{}", 40),
        numbered("brain_t{:02d}", 3),
        repeated("hospital{}_scan_{:02d}", 2, 20),
        repeated("site{}_session{:02d}", 5, 8),
        repeated("clinic{}_scan_{:03d}", 12, 30),
        [*numbered("lung_scan_{:03d}", 30), *numbered("liver{:03d}", 20)],
    ],
    ids=lambda ids: ids[0],
)
def test_names_that_are_no_patients_do_not_group(ids: list[str]) -> None:
    spec = dataset(ids)
    assert spec.groups_from == "names"
    assert find_doubt(spec, 5) is not None
    splits = make_splits(spec)
    assert not splits.grouped
    assert len(splits.folds) == min(5, len(ids))
    assert sorted(len(f.val) for f in splits.folds)[-1] <= -(-len(ids) // len(splits.folds))
    shown = describe_guess(spec, 5)
    assert shown is not None
    assert "no patients are recognised" in shown
    assert ids[0] in shown


@pytest.mark.parametrize(
    "ids",
    [
        repeated("patient{:03d}_frame{:02d}", 20, 2),
        repeated("P{}_visit{}", 6, 2),
        repeated("sub-{:02d}_ses-{}_T1w", 10, 4),
        repeated("vol{:02d}_slice_{:03d}", 12, 80),
        [*repeated("P{}_scan{}", 10, 2), *numbered("single{}", 7)],
    ],
    ids=lambda ids: ids[0],
)
def test_names_of_patients_group_and_are_shown(ids: list[str]) -> None:
    spec = dataset(ids)
    splits = make_splits(spec)
    assert splits.grouped
    group_of = {case.id: case.group or case.id for case in spec.cases}
    for fold in splits.folds:
        assert not {group_of[i] for i in fold.train} & {group_of[i] for i in fold.val}
    shown = describe_guess(spec, 5)
    assert shown is not None
    assert "guessed from the names" in shown
    assert "--group-by" in shown


@given(
    st.lists(
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["a", "b", "hospital_1", "P7", "T2"]),
            st.sampled_from(["_scan_", "_T2_", "-t", "_frame0", "_", ""]),
            st.integers(0, 300),
        ),
        min_size=2,
        max_size=60,
        unique=True,
    )
)
def test_no_names_are_a_reason_to_reject_or_to_lose_folds(ids: list[str]) -> None:
    splits = make_splits(dataset(ids))
    assert len(splits.folds) == min(5, len(ids))
    assert sorted(i for fold in splits.folds for i in fold.val) == sorted(ids)


def test_given_groups_are_used_even_if_they_are_few() -> None:
    ids = repeated("hospital{}_scan_{:02d}", 2, 20)
    by_pattern = dataset(ids, group_by=r"^(hospital\d)")
    assert len(make_splits(by_pattern).folds) == 2
    declared = dataset(ids, declared={i: i[:9] for i in ids})
    assert declared.groups_from == "manifest"
    assert make_splits(declared).folds == make_splits(by_pattern).folds
    assert describe_guess(declared, 5) is None


def test_a_pattern_can_undo_a_guess() -> None:
    ids = repeated("patient{:03d}_frame{:02d}", 20, 2)
    spec = dataset(ids, group_by="(.+)")
    assert len(set(groups_in_force(spec, 5).values())) == 40


def test_groups_are_logged_once_however_often_the_dataset_is_read(caplog):
    names = ["once_1", "once_2", "twice_1"]
    with caplog.at_level("INFO", logger="decathlete"):
        for _ in range(3):
            assign_groups(names, group_by="(.+)_")
    assert caplog.text.count("3 cases in 2 groups") == 1
