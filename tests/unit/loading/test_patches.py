"""Where patches are cut: oversampling, class balance, borders."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.errors import OptionError
from decathlete.loading.cache import HeldCase
from decathlete.loading.patches import box_start, read_patch
from decathlete.loading.samplers import SAMPLERS, SamplerContext


def case_of(shape, label=None):
    """A volume that counts its own voxels (from 1, so that padding is seen), and its foreground."""
    label = np.zeros(shape, np.uint8) if label is None else label
    foreground = {int(c): np.flatnonzero(label == c) for c in np.unique(label) if 0 < c < 255}
    image = np.arange(1, label.size + 1, dtype=np.float32).reshape(1, *shape)
    return HeldCase(image_CZYX=image, label_ZYX=label, foreground=foreground)


def sampler(patch_size, **changes):
    settings = {name: changes.pop(name) for name in ("oversampling", "nvol") if name in changes}
    context = {"case_ids": ("a", "b", "c"), "global_batch": 2, "seed": 0, "patch_size": patch_size} | changes
    return SAMPLERS.build(SAMPLERS.settings({"name": "foreground", **settings}), SamplerContext(**context))


@pytest.fixture
def lopsided():
    """Class 1 is a thousand times larger than class 2."""
    label = np.zeros((30, 40, 50), np.uint8)
    label[5:15, 5:25, 5:45] = 1
    label[28:30, 38:40, 48:50] = 2
    return case_of(label.shape, label)


@pytest.mark.parametrize(
    ("global_batch", "oversampling", "forced"),
    [(2, 0.33, [1]), (4, 0.33, [3]), (12, 0.33, [8, 9, 10, 11]), (3, 1.0, [0, 1, 2]), (4, 0.0, [])],
)
def test_the_last_samples_of_the_global_batch_show_foreground(lopsided, global_batch, oversampling, forced):
    patches = sampler((3, 3, 3), global_batch=global_batch, oversampling=oversampling)
    for index in range(global_batch):
        shown = []
        for step in range(60):
            start = patches.start(lopsided.shape, lopsided.foreground, step, index)
            shown.append(read_patch(lopsided, start, (3, 3, 3))[1].any())
        assert np.mean(shown) == 1 if index in forced else np.mean(shown) < 0.6


def test_a_batch_of_one_is_forced_as_often_as_the_share_says(lopsided):
    patches = sampler((3, 3, 3), global_batch=1, oversampling=0.33)
    corner = np.mean(
        [patches.start(lopsided.shape, lopsided.foreground, step, 0) == (27, 37, 47) for step in range(2000)]
    )
    assert corner == pytest.approx(0.33 / 2, abs=0.03)


def test_classes_are_drawn_alike_however_small(lopsided):
    patches = sampler((3, 3, 3))
    small = 0
    for step in range(400):
        label = read_patch(lopsided, patches.start(lopsided.shape, lopsided.foreground, step, 1), (3, 3, 3))[1]
        small += (label == 2).any()
    assert small / 400 == pytest.approx(0.5, abs=0.08)


def test_a_forced_patch_is_centred_on_its_voxel():
    label = np.zeros((30, 30, 30), np.uint8)
    label[12, 13, 14] = 1
    case = case_of(label.shape, label)
    start = sampler((5, 5, 5)).start(case.shape, case.foreground, 0, 1)
    assert start == (10, 11, 12)
    assert sampler((29, 30, 4)).start(case.shape, case.foreground, 0, 1) == (0, 0, 12)


def test_random_patches_reach_every_place_and_stay_inside():
    patches = sampler((4, 10, 7), oversampling=0.0)
    starts = np.array([patches.start((6, 10, 9), {}, step, 0) for step in range(300)])
    assert set(starts[:, 0]) == {0, 1, 2}
    assert set(starts[:, 1]) == {0}
    assert set(starts[:, 2]) == {0, 1, 2}


def test_a_volume_smaller_than_the_patch_is_centred_in_zeros():
    case = case_of((3, 4, 8), np.ones((3, 4, 8), np.uint8))
    for index in range(2):
        start = sampler((6, 9, 8)).start(case.shape, case.foreground, 0, index)
        assert start == (-2, -3, 0)
    image, label = read_patch(case, start, (6, 9, 8))
    assert image.shape == (1, 6, 9, 8)
    np.testing.assert_array_equal(image[:, 2:5, 3:7], case.image_CZYX)
    assert np.count_nonzero(image) == label.sum() == case.label_ZYX.size


@pytest.mark.parametrize("size", [(4, 4, 4), (10, 12, 8), (2, 2, 2), (30, 30, 30)])
def test_a_box_of_another_size_keeps_the_centre(size):
    case = case_of((9, 11, 12))
    patches = sampler((4, 4, 4))
    start = patches.start(case.shape, {}, 0, 0)
    patch, _ = read_patch(case, start, (4, 4, 4))
    box, _ = read_patch(case, box_start(start, size, patches.context.patch_size), size)
    inner = tuple(slice((n - 4) // 2, (n - 4) // 2 + 4) for n in size)
    if min(size) >= 4:
        np.testing.assert_array_equal(box[(0, *inner)], patch[0])
    else:
        np.testing.assert_array_equal(box[0], patch[0, 1:3, 1:3, 1:3])


def test_2d_patches_are_slices_across_the_first_axis(lopsided):
    patches = sampler((6, 8))
    firsts = set()
    for step in range(50):
        start = patches.start(lopsided.shape, lopsided.foreground, step, 1)
        image, label = read_patch(lopsided, start, (6, 8))
        assert image.shape == (1, 6, 8)
        assert label.any()
        z, y, x = start
        np.testing.assert_array_equal(image[0], lopsided.image_CZYX[0, z, y : y + 6, x : x + 8])
        firsts.add(z)
    assert firsts <= {*range(5, 15), 28, 29}
    assert len(firsts) > 5


def test_a_single_slice_and_a_single_voxel():
    assert sampler((6, 8)).start((1, 20, 20), {}, 0, 0)[0] == 0
    case = case_of((1, 1, 1))
    image, _ = read_patch(case, sampler((6, 8, 4)).start(case.shape, {}, 0, 0), (6, 8, 4))
    assert np.count_nonzero(image) == 1


def test_a_case_without_foreground_is_cut_anywhere():
    patches = sampler((2, 2, 2))
    assert len({patches.start((9, 9, 9), {}, step, 1) for step in range(50)}) > 30


def test_cases_are_drawn_alike_and_by_seed_step_and_index_alone():
    patches = sampler((4, 4))
    drawn = [patches.case_id(step, index) for step in range(500) for index in range(2)]
    assert all(drawn.count(name) / 1000 == pytest.approx(1 / 3, abs=0.05) for name in "abc")
    assert drawn[7] == sampler((4, 4)).case_id(3, 1)
    other = sampler((4, 4), seed=1)
    assert drawn != [other.case_id(step, index) for step in range(500) for index in range(2)]


def test_nvol_draws_slices_of_few_volumes_equally_many_each():
    names = tuple(f"case{i}" for i in range(1000))
    patches = sampler((4, 4), case_ids=names, global_batch=12, nvol=3)
    drawn = [patches.case_id(0, index) for index in range(12)]
    assert [len(set(drawn[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case_ids": ()}, "no cases"),
        ({"oversampling": 1.5}, "less than or equal to 1"),
        ({"nvol": 3, "global_batch": 4}, "equally many"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        sampler((4, 4), **changes)
