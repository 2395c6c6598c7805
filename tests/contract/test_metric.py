"""What every metric has to fulfil, plug-ins that are installed included."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy import ndimage

from decathlete.core.geometry import Triple
from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metric_info import MetricInfo
from decathlete.evaluation.metrics import METRICS, Metric, make_metrics

SHAPE = (9, 16, 14)
SPACING: Triple = (2.5, 0.7, 0.9)


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest) -> Metric:
    (made,) = make_metrics([request.param])
    return made


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth random masks that overlap in part, with an empty border of three voxels."""
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.2)
    other = base + 0.6 * ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.2)
    return np.pad(base > np.quantile(base, 0.7), 3), np.pad(other > np.quantile(other, 0.75), 3)


def score(metric: Metric, prediction: np.ndarray, truth: np.ndarray, spacing: Triple = SPACING) -> float | None:
    return metric.score(MaskPair(prediction, truth, spacing_ZYX=spacing))


def test_a_perfect_prediction_has_the_declared_value(metric: Metric) -> None:
    _, truth = blobs(0)
    assert score(metric, truth.copy(), truth) == pytest.approx(metric.perfect)


def test_a_worse_prediction_is_not_better(metric: Metric) -> None:
    """Against the declared direction; a prediction far away is the worst that a metric can meet."""
    prediction, truth = (np.pad(mask, ((0, 40), (0, 0), (0, 0))) for mask in blobs(0))
    far = score(metric, np.roll(prediction, 35, axis=0), truth)
    near = score(metric, prediction, truth)
    if far is not None and near is not None:
        better, worse = (near, far) if metric.direction == "higher" else (far, near)
        assert better >= worse


@pytest.mark.parametrize("seed", range(3))
def test_values_are_floats_within_the_declared_limits(metric: Metric, seed: int) -> None:
    value = score(metric, *blobs(seed))
    assert value is not None, "defined where both sides have many voxels"
    assert type(value) is float
    assert math.isfinite(value)
    low, high = metric.limits
    assert low <= value <= high


def test_empty_sides_have_the_declared_values(metric: Metric) -> None:
    some, _ = blobs(0)
    nothing = np.zeros_like(some)
    assert score(metric, nothing, nothing) == metric.if_both_empty
    assert score(metric, some, nothing) == metric.if_one_empty
    assert score(metric, nothing, some) == metric.if_one_empty
    low, high = metric.limits
    assert all(v is None or low <= v <= high for v in (metric.if_both_empty, metric.if_one_empty, metric.absent_value))


def test_moving_both_masks_or_cropping_them_changes_nothing(metric: Metric) -> None:
    prediction, truth = blobs(1)
    before = score(metric, prediction, truth)
    moved = [np.roll(mask, (2, -1, 3), axis=(0, 1, 2)) for mask in (prediction, truth)]
    wider = [np.pad(mask, ((0, 5), (2, 0), (1, 1))) for mask in (prediction, truth)]
    assert score(metric, *moved) == pytest.approx(before)
    assert score(metric, *wider) == pytest.approx(before)


def test_masks_stay_as_they_are_and_views_are_fine(metric: Metric) -> None:
    prediction, truth = blobs(2)
    before = score(metric, prediction, truth)
    copies = prediction.copy(), truth.copy()
    transposed = [np.ascontiguousarray(mask.T).T for mask in copies]
    assert not transposed[0].flags.c_contiguous
    assert score(metric, *transposed) == before
    for mask, copy in zip((*transposed, prediction, truth), (*copies, *copies), strict=True):
        np.testing.assert_array_equal(mask, copy)


def test_single_voxels_and_single_slices_are_scored(metric: Metric) -> None:
    one = np.zeros((1, 5, 5), bool)
    one[0, 2, 2] = True
    assert score(metric, one, one) == pytest.approx(metric.perfect)


def test_shared_results_are_those_of_the_metric_alone(metric: Metric) -> None:
    prediction, truth = blobs(0)
    shared = MaskPair(prediction, truth, spacing_ZYX=SPACING)
    for other in make_metrics():
        other.score(shared)
    assert metric.score(shared) == score(metric, prediction, truth)


def test_a_metric_can_go_to_another_process(metric: Metric) -> None:
    again = pickle.loads(pickle.dumps(metric))
    assert score(again, *blobs(0)) == score(metric, *blobs(0))


def test_it_says_what_it_is(metric: Metric) -> None:
    info = MetricInfo.of(metric)
    assert info.title
    assert metric.name.endswith(f"_{metric.unit.lower()}" if metric.unit else ""), "a name ends with its unit"
    assert METRICS.resolve(metric.name).summary
    assert MetricInfo.model_validate_json(info.model_dump_json()) == info
