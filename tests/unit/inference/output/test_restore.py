from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from decathlete.core.geometry import AxisTransform, Box, Geometry
from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.inference.output.probabilities import ProbabilityArray
from decathlete.inference.output.restore import Restorer, restore, restore_label
from decathlete.preprocessing.prepared import Restoration
from decathlete.preprocessing.resample import resample_logits

LABELS = LabelSet.from_names(["a", "b"])
REGIONS = LabelSet(
    classes=tuple(LabelClass(name=f"c{v}", value=v) for v in range(4)),
    regions=(Region(name="whole", values=(1, 2, 3)), Region(name="core", values=(2, 3))),
    region_order=(1, 300),
)


def _restoration(shape, crop_shape, *, separate_axis=None, axes=None, margin=(1, 2, 3)):
    axes = axes or AxisTransform(permutation=(2, 0, 1), flips=(True, False, True))
    working = tuple(n + 2 * m for n, m in zip(crop_shape, margin, strict=True))
    stop = tuple(n + m for n, m in zip(crop_shape, margin, strict=True))
    return Restoration(
        geometry=Geometry.plain(axes.inverse.shape(working)),
        axes=axes,
        crop=Box(start=margin, stop=stop),
        shape=shape,
        separate_axis=separate_axis,
    )


SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=60, deadline=None)
@given(SHAPES, SHAPES, st.sampled_from([None, 0, 1, 2]), st.sampled_from([LABELS, REGIONS]), st.data())
def test_any_split_into_slabs_gives_the_same(shape, crop, separate_axis, labels, data):
    restoration = _restoration(shape, crop, separate_axis=separate_axis)
    logits = torch.randn(labels.n_outputs, *shape, generator=torch.Generator().manual_seed(0)) * 3
    whole = restore(logits, restoration, labels, probabilities=True)
    store = ProbabilityArray(labels.n_outputs, restoration.geometry, restoration.axes)
    restorer = Restorer(restoration, labels, probabilities=store)
    start = 0
    while start < shape[0]:
        stop = start + data.draw(st.integers(1, shape[0] - start))
        restorer.add(logits[:, start:stop])
        start = stop
    assert np.array_equal(restorer.finish(), whole.label_ZYX)
    assert np.abs(store.array_KZYX - whole.probabilities_KZYX).max() < 1e-6


def _by_hand(logits, restoration, labels):
    small = resample_logits(logits, restoration.crop.shape, separate_axis=restoration.separate_axis)
    label = np.zeros(restoration.axes.shape(restoration.geometry.shape_ZYX), int)
    if labels.regions:
        inside = np.zeros(restoration.crop.shape, int)
        for channel, value in zip(small.numpy(), labels.region_order, strict=True):
            inside[1 / (1 + np.exp(-channel.astype(float))) > 0.5] = value
        probabilities = small.sigmoid()
    else:
        inside = np.array(labels.values)[small.argmax(0).numpy()]
        probabilities = small.softmax(0)
    label[restoration.crop.slices] = inside
    return restoration.axes.invert(label), probabilities.numpy()


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize(
    ("shape", "crop"),
    [((9, 8, 7), (5, 11, 7)), ((4, 8, 7), (13, 8, 9)), ((6, 6, 6), (6, 6, 6)), ((1, 5, 5), (4, 9, 3))],
)
def test_equals_the_plain_computation(shape, crop, labels):
    restoration = _restoration(shape, crop)
    logits = torch.randn(labels.n_outputs, *shape) * 3
    restored = restore(logits, restoration, labels, probabilities=True)
    label, probabilities = _by_hand(logits, restoration, labels)
    assert np.array_equal(restored.label_ZYX, label)
    assert restored.label_ZYX.shape == restoration.geometry.shape_ZYX
    inside = restoration.axes.apply(restored.probabilities_KZYX)[:, *restoration.crop.slices]
    assert np.allclose(inside, probabilities, atol=1e-6)


def test_the_way_back_has_an_axis_of_its_own():
    restoration = _restoration((4, 6, 6), (8, 6, 6), separate_axis=1)
    logits = torch.randn(3, 4, 6, 6) * 3
    same, own = (restore(logits, r, LABELS) for r in (restoration, restoration.revised(logits_axis=0)))
    working = restoration.axes.apply(own.label_ZYX)[restoration.crop.slices]
    assert np.array_equal(working, restore_each_slice(logits).repeat(2, axis=0))
    assert not np.array_equal(own.label_ZYX, same.label_ZYX)


def restore_each_slice(logits):
    return np.array(LABELS.values)[logits.argmax(0).numpy()]


def test_outside_the_crop_is_certain_background():
    restoration = _restoration((4, 4, 4), (4, 4, 4))
    restored = restore(torch.full((3, 4, 4, 4), -5.0), restoration, LABELS, probabilities=True)
    assert np.allclose(restored.probabilities_KZYX.sum(axis=0), 1, atol=1e-6)
    working = restoration.axes.apply(restored.probabilities_KZYX)
    assert working[:, 0, 0, 0].tolist() == [1, 0, 0]
    regions = restore(torch.full((2, 4, 4, 4), 5.0), restoration, REGIONS, probabilities=True)
    assert restoration.axes.apply(regions.probabilities_KZYX)[:, 0, 0, 0].tolist() == [0, 0]
    assert regions.label_ZYX.max() == 300


class LiveTensors(TorchDispatchMode):
    """Knows the tensors that were made under it and are still in use."""

    def __init__(self) -> None:
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.made.extend(weakref.ref(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        return result

    @property
    def n_bytes(self) -> int:
        storages = [tensor.untyped_storage() for made in self.made if (tensor := made()) is not None]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("slab", [1, 7])
def test_memory_follows_the_slab(slab):
    """Two planes are kept for the next slab, and not the slab that they came in."""
    restorer, live = Restorer(_restoration((63, 6, 6), (100, 6, 6)), LABELS), LiveTensors()
    for planes in torch.randn(63 // slab, 3, slab, 6, 6)[:-1]:
        with live:
            restorer.add(planes.clone())
        assert 0 < live.n_bytes <= 4 * 3 * 2 * 36


def test_half_precision_logits_are_taken():
    restoration = _restoration((4, 4, 4), (5, 5, 5))
    logits = torch.randn(3, 4, 4, 4).half()
    expected = restore(logits.float(), restoration, LABELS)
    assert np.array_equal(restore(logits, restoration, LABELS).label_ZYX, expected.label_ZYX)


def test_what_does_not_fit_is_refused():
    restoration = _restoration((4, 5, 6), (4, 5, 6))
    restorer = Restorer(restoration, LABELS)
    with pytest.raises(ValueError, match="does not fit"):
        restorer.add(torch.zeros(2, 4, 5, 6))
    restorer.add(torch.zeros(3, 2, 5, 6))
    with pytest.raises(ValueError, match="2 of 4 planes"):
        restorer.finish()
    with pytest.raises(ValueError, match="5 planes for an image of 4"):
        restorer.add(torch.zeros(3, 3, 5, 6))


def test_labels_go_back_with_their_values_and_the_ignore_value():
    labels = LabelSet(classes=(LabelClass(name="background", value=0), LabelClass(name="a", value=7)), ignore=-1)
    restoration = _restoration((3, 3, 3), (3, 3, 3), margin=(0, 0, 0), axes=AxisTransform())
    indices = np.zeros((3, 3, 3), np.uint8)
    indices[1], indices[2] = 1, 255
    back = restore_label(indices, restoration, labels)
    assert back[:, 0, 0].tolist() == [0, 7, -1]
