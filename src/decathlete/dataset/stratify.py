"""Exchange cases between folds so that each fold trains on every class, where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Presence = Mapping[str, frozenset[str]]
"""Case id (or group) -> names of the foreground classes that its label map contains."""

N_DEALS = 50
"""Deals that are tried where exchanging pairs of groups from the first one does not reach every fold."""


def spread_classes(
    groups: Sequence[str], presence: Presence, deal: Callable[[int], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Return the fold of each group, so that as few classes as possible lie in the held-out groups of one fold alone.

    Such a class is missing from what this fold trains on. The first deal is returned unchanged if it has no such class,
    or only classes that a single group has. Otherwise pairs of groups are exchanged between folds, so that every fold
    keeps its number of groups.

    Args:
        presence: classes of each group; groups without an entry have none.
        deal: returns the fold of each group for the number of an attempt, from 0.
    """
    first = deal(0)
    names = sorted(frozenset().union(*(presence.get(group, frozenset()) for group in groups)))
    if not names:
        return first
    present_GC = np.array([[name in presence.get(group, ()) for name in names] for group in groups])
    # any foreground counts as a class: a fold that trains on background alone learns nothing
    present_GC = np.column_stack([present_GC, present_GC.any(axis=1)])
    unavoidable = int((present_GC.sum(axis=0) == 1).sum())
    best = _exchange(first, present_GC)
    for attempt in range(1, N_DEALS):
        if _n_confined(best, present_GC) <= unavoidable:
            break
        best = min(best, _exchange(deal(attempt), present_GC), key=lambda folds: _n_confined(folds, present_GC))
    return best


def _counts(fold_of: NDArray[np.int64], present_GC: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of groups with each class in each fold."""
    counts_FC = np.zeros((int(fold_of.max()) + 1, present_GC.shape[1]), np.int64)
    np.add.at(counts_FC, fold_of, present_GC)
    return counts_FC


def _n_confined(fold_of: NDArray[np.int64], present_GC: NDArray[np.bool_]) -> int:
    """Return the number of classes that occur in the groups of one fold only."""
    return int(((_counts(fold_of, present_GC) > 0).sum(axis=0) == 1).sum())


def _exchange(fold_of: NDArray[np.int64], present_GC: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Exchange pairs of groups while that reduces the number of confined classes."""
    fold_of = fold_of.copy()
    while (pair := _find_exchange(fold_of, present_GC)) is not None:
        first, second = pair
        fold_of[first], fold_of[second] = fold_of[second], fold_of[first]
    return fold_of


def _find_exchange(fold_of: NDArray[np.int64], present_GC: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Return the first pair of groups whose exchange confines fewer classes, or ``None``."""
    counts_FC = _counts(fold_of, present_GC)
    n_folds_C = (counts_FC > 0).sum(axis=0)
    now = int((n_folds_C == 1).sum())
    confined = np.flatnonzero((n_folds_C == 1) & (present_GC.sum(axis=0) > 1))
    for group in np.flatnonzero(present_GC[:, confined].any(axis=1)).tolist():
        own = int(fold_of[group])
        for other in range(len(counts_FC)):
            if other == own:
                continue
            partners = np.flatnonzero(fold_of == other)
            gained_PC = present_GC[partners].astype(np.int64) - present_GC[group]
            rest_C = n_folds_C - (counts_FC[own] > 0) - (counts_FC[other] > 0)
            after_PC = rest_C + (counts_FC[own] + gained_PC > 0) + (counts_FC[other] - gained_PC > 0)
            confined_P = (after_PC == 1).sum(axis=1)
            if partners.size and confined_P.min() < now:
                return group, int(partners[confined_P.argmin()])
    return None
