from __future__ import annotations

import logging

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet
from decathlete.errors import GridMismatchError, ImageError, ModelError
from decathlete.io.volumes import Image, LabelMap
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.preprocessing.prepare import FOREGROUND_SAMPLES, foreground_sample, prepare
from factories import make_oblique_geometry, make_test_network, make_test_plan, make_volumes


def _case(shape=(20, 18, 16), spacing=(1.0, 1.0, 1.0), **options):
    image, label = make_volumes(shape, **options)
    geometry = Geometry.plain(shape, spacing_ZYX=spacing)
    return Image(array_CZYX=image, geometry=geometry), LabelMap(array_ZYX=label, geometry=geometry)


def test_crop_resample_and_index():
    image, label = _case(spacing=(2.0, 1.0, 1.0), margin=2)
    case = prepare(image, make_test_plan(), label=label, case_id="a")
    assert case.restoration.crop.start == (2, 2, 2)
    assert case.restoration.crop.shape == (16, 14, 12)
    assert case.image_CZYX.shape == (1, 32, 14, 12)
    assert case.image_CZYX.dtype == np.float32
    assert case.label_ZYX.shape == (32, 14, 12)
    for index, places in case.foreground.items():
        assert (case.label_ZYX.reshape(-1)[places] == index).all()
        assert len(places) == (case.label_ZYX == index).sum()


def test_a_prediction_is_prepared_as_a_training_case():
    image, label = _case(spacing=(2.0, 0.7, 1.3), margin=2)
    trained, predicted = prepare(image, make_test_plan(), label=label), prepare(image, make_test_plan())
    assert predicted.label_ZYX is None
    assert predicted.foreground == {}
    assert predicted.restoration == trained.restoration
    assert np.array_equal(predicted.image_CZYX, trained.image_CZYX)


def test_2d_plans_keep_the_slices():
    image, label = _case(spacing=(7.0, 0.5, 2.0))
    case = prepare(image, make_test_plan(2), label=label)
    assert case.image_CZYX.shape == (1, 20, 9, 32)


def test_2d_plans_may_leave_slices_as_they_are():
    image, label = _case(spacing=(7.0, 0.5, 2.0))
    case = prepare(image, make_test_plan(2, target_spacing=(None, None, None)), label=label)
    assert case.image_CZYX.shape == (1, 20, 18, 16)


@pytest.mark.parametrize("spacing", [(None, None, 1.0), (1.0, None, None)])
def test_half_a_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match="both axes in plane, or none"):
        make_test_plan(2, target_spacing=spacing)


def test_volumes_may_be_left_as_they_are_too():
    image, label = _case(spacing=(7.0, 0.5, 2.0))
    case = prepare(image, make_test_plan(target_spacing=(None, None, None)), label=label)
    assert case.image_CZYX.shape == (1, 20, 18, 16)
    with pytest.raises(ValueError, match="volumes needs every axis, or none"):
        make_test_plan(target_spacing=(None, 1.0, 1.0))


def test_grids_that_are_coarse_along_different_axes_are_separated_by_the_one_that_is_left():
    image, _ = _case(spacing=(1.0, 5.0, 1.0))
    restoration = prepare(image, make_test_plan(target_spacing=(4.0, 1.0, 1.0))).restoration
    assert (restoration.separate_axis, restoration.logits_axis) == (1, 0)


def test_axis_order_puts_the_named_axis_first():
    image, _ = _case(spacing=(1.0, 1.0, 4.0))
    case = prepare(image, make_test_plan(2, axis_order=(2, 0, 1)))
    assert case.restoration.shape == (16, 20, 18)


def test_the_orders_differ_in_when_they_normalise():
    """By nnU-Net's order the cropped image has mean 0, by the recipe's the resampled one."""
    image, _ = _case(spacing=(1.0, 2.0, 1.0), margin=2)
    recipe = prepare(image, make_test_plan(preprocessing_order="recipe")).image_CZYX
    nnunet = prepare(image, make_test_plan(preprocessing_order="nnunet")).image_CZYX
    assert recipe.shape == nnunet.shape
    assert abs(recipe.std() - 1) < 1e-4
    assert abs(nnunet.std() - 1) > 1e-3


@pytest.mark.parametrize("order", ["nnunet", "recipe"])
@pytest.mark.parametrize("spacing", [(1.5, 0.7, 1.3), (5.0, 1.0, 1.0)], ids=["along all axes", "coarse axis apart"])
def test_a_foreground_channel_shows_where_the_object_is(order, spacing):
    """0 and 1 only, resampled or not, the same for training and prediction; holes belong to the object."""
    image, label = _case((20, 18, 16), spacing=spacing)
    image.array_CZYX[:, :8, :9, :] = 0
    image.array_CZYX[:, 12:14, 12:14, 8:10] = 0
    with_mask = make_test_plan(
        preprocessing_order=order, foreground_channel=True, network=make_test_network(in_channels=2)
    )
    case = prepare(image, with_mask, label=label)
    plain = prepare(image, make_test_plan(preprocessing_order=order), label=label)
    assert case.image_CZYX.shape == (2, *plain.image_CZYX.shape[1:])
    assert case.image_CZYX.dtype == np.float32
    assert np.array_equal(case.image_CZYX[:1], plain.image_CZYX)
    mask_ZYX = case.image_CZYX[1]
    assert set(np.unique(mask_ZYX)) == {0, 1}
    z, y = (round(n * s) for n, s in zip((8, 9), spacing, strict=False))
    assert not mask_ZYX[: z - 2, : y - 2].any()
    assert mask_ZYX[z + 2 :].all()
    assert mask_ZYX[:, y + 2 :].all()
    assert np.array_equal(prepare(image, with_mask).image_CZYX, case.image_CZYX)


