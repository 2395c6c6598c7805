"""Post-processing: largest components, holes and small components, of classes and of regions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.errors import ModelError
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.models.record import PostprocessingStep

ORGANS = LabelSet.from_names(["organ", "tumour"])
BRATS = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(["background", "necrosis", "edema", "enhancing"])),
    regions=(
        Region(name="whole", values=(1, 2, 3)),
        Region(name="core", values=(1, 3)),
        Region(name="enhancing", values=(3,)),
    ),
    region_order=(2, 1, 3),
)


def apply(label_ZYX, labels, *steps, spacing=(1.0, 1.0, 1.0)):
    """Apply steps, each a name and settings."""
    described = [PostprocessingStep(name=name, settings=settings) for name, settings in steps]
    before_ZYX = label_ZYX.copy()
    found = postprocess(
        label_ZYX, Geometry.plain(label_ZYX.shape, spacing_ZYX=spacing), labels, build_steps(described, labels)
    )
    assert np.array_equal(label_ZYX, before_ZYX)
    assert found.dtype == label_ZYX.dtype
    return found


def line(*values):
    """A label map of one row, which reads as a list."""
    return np.array(values, np.uint8)[None, None]


def test_the_largest_component_of_each_class_stays():
    found = apply(line(1, 1, 0, 1, 0, 2, 0, 2, 2), ORGANS, ("keep_largest_component", {}))
    assert found.ravel().tolist() == [1, 1, 0, 0, 0, 0, 0, 2, 2]


def test_only_the_named_structures_are_changed():
    settings = {"structures": ["tumour"]}
    found = apply(line(1, 1, 0, 1, 0, 2, 0, 2, 2), ORGANS, ("keep_largest_component", settings))
    assert found.ravel().tolist() == [1, 1, 0, 1, 0, 0, 0, 2, 2]


def test_voxels_that_share_a_corner_are_connected_or_not():
    label_ZYX = np.zeros((2, 4, 4), np.uint8)
    label_ZYX[0, 0, 0] = label_ZYX[1, 1, 1] = label_ZYX[1, 1, 2] = 1
    for connectivity, voxels in ((26, 3), (18, 2), (6, 2)):
        found = apply(label_ZYX, ORGANS, ("keep_largest_component", {"connectivity": connectivity}))
        assert np.count_nonzero(found) == voxels
    with pytest.raises(ModelError, match="connectivity"):
        apply(label_ZYX, ORGANS, ("keep_largest_component", {"connectivity": 8}))


def test_small_components_are_removed_by_their_volume():
    label_ZYX = line(1, 0, 1, 1, 0, 2)
    step = ("remove_small", {"min_volume_ml": 0.002})
    assert apply(label_ZYX, ORGANS, step).ravel().tolist() == [0, 0, 1, 1, 0, 0], "voxels of 0.001 mL"
    assert np.array_equal(apply(label_ZYX, ORGANS, step, spacing=(2.0, 1.0, 1.0)), label_ZYX), "voxels of 0.002 mL"
    assert not apply(label_ZYX, ORGANS, ("remove_small", {"min_volume_ml": 1.0})).any()
    with pytest.raises(ModelError, match="min_volume_ml"):
        apply(label_ZYX, ORGANS, ("remove_small", {"min_volume_ml": 0}))


def test_holes_become_the_class_around_them_but_other_classes_stay():
    label_ZYX = np.zeros((7, 7, 7), np.uint8)
    label_ZYX[1:6, 1:6, 1:6] = 1
    label_ZYX[2:5, 2:5, 2:5] = 0
    label_ZYX[3, 3, 3] = 2
    filled_ZYX = apply(label_ZYX, ORGANS, ("fill_holes", {}))
    assert filled_ZYX[3, 3, 3] == 2
    assert np.count_nonzero(filled_ZYX == 1) == 5**3 - 1
    label_ZYX[3, 3, 1] = 0  # opened
    assert np.array_equal(apply(label_ZYX, ORGANS, ("fill_holes", {})), label_ZYX)


def test_holes_at_the_edge_of_the_image_are_open():
    label_ZYX = np.ones((5, 5, 5), np.uint8)
    label_ZYX[:3, 2, 2] = 0
    assert np.array_equal(apply(label_ZYX, ORGANS, ("fill_holes", {})), label_ZYX)


def test_holes_of_a_single_slice_are_holes_and_those_of_a_flat_structure_in_a_volume_are_not():
    ring_YX = np.zeros((5, 5), np.uint8)
    ring_YX[1:4, 1:4] = 1
    ring_YX[2, 2] = 0
    assert apply(ring_YX[None], ORGANS, ("fill_holes", {}))[0, 2, 2] == 1
    volume_ZYX = np.zeros((3, 5, 5), np.uint8)
    volume_ZYX[1] = ring_YX
    assert np.array_equal(apply(volume_ZYX, ORGANS, ("fill_holes", {})), volume_ZYX)


def test_holes_are_those_of_scipy():
    mask_ZYX = np.random.default_rng(0).random((12, 13, 14)) < 0.75
    found_ZYX = apply(mask_ZYX.astype(np.uint8), LabelSet.from_names(["organ"]), ("fill_holes", {}))
    assert np.array_equal(found_ZYX == 1, ndimage.binary_fill_holes(mask_ZYX))
    assert np.count_nonzero(found_ZYX) > np.count_nonzero(mask_ZYX)


def test_a_component_that_leaves_a_region_leaves_the_regions_inside_it():
    found = apply(line(2, 2, 1, 3, 0, 2, 3), BRATS, ("keep_largest_component", {"structures": ["whole"]}))
    assert found.ravel().tolist() == [2, 2, 1, 3, 0, 0, 0]


def test_a_component_that_leaves_an_inner_region_stays_in_the_outer_one():
    found = apply(line(1, 3, 2, 2, 1, 2), BRATS, ("keep_largest_component", {"structures": ["core"]}))
    assert found.ravel().tolist() == [1, 3, 2, 2, 2, 2]
    found = apply(line(1, 3, 3, 2, 3, 1), BRATS, ("keep_largest_component", {"structures": ["enhancing"]}))
    assert found.ravel().tolist() == [1, 3, 3, 2, 1, 1]


def test_a_hole_of_a_region_gets_its_label_and_inner_regions_keep_theirs():
    ring_ZYX = np.full((1, 5, 5), 1, np.uint8)
    ring_ZYX[0, 1:4, 1:4] = 2
    ring_ZYX[0, 2, 2] = 3
    found_ZYX = apply(ring_ZYX, BRATS, ("fill_holes", {"structures": ["core"]}))
    assert found_ZYX[0, 2, 2] == 3
    assert np.count_nonzero(found_ZYX == 1) == 24
    hollow_ZYX = np.full((1, 3, 3), 3, np.uint8)
    hollow_ZYX[0, 1, 1] = 0
    assert apply(hollow_ZYX, BRATS, ("fill_holes", {"structures": ["whole"]}))[0, 1, 1] == 2


def test_steps_follow_one_another():
    label_ZYX = line(1, 1, 1, 0, 1, 0, 2)
    steps = ("remove_small", {"min_volume_ml": 0.002, "structures": ["tumour"]}), ("keep_largest_component", {})
    assert apply(label_ZYX, ORGANS, *steps).ravel().tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_absent_structures_are_left_alone():
    assert not apply(np.zeros((2, 3, 4), np.uint8), ORGANS, ("keep_largest_component", {}), ("fill_holes", {})).any()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (("keep_larges_component", {}), "did you mean keep_largest_component"),
        (("remove_small", {"volume": 3}), "volume: Extra inputs"),
        (("fill_holes", {"structures": ["liver"]}), "unknown structures: liver"),
        (("fill_holes", {"structures": [3]}), "structures"),
        (("fill_holes", {"name": "remove_small"}), "name"),
    ],
)
def test_steps_that_cannot_be_run_are_rejected(step, message):
    with pytest.raises(ModelError, match=message) as caught:
        apply(line(1), ORGANS, step)
    assert caught.value.code == "E-MODEL-POSTPROCESSING"


def test_structures_together_keep_the_largest_component_of_their_union():
    label_ZYX = line(1, 1, 2, 0, 2, 2, 0, 1)
    together = ("keep_largest_component", {"structures": ["organ", "tumour"], "together": True})
    assert apply(label_ZYX, ORGANS, together).ravel().tolist() == [1, 1, 2, 0, 0, 0, 0, 0]
    alone = ("keep_largest_component", {"structures": ["organ", "tumour"]})
    assert apply(label_ZYX, ORGANS, alone).ravel().tolist() == [1, 1, 0, 0, 2, 2, 0, 0]


def test_regions_together_leave_no_region_behind():
    together = ("keep_largest_component", {"together": True})
    assert apply(line(2, 2, 1, 3, 0, 3, 1, 0, 2), BRATS, together).ravel().tolist() == [2, 2, 1, 3, 0, 0, 0, 0, 0]


def test_a_union_only_loses_voxels():
    hollow = np.array([[[1, 1, 2], [1, 0, 2], [1, 2, 2]]], np.uint8)
    assert apply(hollow, ORGANS, ("fill_holes", {"together": True}))[0, 1, 1] == 0
