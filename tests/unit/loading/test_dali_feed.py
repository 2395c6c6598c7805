"""What DALI is told, DALI or not: carried out in NumPy, it gives what the augmenter gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dali_support import PATCHES, make_reader, only, told, with_chance
from decathlete.loading.dali_feed import make_feed


@pytest.mark.parametrize("patch_size", PATCHES)
def test_carried_out_it_gives_what_the_augmenter_gives(patch_size):
    reader = make_reader(patch_size, with_chance(len(patch_size), 0.7, "blur"))  # blurs differ at borders
    zoomed = 0
    for raw in reader:
        feed = make_feed(raw, reader.augmenter)
        image, label = reader.augmenter(raw, "cpu")
        for sample in range(len(raw)):
            told_image, told_label = told(feed, sample, patch_size)
            told_image[-1] = told_image[-1] > 0.5  # masks are rounded later
            np.testing.assert_allclose(told_image, image[sample], atol=3e-4)  # rows of folded volumes are rounded
            assert (told_label == label[sample].numpy()).mean() > 0.99  # ties between two voxels
        zoomed += sum(map(bool, feed.zoomed))
    assert 0 < zoomed < 6 * 4


def test_a_blur_of_nothing_is_not_taken_for_none_given():
    reader = make_reader((16, 12), only("blur", 0.0))
    feed = make_feed(reader.read(0), reader.augmenter)
    assert all(strength_CT[:, 0].min() > 0 for strength_CT in feed.strength_CT)


def test_noise_is_fed_where_it_is_drawn_and_nowhere_else():
    reader = make_reader((16, 12), with_chance(2, 0.5))
    feeds = [make_feed(raw, reader.augmenter) for raw in reader]
    sizes = {field.shape for feed in feeds for field in feed.noise}
    assert sizes == {(1, 1, 1), (3, 16, 12)}
    assert all(bool(noisy) == (field.size > 1) for f in feeds for noisy, field in zip(f.noisy, f.noise, strict=True))
    full = torch.from_numpy(np.stack([field for feed in feeds for field in feed.noise if field.size > 1]))
    assert not full[:, 2].any(), "masks have no noise"
    assert full[:, :2].flatten(2).std(-1).max() < 0.45