@pytest.mark.parametrize("order", ["nnunet", "recipe"])
def test_the_foreground_may_be_what_is_positive_once_normalised(order):
    image, _ = _case((10, 12, 8), spacing=(2.0, 1.0, 1.0), n_channels=2)
    network = make_test_network(in_channels=3)
    plan = make_test_plan(
        n_channels=2, order=order, foreground_channel=True, foreground_rule="positive", network=network
    )
    shown_CZYX = prepare(image, plan).image_CZYX
    assert shown_CZYX.shape == (3, 20, 12, 8)
    expected_ZYX = (shown_CZYX[0] > 0) & (shown_CZYX[1] > 0)
    assert np.array_equal(shown_CZYX[2], expected_ZYX.astype(np.float32))
    assert 0 < expected_ZYX.mean() < 0.9  # every voxel of this image is of the object


@pytest.mark.parametrize("order", ["nnunet", "recipe"])
def test_zscore_over_the_object_leaves_the_rest_at_zero(order):
    image, _ = make_volumes((20, 20, 20), margin=4)
    image[0, :, :6, :6] = 0
    image[0, 0, 0, 0] = 1  # so that cropping takes nothing away
    image[0, -1, -1, -1] = 1
    plan = make_test_plan(
        order=order,
        normalization=(NORMALIZATIONS.settings({"name": "zscore", "nonzero_only": True}),),
        target_spacing=(0.5, 1.0, 1.0),
    )
    out = prepare(Image(array_CZYX=image, geometry=Geometry.plain((20, 20, 20))), plan).image_CZYX
    assert out.shape == (1, 40, 20, 20)
    assert np.abs(out[0, 14:26, :3, :]).max() < 1e-3
    assert out[0, 15:25, 8:12, 8:12].std() > 0.1


def test_wrong_channel_count_nan_and_grids_are_named():
    image, label = _case()
    with pytest.raises(ModelError, match="1 channel, but the plan is for 2 channels") as caught:
        prepare(image, make_test_plan(n_channels=2), case_id="liver_7")
    assert "liver_7" in str(caught.value)
    for bad in (np.nan, np.inf):
        spoiled = image.array_CZYX.copy()
        spoiled[0, 1, 2, 3] = bad
        with pytest.raises(ImageError, match="NaN, infinite"):
            prepare(Image(array_CZYX=spoiled, geometry=image.geometry), make_test_plan())
    moved = LabelMap(array_ZYX=label.array_ZYX, geometry=make_oblique_geometry((20, 18, 16)))
    with pytest.raises(GridMismatchError, match="different grids"):
        prepare(image, make_test_plan(), label=moved)


def test_all_zero_and_constant_images_give_zeros():
    for value in (0.0, 5.0):
        image = Image(array_CZYX=np.full((1, 4, 5, 6), value, np.float32), geometry=Geometry.plain((4, 5, 6)))
        case = prepare(image, make_test_plan())
        assert case.image_CZYX.shape == (1, 4, 5, 6)
        assert not case.image_CZYX.any()


def test_lost_label_voxels_are_told(caplog):
    image, label = make_volumes((12, 12, 12), margin=2)
    label[0, 0, :4] = 1
    geometry = Geometry.plain((12, 12, 12))
    with caplog.at_level(logging.WARNING):
        prepare(
            Image(array_CZYX=image, geometry=geometry),
            make_test_plan(),
            label=LabelMap(array_ZYX=label, geometry=geometry),
            case_id="b",
        )
    assert "4 labelled voxels lie outside" in caplog.text


def test_values_with_gaps_and_the_ignore_value_become_indices():
    labels = LabelSet(
        classes=(
            LabelClass(name="background", value=0),
            LabelClass(name="a", value=3),
            LabelClass(name="b", value=700),
        ),
        ignore=9,
    )
    image, _ = make_volumes((6, 6, 6))
    values = np.zeros((6, 6, 6), np.int16)
    values[1], values[2], values[3] = 3, 700, 9
    geometry = Geometry.plain((6, 6, 6))
    case = prepare(
        Image(array_CZYX=image, geometry=geometry),
        make_test_plan(labels=labels),
        label=LabelMap(array_ZYX=values, geometry=geometry),
    )
    assert case.label_ZYX[:, 0, 0].tolist() == [0, 1, 2, IGNORE_INDEX, 0, 0]
    assert set(case.foreground) == {1, 2, IGNORE_INDEX}
    annotated = np.flatnonzero(case.label_ZYX != IGNORE_INDEX)
    assert case.foreground[IGNORE_INDEX].tolist() == annotated.tolist()
    for index in (1, 2):
        assert case.foreground[index].tolist() == np.flatnonzero(case.label_ZYX == index).tolist()


def test_the_foreground_sample_is_bounded_even_and_seeded():
    label = np.zeros((40, 40, 40), np.uint8)
    label[:30] = 1
    label[35, 0, 0] = 4
    sample = foreground_sample(label, "a")
    assert len(sample[1]) == FOREGROUND_SAMPLES
    assert len(np.unique(sample[1])) == FOREGROUND_SAMPLES
    assert (np.diff(sample[1]) > 0).all()
    assert abs(sample[1].mean() / (30 * 1600) - 0.5) < 0.02
    assert sample[4].tolist() == [35 * 1600]
    assert np.array_equal(sample[1], foreground_sample(label, "a")[1])
    assert not np.array_equal(sample[1], foreground_sample(label, "b")[1])
    assert foreground_sample(np.zeros((3, 3, 3), np.uint8), "a") == {}
