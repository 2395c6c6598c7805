"""Labels through preparation and back, on every order of the axes, on oblique grids, and on real data."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch

from decathlete.core.geometry import AxisTransform, Geometry
from decathlete.dataset.manifest import read_dataset
from decathlete.inference.output.restore import restore, restore_label
from decathlete.io.images import read_channels, read_label
from decathlete.io.volumes import Image, LabelMap
from decathlete.planning.fingerprint import make_fingerprint
from decathlete.planning.planner import make_plan
from decathlete.preprocessing.prepare import prepare
from factories import make_oblique_geometry, make_test_plan, make_volumes

ALL_ORDERS = [
    AxisTransform(permutation=p, flips=f) for p in permutations(range(3)) for f in product([False, True], repeat=3)
]


def _case(image, label, geometry):
    return Image(array_CZYX=image, geometry=geometry), LabelMap(array_ZYX=label, geometry=geometry)


def _there_and_back(image, label, plan):
    prepared = prepare(image, plan, label=label)
    by_label = restore_label(prepared.label_ZYX, prepared.restoration, plan.labels)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(prepared.label_ZYX).long(), plan.labels.n_classes)
    by_logits = restore(one_hot.movedim(-1, 0).float(), prepared.restoration, plan.labels).label_ZYX
    return by_label, by_logits


def _dice(a, b, value):
    a, b = a == value, b == value
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("orientation", ["canonical", "stored"])
def test_all_48_axis_orders_come_back_identical(orientation, oblique):
    shape = (9, 11, 13)
    image, label = make_volumes(shape, margin=1)
    label[(image == 0).all(axis=0)] = 0
    label[2, 3, 4:8] = 2  # breaks every symmetry
    world = make_oblique_geometry(shape) if oblique else Geometry.plain(shape)
    plan = make_test_plan(orientation=orientation, axis_order=(1, 2, 0))
    assert len(ALL_ORDERS) == 48
    working = []
    for order in ALL_ORDERS:
        stored = _case(order.apply(image).copy(), order.apply(label).copy(), order.geometry(world))
        by_label, by_logits = _there_and_back(*stored, plan)
        assert np.array_equal(by_label, stored[1].array_ZYX)
        assert np.array_equal(by_logits, stored[1].array_ZYX)
        working.append(prepare(stored[0], plan).image_CZYX)
    if orientation == "canonical":  # however it is stored, the network sees one and the same volume
        assert all(np.allclose(w, working[0], atol=1e-5) for w in working)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shape", [(1, 30, 20), (30, 1, 20), (30, 20, 1), (1, 1, 5), (1, 1, 1), (5, 6, 7)])
def test_single_slices_and_volumes_smaller_than_the_patch(shape, dims):
    image, label = make_volumes(shape)
    case = _case(image, label, make_oblique_geometry(shape))
    for result in _there_and_back(*case, make_test_plan(dims)):
        assert np.array_equal(result, label)


@pytest.mark.parametrize("order", ["nnunet", "recipe"])
@pytest.mark.parametrize("spacing", [(2.0, 0.8, 1.1), (5.0, 0.9, 0.9), (0.7, 0.9, 1.3)])
def test_a_respaced_label_comes_back_with_little_loss(spacing, order):
    shape = (30, 64, 60)
    image, _ = make_volumes(shape)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    label = np.digitize(-np.sqrt(z**2 + y**2 + x**2), [-0.9, -0.6]).astype(np.uint8)
    plan = make_test_plan(preprocessing_order=order)
    for result in _there_and_back(*_case(image, label, make_oblique_geometry(shape, spacing)), plan):
        assert result.shape == shape
        assert min(_dice(result, label, value) for value in (1, 2)) > 0.96


def _plan_for(spec, dims):
    return make_plan(spec, make_fingerprint(spec), dims=dims)


@pytest.mark.real_data
@pytest.mark.parametrize("dims", [2, 3])
def test_hippocampus_labels_come_back_identical(real_data, dims):
    spec = read_dataset(real_data("Task04_Hippocampus"))
    plan = make_test_plan(dims, labels=spec.labels)
    for case in spec.cases[::26]:
        image, label = read_channels(case.images), read_label(case.label)
        for result in _there_and_back(image, label, plan):
            assert np.array_equal(result, label.array_ZYX)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["STS_CT_respaced", "ACDC_respaced"])
@pytest.mark.parametrize("dims", [2, 3])
def test_labels_of_respaced_data_come_back_with_little_loss(real_data, name, dims):
    spec = read_dataset(real_data(name))
    plan = _plan_for(spec, dims)
    lowest = {c.name: 1.0 for c in spec.labels.foreground}
    for case in spec.cases[::5]:
        image, label = read_channels(case.images), read_label(case.label)
        for result in _there_and_back(image, label, plan):
            for c in spec.labels.foreground:
                if (label.array_ZYX == c.value).any():
                    lowest[c.name] = min(lowest[c.name], _dice(result, label.array_ZYX, c.value))
    assert min(lowest.values()) >= 0.97, lowest
