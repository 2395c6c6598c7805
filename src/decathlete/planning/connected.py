"""Which structures are connected: one component in the label maps, so that a prediction keeps only its largest one.

A network with little training time finds false components far away from an organ that it otherwise segments well. If
the structures of every training case touch, all but the largest component of a prediction are false. nnU-Net decides
this by held-out predictions (Isensee et al., Nature Methods 18, 203-211, 2021, Post-processing); the label maps alone
tell it before training, and for a single fold.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decathlete.core.labels import LabelSet, foreground_mask

if TYPE_CHECKING:
    from decathlete.planning.fingerprint import CaseFingerprint

Groups = tuple[tuple[str, ...], ...]
"""Names of the structures of each group; the union of a group is connected."""

LEAST_SHARE = 0.99
"""Share of the voxels in the largest component from which a structure counts as connected: a few stray voxels of an
annotation are no second component."""
FEWEST_CASES = 10
"""Training cases that contain a structure, at least; fewer do not show that it is always connected."""
LEAST_CASES_SHARE = 0.95
"""Share of these cases in which it must be connected."""

_NEIGHBOURS = np.ones((3, 3, 3), bool)


def largest_shares(label_ZYX: NDArray[np.uint8], n_classes: int) -> tuple[float, ...]:
    """Return the share (0..1) of voxels in the largest component: of the whole foreground, then of each class.

    Voxels that touch at a face, an edge or a corner are connected. The share is 0 where there is no voxel.

    Args:
        label_ZYX: class indices, the background 0; indices from ``n_classes`` on are no class.

    >>> label = np.array([[[1, 1, 1, 0, 2, 0, 1]]], np.uint8)
    >>> largest_shares(label, n_classes=3)
    (0.6, 0.75, 1.0)
    """
    boxes = ndimage.find_objects(label_ZYX, max_label=n_classes - 1)
    whole = _union(boxes)
    if whole is None:
        return (0.0,) * n_classes
    return (
        _largest_share(foreground_mask(label_ZYX[whole], n_classes)),
        *(0.0 if box is None else _largest_share(label_ZYX[box] == index) for index, box in enumerate(boxes, start=1)),
    )


def _union(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...] | None:
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    return tuple(
        slice(min(box[axis].start for box in found), max(box[axis].stop for box in found)) for axis in range(3)
    )


def _largest_share(mask_ZYX: NDArray[np.bool_]) -> float:
    components_ZYX, _ = ndimage.label(mask_ZYX, _NEIGHBOURS)
    counts = np.bincount(components_ZYX.ravel())[1:]
    return float(counts.max() / counts.sum())


def find_connected(labels: LabelSet, cases: Sequence[CaseFingerprint], *, partial: Collection[str] = ()) -> Groups:
    """Return the groups of structures that are connected in (nearly) all training cases.

    All structures together are one group if their union is connected. Otherwise each structure is a group of its own
    that is connected by itself; of regions, those with a single class.

    Args:
        partial: ids of the cases that do not annotate all classes; they do not count.
    """
    whole = [case for case in cases if case.case_id not in partial]
    if _is_connected(whole, 0):
        return (tuple(structure.name for structure in labels.structures),)
    index_of = {label.value: index for index, label in enumerate(labels.classes)}
    return tuple(
        (structure.name,)
        for structure in labels.structures
        if len(structure.values) == 1 and _is_connected(whole, index_of[structure.values[0]])
    )


def _is_connected(cases: Sequence[CaseFingerprint], number: int) -> bool:
    shares = [case.largest_shares[number] for case in cases if case.largest_shares]
    present = [share for share in shares if share > 0]
    connected = sum(share >= LEAST_SHARE for share in present)
    return len(present) >= FEWEST_CASES and connected >= LEAST_CASES_SHARE * len(present)
