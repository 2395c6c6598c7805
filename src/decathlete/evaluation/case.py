"""Score one predicted label map against its truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import PIXEL, Geometry, Unit
from decathlete.core.labels import LabelSet
from decathlete.errors import GridMismatchError
from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metrics import METRICS, Metric, make_metrics
from decathlete.evaluation.overlap import Mask, Overlap, joint_box
from decathlete.evaluation.scores import CaseScores, ClassScores, Presence, mean


def score_case(
    prediction_ZYX: NDArray[np.integer],
    truth_ZYX: NDArray[np.integer],
    geometry: Geometry,
    labels: LabelSet,
    *,
    metrics: Sequence[Metric] | None = None,
    unannotated: Sequence[int] = (),
    case_id: str = "",
) -> CaseScores:
    """Score one predicted label map; both arrays hold file values on the grid ``geometry``.

    Each structure of ``labels`` is scored by itself: regions are masks that may overlap. Voxels that the truth ignores
    belong to neither side.

    Args:
        metrics: ``None``: the default ones, see :func:`~decathlete.evaluation.metrics.make_metrics`.
        unannotated: values of the classes that the truth does not annotate; their structures are not scored.

    Raises:
        GridMismatchError: the shapes differ.
    """
    if prediction_ZYX.shape != truth_ZYX.shape:
        raise GridMismatchError(
            f"the prediction has shape {prediction_ZYX.shape}, the truth {truth_ZYX.shape}",
            where=case_id or None,
            remedy="predict on the grid of the image that the label map belongs to",
        )
    used = make_metrics() if metrics is None else metrics
    pairs = _mask_pairs(prediction_ZYX, truth_ZYX, labels, geometry)
    unit = geometry.unit
    return CaseScores.of(
        case_id,
        [
            _score_pair(name, pair, used, unit) if is_annotated else _unscored(name, pair, used, unit)
            for (name, pair), is_annotated in zip(pairs, labels.annotated_structures(unannotated), strict=True)
        ],
    )


def mean_dice(
    prediction_ZYX: NDArray[np.integer],
    truth_ZYX: NDArray[np.integer],
    labels: LabelSet,
    *,
    unannotated: Sequence[int] = (),
) -> float | None:
    """Return the mean Dice of :func:`score_case` alone, about a hundred times as fast.

    Returns:
        The mean over annotated structures; ``None`` where neither side has any of them.
    """
    dice = METRICS.build(METRICS.settings("dice"))
    pairs = _mask_pairs(prediction_ZYX, truth_ZYX, labels, None)
    annotated = labels.annotated_structures(unannotated)
    return mean(dice.score(pair) for (_, pair), scored in zip(pairs, annotated, strict=True) if scored)


def _mask_pairs(
    prediction_ZYX: NDArray[np.integer], truth_ZYX: NDArray[np.integer], labels: LabelSet, geometry: Geometry | None
) -> Iterator[tuple[str, MaskPair]]:
    """Yield name and masks of each structure, cropped to the box around the foreground of both label maps."""
    box = joint_box(prediction_ZYX, truth_ZYX, margin=1).slices
    prediction, truth = prediction_ZYX[box], truth_ZYX[box]
    known = truth != labels.ignore if labels.ignore is not None else np.ones(truth.shape, bool)
    spacing_ZYX = geometry.spacing_ZYX if geometry else (1.0, 1.0, 1.0)
    volume = geometry.voxel_volume_mm3 if geometry else None
    for structure in labels.structures:
        yield (
            structure.name,
            MaskPair(
                _mask(prediction, structure.values) & known,
                _mask(truth, structure.values) & known,
                spacing_ZYX=spacing_ZYX,
                voxel_volume_mm3=volume,
            ),
        )


def _mask(label_ZYX: NDArray[np.integer], values: tuple[int, ...]) -> Mask:
    return label_ZYX == values[0] if len(values) == 1 else np.isin(label_ZYX, values)


def _score_pair(name: str, pair: MaskPair, metrics: Sequence[Metric], unit: Unit) -> ClassScores:
    return ClassScores(
        name=name,
        presence=_presence(pair.overlap),
        values={metric.name: metric.score(pair) for metric in metrics},
        **_sizes(pair, unit, n_truth=pair.overlap.n_truth),
    )


def _unscored(name: str, pair: MaskPair, metrics: Sequence[Metric], unit: Unit) -> ClassScores:
    """Return the entry of a structure that was not annotated: no value, and no volume of the truth."""
    return ClassScores(
        name=name,
        presence="not annotated",
        values={metric.name: None for metric in metrics},
        **_sizes(pair, unit, n_truth=0),
    )


def _sizes(pair: MaskPair, unit: Unit, *, n_truth: int) -> dict[str, float]:
    """Return the sizes of a structure on both sides: volumes in mL, or pixels of files without a spacing."""
    name, voxel = ("px", pair.voxel_volume_mm3) if unit == PIXEL else ("ml", pair.voxel_volume_mm3 / 1000)
    return {f"truth_{name}": n_truth * voxel, f"prediction_{name}": pair.overlap.n_prediction * voxel}


def _presence(counts: Overlap) -> Presence:
    if counts.n_prediction and counts.n_truth:
        return "both"
    if counts.n_truth:
        return "truth only"
    return "prediction only" if counts.n_prediction else "neither"
