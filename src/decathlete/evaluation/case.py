"""Score one predicted label map against its truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.errors import GridMismatchError
from decathlete.evaluation.overlap import Mask, joint_box, overlap
from decathlete.evaluation.scores import CaseScores, ClassScores, Presence, mean
from decathlete.evaluation.surface import surface_distances


def score_case(
    prediction_ZYX: NDArray[np.integer],
    truth_ZYX: NDArray[np.integer],
    geometry: Geometry,
    labels: LabelSet,
    *,
    tolerance_mm: float = 1.0,
    case_id: str = "",
) -> CaseScores:
    """Score one predicted label map; both hold file values on the grid ``geometry``.

    Labels with regions are scored per region, as overlapping masks; others per foreground class. Voxels that the
    truth leaves open (the ignore value) belong to neither side.

    Raises:
        GridMismatchError: the shapes differ.
    """
    if prediction_ZYX.shape != truth_ZYX.shape:
        raise GridMismatchError(
            f"the prediction has shape {prediction_ZYX.shape}, the truth {truth_ZYX.shape}",
            where=case_id or None,
            remedy="predict on the grid of the image that the label map belongs to",
        )
    pairs = _pairs_of_masks(prediction_ZYX, truth_ZYX, labels)
    scores = [_score_masks(name, ours, truth, geometry, tolerance_mm) for name, ours, truth in pairs]
    return CaseScores.of(case_id, scores)


def mean_dice(prediction_ZYX: NDArray[np.integer], truth_ZYX: NDArray[np.integer], labels: LabelSet) -> float | None:
    """The mean Dice of :func:`score_case` alone, in a hundredth of its time; ``None`` where neither has any class."""
    return mean(overlap(ours, truth).dice for _, ours, truth in _pairs_of_masks(prediction_ZYX, truth_ZYX, labels))


def _pairs_of_masks(
    prediction_ZYX: NDArray[np.integer], truth_ZYX: NDArray[np.integer], labels: LabelSet
) -> Iterator[tuple[str, Mask, Mask]]:
    """Of each region or class: its name, and the voxels of prediction and truth in the box around both."""
    box = joint_box(prediction_ZYX, truth_ZYX, margin=1).slices
    prediction, truth = prediction_ZYX[box], truth_ZYX[box]
    known = truth != labels.ignore if labels.ignore is not None else np.ones(truth.shape, bool)
    for name, values in structures(labels):
        yield name, _mask(prediction, values) & known, _mask(truth, values) & known


def structures(labels: LabelSet) -> list[tuple[str, tuple[int, ...]]]:
    """What is scored: name and file values of each region, or of each foreground class."""
    if labels.regions:
        return [(r.name, r.values) for r in labels.regions]
    return [(c.name, (c.value,)) for c in labels.foreground]


def _mask(label_ZYX: NDArray[np.integer], values: tuple[int, ...]) -> Mask:
    return label_ZYX == values[0] if len(values) == 1 else np.isin(label_ZYX, values)


def _score_masks(
    name: str, prediction_ZYX: Mask, truth_ZYX: Mask, geometry: Geometry, tolerance_mm: float
) -> ClassScores:
    counts = overlap(prediction_ZYX, truth_ZYX)
    distances = surface_distances(prediction_ZYX, truth_ZYX, geometry.spacing_ZYX)
    presence = _presence(bool(counts.n_prediction), bool(counts.n_truth))
    ml = geometry.voxel_volume_mm3 / 1000
    return ClassScores(
        name=name,
        presence=presence,
        dice=counts.dice,
        iou=counts.iou,
        nsd=distances.nsd(tolerance_mm) if distances else (None if presence == "neither" else 0.0),
        hd95_mm=distances.hd95_mm if distances else None,
        truth_ml=counts.n_truth * ml,
        prediction_ml=counts.n_prediction * ml,
    )


def _presence(in_prediction: bool, in_truth: bool) -> Presence:
    if in_prediction and in_truth:
        return "both"
    if in_truth:
        return "truth only"
    return "prediction only" if in_prediction else "neither"
