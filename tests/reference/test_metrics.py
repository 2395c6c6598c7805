"""Our metrics against independent implementations: brute force over all pairs, scipy, scikit-image, MONAI if there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist, dice, jaccard

from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.surface import measure_surface_distances as distances
from decathlete.evaluation.surface import surface

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 0.7, 0.9), (0.4, 2.0, 1.1)]
SHAPES = [(9, 11, 10), (3, 16, 14), (12, 2, 13)]


def blobs(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth random masks that overlap in part and touch the border."""
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    other = base + 0.6 * ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    return base > np.quantile(base, 0.7), other > np.quantile(other, 0.75)


def values(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1), tolerance_mm: float = 1
) -> dict[str, float | None]:
    pair = MaskPair(prediction, truth, spacing_ZYX=spacing)
    return {metric.name: metric.score(pair) for metric in make_metrics(tolerance_mm=tolerance_mm)}


@pytest.mark.parametrize("seed", range(4))
def test_overlap_is_scipys(seed: int) -> None:
    prediction, truth = blobs(seed, (9, 11, 10))
    ours = values(prediction, truth)
    assert ours["dice"] == pytest.approx(1 - dice(prediction.ravel(), truth.ravel()))
    assert ours["iou"] == pytest.approx(1 - jaccard(prediction.ravel(), truth.ravel()))


@pytest.mark.parametrize("shape", SHAPES)
def test_surface_is_scipys_erosion(shape: tuple[int, int, int]) -> None:
    mask, _ = blobs(3, shape)
    np.testing.assert_array_equal(surface(mask), mask & ~ndimage.binary_erosion(mask, border_value=0))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_those_of_all_pairs(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    prediction, truth = blobs(1, shape)
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=0) for mask in (prediction, truth)]
    pairs_mm = cdist(*(np.argwhere(edge) * spacing for edge in edges))
    ours = distances(prediction, truth, spacing)
    np.testing.assert_allclose(ours.prediction_to_truth, pairs_mm.min(axis=1), rtol=1e-5)
    np.testing.assert_allclose(ours.truth_to_prediction, pairs_mm.min(axis=0), rtol=1e-5)
    hd95 = max(np.percentile(pairs_mm.min(axis=1), 95), np.percentile(pairs_mm.min(axis=0), 95))
    ours_of = values(prediction, truth, spacing, 1.05)
    assert ours_of["hd95_mm"] == pytest.approx(hd95, rel=1e-5)
    near = (pairs_mm.min(axis=1) <= 1.05).sum() + (pairs_mm.min(axis=0) <= 1.05).sum()
    assert ours_of["nsd"] == pytest.approx(near / sum(pairs_mm.shape))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_distances_are_scipys_transform_on_the_whole_grid(spacing: tuple[float, float, float]) -> None:
    prediction, truth = (np.pad(m, ((4, 9), (7, 3), (5, 12))) for m in blobs(2, (10, 12, 9)))
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    to_truth = ndimage.distance_transform_edt(~edges[1], sampling=spacing)[edges[0]]
    to_prediction = ndimage.distance_transform_edt(~edges[0], sampling=spacing)[edges[1]]
    ours = distances(prediction, truth, spacing)
    np.testing.assert_allclose(ours.prediction_to_truth, to_truth, rtol=1e-5)
    np.testing.assert_allclose(ours.truth_to_prediction, to_prediction, rtol=1e-5)


def test_largest_distance_is_scikit_images_hausdorff() -> None:
    from skimage.metrics import hausdorff_distance

    prediction, truth = blobs(5, (9, 11, 10))
    ours = distances(prediction, truth, (1, 1, 1))
    largest = max(ours.prediction_to_truth.max(), ours.truth_to_prediction.max())
    assert largest == pytest.approx(hausdorff_distance(surface(prediction), surface(truth)), rel=1e-5)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # of MONAI about itself
def test_monai_agrees() -> None:
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    spacing = (5.0, 0.7, 0.9)
    prediction, truth = (np.pad(m, 2) for m in blobs(1, (9, 11, 10)))
    ours = values(prediction, truth, spacing, 1.05)
    theirs_in = [torch.from_numpy(m[None, None].astype(np.float32)) for m in (prediction, truth)]
    hd95 = metrics.compute_hausdorff_distance(*theirs_in, include_background=True, percentile=95, spacing=spacing)
    nsd = metrics.compute_surface_dice(*theirs_in, [1.05], include_background=True, spacing=spacing)
    assert ours["hd95_mm"] == pytest.approx(float(hd95), rel=1e-4)
    assert ours["nsd"] == pytest.approx(float(nsd), rel=1e-4)
