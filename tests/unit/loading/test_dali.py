"""DALI on the CPU: each transform against plain computation, alignment, randomness, errors."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest
import torch

from dali_support import PATCHES, make_reader, only, told, with_chance
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.core.labels import IGNORE_INDEX
from decathlete.errors import OptionError, StoreError
from decathlete.loading.dali import DaliLoader
from decathlete.loading.dali_feed import make_feed

pytestmark = pytest.mark.full
pytest.importorskip("nvidia.dali")

CPU = torch.device("cpu")


def batches(reader, n: int = 6, **options):
    """Images and labels of the first steps."""
    loader = DaliLoader(reader, n_channels=3, device=CPU, **options)
    return [(b.plain_PCZYX, b.plain_label_PZYX) for b in islice(loader, n)]


def plain(patch_size, **options):
    return batches(make_reader(patch_size, AugmentationConfig.none(), **options))


def assert_equal(one, other):
    for (image, label), (other_image, other_label) in zip(one, other, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(label, other_label)


@pytest.mark.parametrize("patch_size", PATCHES)
def test_switched_off_patches_are_as_cut(patch_size):
    reader = make_reader(patch_size, AugmentationConfig.none())
    loader = DaliLoader(reader, n_channels=3, device=CPU)
    assert len(loader) == 6
    for raw, batch in zip(reader, loader, strict=True):
        assert (batch.step, batch.indices, batch.case_ids) == (raw.step, raw.indices, raw.case_ids)
        assert torch.equal(batch.plain_PCZYX, raw.plain_PCZYX)
        assert torch.equal(batch.plain_label_PZYX, raw.plain_label_PZYX)


@pytest.mark.parametrize("patch_size", PATCHES)
@pytest.mark.parametrize("factor", [0.7, 0.85, 1.3])
def test_zoom_crops_and_resizes(patch_size, factor):
    """Linear interpolation of the channel by hand, axis by axis, from a larger patch cut about one centre."""
    reader = make_reader(patch_size, only("scaling", factor), oversampling=1.0)
    ((image, label),) = batches(reader, 1)
    raw = reader.read(0)
    for sample, draw in enumerate(raw.draws):
        cut = raw.warped_WCZYX[sample].numpy()
        expected, nearest = cut, raw.warped_label_WZYX[sample].numpy()
        for axis, (n, size) in enumerate(zip(patch_size, draw.size, strict=True)):
            at = np.clip((np.arange(n) - (n - 1) / 2) * factor + (size - 1) / 2, 0, size - 1)
            low = np.minimum(at.astype(int), size - 2)
            weight = (at - low).reshape([-1 if a == axis + 1 else 1 for a in range(cut.ndim)])
            expected = expected.take(low, axis + 1) * (1 - weight) + expected.take(low + 1, axis + 1) * weight
            nearest = nearest.take(np.rint(at).astype(int), axis)
        np.testing.assert_allclose(image[sample], expected, atol=1e-4)
        assert (label[sample].numpy() == nearest).mean() > 0.95  # ties between two voxels
    assert {0, 1, 2} <= set(label.unique().tolist()) <= {0, 1, 2, IGNORE_INDEX}


@pytest.mark.parametrize(("patch_size", "axes"), [((12, 16, 14), (a,)) for a in range(3)] + [((16, 12), (1,))])
def test_mirroring_flips_its_axes_and_no_others(patch_size, axes):
    mirroring = {"enabled": True, "probability": 1.0, "axes": axes}
    flipped = batches(make_reader(patch_size, AugmentationConfig.none().revised(mirroring=mirroring)))
    turned = [(image.flip([a + 2 for a in axes]), label.flip([a + 1 for a in axes])) for image, label in flipped]
    assert_equal(turned, plain(patch_size))
    assert not torch.equal(turned[0][0], flipped[0][0])


@pytest.mark.parametrize("patch_size", PATCHES)
def test_brightness_multiplies_all_but_masks(patch_size):
    for (image, label), (before, label_before) in zip(
        batches(make_reader(patch_size, only("brightness", 1.3))), plain(patch_size), strict=True
    ):
        torch.testing.assert_close(image[:, :2], before[:, :2] * 1.3)
        assert torch.equal(image[:, 2], before[:, 2])
        assert torch.equal(label, label_before)


@pytest.mark.parametrize("patch_size", PATCHES)
@pytest.mark.parametrize("factor", [0.65, 1.5])
def test_contrast_spreads_about_the_mean_within_the_old_range(patch_size, factor):
    axes = tuple(range(2, 2 + len(patch_size)))
    for (image, _), (before, _) in zip(
        batches(make_reader(patch_size, only("contrast", factor))), plain(patch_size), strict=True
    ):
        rows = before[:, :2]
        mean, low, high = rows.mean(axes, True), rows.amin(axes, True), rows.amax(axes, True)
        expected = torch.minimum(torch.maximum(mean + (rows - mean) * factor, low), high)
        torch.testing.assert_close(image[:, :2], expected, atol=1e-5, rtol=0)
        assert torch.equal(image[:, 2], before[:, 2])


@pytest.mark.parametrize("patch_size", PATCHES)
def test_noise_is_normal_and_its_own_in_each_channel(patch_size):
    fields = []
    noisy = batches(make_reader(patch_size, only("noise", 0.3)))
    for (image, _), (before, _) in zip(noisy, plain(patch_size), strict=True):
        fields.append((image - before)[:, :2].flatten(2))
        assert torch.equal(image[:, 2], before[:, 2])
    field = torch.cat(fields).flatten(0, 1)
    n, n_of_row = field.numel(), field.shape[1]  # of normal numbers; the bounds are four or five standard errors
    assert field.mean().abs() < 4 * 0.3 / n**0.5
    assert field.std() == pytest.approx(0.3, rel=4 / (2 * n) ** 0.5)
    assert (torch.corrcoef(field) - torch.eye(len(field))).abs().max() < 5 / n_of_row**0.5


@pytest.mark.parametrize("patch_size", [*PATCHES, (1, 8, 8)])
def test_all_together_is_what_plain_computation_gives(patch_size):
    reader = make_reader(patch_size, with_chance(len(patch_size), 0.6))
    for raw, (image, label) in zip(reader, batches(reader), strict=True):
        feed = make_feed(raw, reader.augmenter)
        for sample in range(len(raw)):
            expected, expected_label = told(feed, sample, patch_size)
            np.testing.assert_allclose(image[sample], expected, atol=1e-3)
            assert (label[sample].numpy() == expected_label).mean() > 0.95  # ties between two voxels


@pytest.mark.parametrize("patch_size", PATCHES)
def test_a_training_step_sees_what_the_thread_loader_would_give_but_for_blurs(patch_size):
    reader = make_reader(patch_size, with_chance(len(patch_size), 0.6, "blur"))
    rest = Augmenter(AugmentationConfig.none(), patch_size=patch_size, seed=5, n_masks=1)
    for raw, batch in zip(reader, DaliLoader(reader, n_channels=3, device=CPU), strict=True):
        image, label = reader.augmenter(raw, CPU)
        dali_image, dali_label = rest(batch, CPU)
        torch.testing.assert_close(dali_image, image, atol=1e-3, rtol=0)
        assert set(dali_image[:, 2].unique().tolist()) <= {0.0, 1.0}, "masks are rounded"
        assert (dali_label == label).float().mean() > 0.99


@pytest.mark.parametrize("patch_size", PATCHES)
def test_labels_stay_on_their_images(patch_size):
    """The first channel is the signed distance to the border of what is labelled."""
    config = with_chance(len(patch_size), 0.7, "noise", "blur", "brightness", "contrast")
    for image, label in batches(make_reader(patch_size, config, oversampling=1.0)):
        known = label != IGNORE_INDEX
        assert (label[known] <= 2).all()
        assert ((image[:, 0] > 0) == (label > 0))[known & (image[:, 0].abs() > 0.9)].all()
        assert ((image[:, 0] > 3) == (label == 2))[known & ((image[:, 0] - 3).abs() > 0.9)].all()


@pytest.mark.parametrize("patch_size", PATCHES)
def test_threads_ranks_and_a_later_start_change_nothing(patch_size):
    config = with_chance(len(patch_size), 0.5)
    whole = batches(make_reader(patch_size, config))
    assert_equal(whole, batches(make_reader(patch_size, config, n_readers=3, prefetch=1), n_threads=3))
    assert_equal(whole[4:], batches(make_reader(patch_size, config, steps=range(4, 6))))
    ranks = [batches(make_reader(patch_size, config, batch_size=2, rank=r, world=2)) for r in range(2)]
    assert_equal(whole, [tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)])
    other = batches(make_reader(patch_size, config, seed=6))
    assert not torch.equal(whole[0][0], other[0][0])


def test_abandoned_iteration_ends_its_readers():
    def readers():
        return [t for t in threading.enumerate() if t.name.startswith("decathlete-reader")]

    loader = iter(DaliLoader(make_reader((16, 12), with_chance(2, 0.5), steps=range(10**9)), n_channels=3, device=CPU))
    assert next(loader).step == 0
    assert readers()
    loader.close()
    assert not readers()


def test_a_case_that_cannot_be_read_is_named(monkeypatch):
    def fails(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr("decathlete.loading.patch_loader.read_patch", fails)
    with pytest.raises(StoreError, match=r"case \d cannot be read \(OSError: the disk is gone\)"):
        batches(make_reader((16, 12), with_chance(2, 0.5)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_dali_cannot_use_is_told():
    loader = DaliLoader(make_reader((16, 12), with_chance(2, 0.5)), n_channels=3, device=torch.device("cuda", 0))
    with pytest.raises(OptionError, match=r"DALI cannot work on cuda:0: .+\n.*loader threads"):
        next(iter(loader))
