"""Folds of cross-validation: shuffled with a fixed seed; patients are never split, and classes are spread."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set

import numpy as np
from numpy.typing import NDArray

from decathlete.core.rng import stream
from decathlete.core.schema import Schema
from decathlete.dataset.groups import all_groups, groups_in_force
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.stratify import Presence, spread_classes
from decathlete.errors import DatasetError, OptionError

log = logging.getLogger(__name__)

_ONE_GROUP = {
    "option": "correct --group-by, which finds the same patient in every name",
    "manifest": "correct 'groups' in dataset.json, which gives every case the same patient",
}


class Fold(Schema):
    """One division of the cases.

    Attributes:
        train: ids of the cases that are trained on.
        val: ids of the held-out cases, for validation.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


class Splits(Schema):
    """All folds. Every case is held out in exactly one fold, unless the user gave the folds.

    Attributes:
        seed: seed of the random split.
        grouped: whether some cases belong to one patient.
        source: the list that the user gave, such as ``splits_final.json``; ``None``: a random split.
    """

    has_checksum = True

    seed: int
    grouped: bool
    folds: tuple[Fold, ...]
    source: str | None = None

    def fold(self, index: int) -> Fold:
        """Return one fold.

        Raises:
            OptionError: there is no such fold.
        """
        if not 0 <= index < len(self.folds):
            raise OptionError(
                f"there is no fold {index}", remedy=f"choose 0 to {len(self.folds) - 1}", code="E-OPTION-FOLD"
            )
        return self.folds[index]

    def never_held_out(self, case_ids: Iterable[str]) -> tuple[str, ...]:
        """Return those of the cases that no fold holds out: folds that the user gave may omit some."""
        held_out = {case_id for fold in self.folds for case_id in fold.val}
        return tuple(case_id for case_id in case_ids if case_id not in held_out)


def make_splits(spec: DatasetSpec, *, n_folds: int = 5, seed: int = 12345, presence: Presence | None = None) -> Splits:
    """Distribute the groups (patients; single cases without a patient) evenly over the folds.

    With fewer groups than ``n_folds``, there are as many folds as groups, and a warning is logged. Groups that were
    guessed from the names are used only if they are plausible.

    Args:
        presence: classes of each case. Folds that would train without a class exchange groups with other folds.

    Raises:
        DatasetError: there is only one case, or the user put all cases into one group, so that none can be held out.
    """
    group_of = groups_in_force(spec, n_folds)
    n_groups = len(set(group_of.values()))
    if n_groups < 2:
        raise _nothing_to_hold_out(spec)
    if n_groups < n_folds:
        log.warning("%d folds instead of %d: there are only %d patients or cases", n_groups, n_folds, n_groups)
        n_folds = n_groups
    folds = _split_groups(spec, group_of, n_folds=n_folds, seed=seed, presence=presence or {})
    return Splits(seed=seed, grouped=n_groups < len(spec.cases), folds=folds)


def _nothing_to_hold_out(spec: DatasetSpec) -> DatasetError:
    if len(spec.cases) == 1 or spec.groups_from is None:
        return DatasetError(
            f"has {len(spec.cases)} case(s), but needs at least 2, because a case must be held out",
            where=spec.root,
            remedy="add cases",
        )
    return DatasetError(
        f"all {len(spec.cases)} cases belong to one patient, so that none can be held out",
        where=spec.root,
        remedy=f"add cases of another patient, or {_ONE_GROUP[spec.groups_from]}",
    )


def split_as_release_0_1(spec: DatasetSpec, *, n_folds: int, seed: int) -> Splits:
    """Return the folds of release 0.1, which used any guess of groups and did not spread classes over the folds."""
    group_of = all_groups(spec)
    n_groups = len(set(group_of.values()))
    folds = _split_groups(spec, group_of, n_folds=min(n_folds, n_groups), seed=seed, presence={})
    return Splits(seed=seed, grouped=n_groups < len(spec.cases), folds=folds)


def _split_groups(
    spec: DatasetSpec, group_of: Mapping[str, str], *, n_folds: int, seed: int, presence: Presence
) -> tuple[Fold, ...]:
    names = sorted(set(group_of.values()))

    def assign_folds(attempt: int) -> NDArray[np.int64]:
        order = stream(seed, "splits", *([attempt] if attempt else [])).permutation(len(names))
        fold_of = np.empty(len(names), np.int64)
        fold_of[order] = np.arange(len(names)) % n_folds
        return fold_of

    classes: dict[str, frozenset[str]] = {}
    for case_id, name in group_of.items():
        classes[name] = classes.get(name, frozenset()) | presence.get(case_id, frozenset())
    fold_of = dict(zip(names, spread_classes(names, classes, assign_folds).tolist(), strict=True))
    held_out: list[set[str]] = [set() for _ in range(n_folds)]
    for case_id, name in group_of.items():
        held_out[fold_of[name]].add(case_id)
    every = [case.id for case in spec.cases]
    return tuple(_fold(every, val) for val in held_out)


def _fold(case_ids: list[str], held_out: Set[str]) -> Fold:
    return Fold(train=tuple(i for i in case_ids if i not in held_out), val=tuple(sorted(held_out)))
