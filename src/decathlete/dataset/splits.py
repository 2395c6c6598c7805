"""Folds of cross-validation: shuffled with a fixed seed; patients are never split."""

from __future__ import annotations

import logging

from decathlete.core.rng import stream
from decathlete.core.schema import Schema
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import DatasetError, OptionError

log = logging.getLogger(__name__)


class Fold(Schema):
    """The case ids for training and for validation."""

    train: tuple[str, ...]
    val: tuple[str, ...]


class Splits(Schema):
    """All folds; every case is held out in exactly one fold."""

    has_checksum = True

    seed: int
    grouped: bool
    folds: tuple[Fold, ...]

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


def make_splits(spec: DatasetSpec, *, n_folds: int = 5, seed: int = 12345) -> Splits:
    """Distribute the groups (patients; single cases without a patient) evenly over the folds.

    With fewer groups than ``n_folds``, there are as many folds as groups, and a warning is logged.

    Raises:
        DatasetError: there is only one group, so that no case can be held out.
    """
    groups: dict[str, list[str]] = {}
    for case in spec.cases:
        groups.setdefault(f"group {case.group}" if case.group is not None else f"case {case.id}", []).append(case.id)
    if len(groups) < 2:
        raise DatasetError(
            f"all {len(spec.cases)} cases belong to one patient, so that none can be held out",
            where=spec.root,
            remedy="add cases of another patient, or correct --group-by",
        )
    if len(groups) < n_folds:
        log.warning("%d folds instead of %d: there are only %d patients or cases", len(groups), n_folds, len(groups))
        n_folds = len(groups)
    if len(groups) < len(spec.cases):
        log.info("split by patient: %d patients in %d cases", len(groups), len(spec.cases))
    names = sorted(groups)
    order = stream(seed, "splits").permutation(len(names))
    held_out: list[list[str]] = [[] for _ in range(n_folds)]
    for place, index in enumerate(order):
        held_out[place % n_folds].extend(groups[names[index]])
    every = [case.id for case in spec.cases]
    folds = tuple(_fold(every, frozenset(val)) for val in held_out)
    return Splits(seed=seed, grouped=len(groups) < len(spec.cases), folds=folds)


def _fold(case_ids: list[str], held_out: frozenset[str]) -> Fold:
    return Fold(train=tuple(i for i in case_ids if i not in held_out), val=tuple(sorted(held_out)))
