"""Grids, axis orders and boxes: on drawn grids, oblique, sheared and mirrored ones among them."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from decathlete.core.geometry import AxisTransform, Box, Geometry, HeaderCodes, nonzero_box, reorientation

SHAPES = st.tuples(*[st.integers(1, 5)] * 3)
FLIPS = st.tuples(*[st.booleans()] * 3)
TRANSFORMS = st.builds(AxisTransform, permutation=st.permutations(range(3)).map(tuple), flips=FLIPS)


@st.composite
def geometries(draw: st.DrawFn, *, shear: float = 0.3, turn: float = 180.0) -> Geometry:
    """Array axes z, y, x towards superior, anterior, right, or mirrored; then sheared, and turned about each world axis
    by up to ``turn`` degrees. Any spacing and origin."""
    angles = draw(st.tuples(*[st.floats(-turn, turn)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.1, 10)] * 3))
    sheared = np.eye(3)
    sheared[np.triu_indices(3, 1)] = draw(st.tuples(*[st.floats(-shear, shear)] * 3))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ sheared @ np.diag(signs)[:, ::-1]
    matrix[:3, :3] *= spacing
    matrix[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry.from_matrix(draw(SHAPES), matrix, header=HeaderCodes(qform_code=0, sform_code=2))


def places(geometry: Geometry) -> NDArray[np.float64]:
    """World position of every voxel, (3, z, y, x)."""
    indices = np.stack([*np.indices(geometry.shape_ZYX), np.ones(geometry.shape_ZYX)])
    return np.einsum("wa,azyx->wzyx", geometry.matrix[:3], indices)


@given(TRANSFORMS, SHAPES)
def test_an_axis_transform_has_an_exact_inverse(axes: AxisTransform, shape: tuple[int, int, int]) -> None:
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    turned = axes.apply(array)
    assert turned.shape == (2, *axes.shape(shape))
    assert np.shares_memory(turned, array)
    assert np.array_equal(axes.invert(turned), array)
    assert np.array_equal(axes.inverse.apply(turned), array)
    assert axes.then(axes.inverse) == axes.inverse.then(axes) == AxisTransform()


@given(TRANSFORMS, TRANSFORMS, SHAPES)
def test_two_axis_transforms_are_one(first: AxisTransform, second: AxisTransform, shape: tuple[int, int, int]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    assert np.array_equal(first.then(second).apply(array), second.apply(first.apply(array)))
    assert first.then(second).shape(shape) == second.shape(first.shape(shape))


@given(TRANSFORMS, geometries())
def test_every_voxel_keeps_its_place_in_the_world(axes: AxisTransform, geometry: Geometry) -> None:
    after = axes.geometry(geometry)
    np.testing.assert_allclose(places(after), axes.apply(places(geometry)), atol=1e-9)
    assert after.header == geometry.header
    assert after.voxel_volume_mm3 == pytest.approx(geometry.voxel_volume_mm3)
    assert not axes.inverse.geometry(after).differences(geometry, tolerance_mm=1e-9, tolerance=1e-9)


def test_the_order_of_permutation_and_flips() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    axes = AxisTransform(permutation=(2, 0, 1), flips=(True, False, False))
    assert np.array_equal(axes.apply(array), array.transpose(2, 0, 1)[::-1])


@pytest.mark.parametrize("wrong", [(0, 0, 1), (1, 2, 3), (0, 1, -1)])
def test_an_order_that_is_none_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValidationError, match="not an order of the axes"):
        AxisTransform(permutation=wrong)


@given(geometries(turn=20.0, shear=0.1), TRANSFORMS)
def test_a_grid_has_one_canonical_order_however_it_is_stored(upright: Geometry, stored_as: AxisTransform) -> None:
    """World axes are at most 45 degrees from the array axis that is nearest, so the order is certain."""
    cosines = np.abs(upright.direction)[[2, 1, 0]]  # z runs to superior, y to anterior, x to right
    assume(cosines.diagonal().min() > 0.8)
    stored = stored_as.geometry(upright)
    canonical = reorientation(stored, "canonical").geometry(stored)
    world_of_zyx = canonical.direction[[2, 1, 0]]
    assert world_of_zyx.diagonal().min() > 0.8
    again = reorientation(upright, "canonical").geometry(upright)
    assert not canonical.differences(again, tolerance_mm=1e-6, tolerance=1e-9)


@given(geometries())
def test_canonical_is_canonical_already(geometry: Geometry) -> None:
    axes = reorientation(geometry, "canonical")
    canonical = axes.geometry(geometry)
    nearness = [
        sum(abs(geometry.direction[world, p[axis]]) for axis, world in enumerate((2, 1, 0)))
        for p in permutations(range(3))
    ]
    best, second = sorted(nearness, reverse=True)[:2]
    assume(best - second > 1e-6)  # two orders that are equally near: either may be taken
    assert reorientation(canonical, "canonical") == AxisTransform()
    assert canonical.direction[[2, 1, 0]].diagonal().min() >= 0
    assert np.abs(canonical.direction[[2, 1, 0]].diagonal()).sum() == pytest.approx(best)


@given(geometries())
def test_stored_is_left_as_it_is(geometry: Geometry) -> None:
    assert reorientation(geometry, "stored") == AxisTransform()


@given(geometries())
def test_spacing_direction_and_origin_make_the_affine(geometry: Geometry) -> None:
    rebuilt = geometry.direction * np.array(geometry.spacing_ZYX)
    np.testing.assert_allclose(rebuilt, geometry.matrix[:3, :3], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(geometry.direction, axis=0), 1)
    np.testing.assert_allclose(geometry.origin_mm, geometry.matrix[:3, 3])
    assert 0 < geometry.voxel_volume_mm3 <= np.prod(geometry.spacing_ZYX) * (1 + 1e-9), "shear makes voxels smaller"
    assert Geometry.model_validate_json(geometry.model_dump_json()) == geometry


@given(geometries(shear=0.0))
def test_without_shear_a_voxel_is_the_product_of_its_edges(geometry: Geometry) -> None:
    assert geometry.voxel_volume_mm3 == pytest.approx(np.prod(geometry.spacing_ZYX))


def test_a_plain_grid_is_canonical() -> None:
    geometry = Geometry.plain((4, 5, 6), spacing_ZYX=(3.0, 2.0, 1.0))
    assert geometry.spacing_ZYX == (3, 2, 1)
    assert geometry.origin_mm == (0, 0, 0)
    assert geometry.voxel_volume_mm3 == pytest.approx(6)
    assert reorientation(geometry, "canonical") == AxisTransform()
    np.testing.assert_array_equal(geometry.matrix @ (1, 0, 0, 1), (0, 0, 3, 1))  # z runs to superior


@given(geometries())
def test_a_grid_does_not_differ_from_itself(geometry: Geometry) -> None:
    assert geometry.differences(geometry) == []
    other_header = geometry.revised(header=HeaderCodes(qform_code=1))
    assert geometry.differences(other_header) == []


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_differences_within_the_tolerance_are_none_and_beyond_it_are_named(scale: float) -> None:
    geometry = Geometry.plain((4, 5, 6))
    told = scale > 1
    moved, wider = geometry.matrix, geometry.matrix
    moved[0, 3] += scale * 1e-2
    wider[2, 0] += scale * 1e-2
    assert [d.split()[0] for d in geometry.differences(Geometry.from_matrix((4, 5, 6), moved))] == ["origin"] * told
    assert [d.split()[0] for d in geometry.differences(Geometry.from_matrix((4, 5, 6), wider))] == ["spacing"] * told
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", scale * 1e-3).as_matrix()
    turned = Geometry.from_matrix((4, 5, 6), turn @ geometry.matrix)
    assert [d.split()[0] for d in geometry.differences(turned)] == ["direction"] * told


def test_an_axis_of_one_voxel_has_any_spacing() -> None:
    """The label map of a slice is often stored with two axes, or with the 999 mm of nnU-Net v1."""
    one = Geometry.plain((1, 5, 6), spacing_ZYX=(5.0, 1.0, 1.0))
    assert not one.differences(Geometry.plain((1, 5, 6)))
    assert one.differences(Geometry.plain((1, 5, 6), spacing_ZYX=(5.0, 1.0, 2.0)))
    assert len(one.differences(Geometry.plain((2, 5, 6)))) == 2


def test_all_differences_are_named_together() -> None:
    one, other = Geometry.plain((4, 5, 6)), Geometry.plain((4, 5, 7), spacing_ZYX=(2.0, 1.0, 1.0))
    matrix = other.matrix
    matrix[:3, 3] = 100
    matrix[:3, 1] *= -1
    other = Geometry.from_matrix((4, 5, 7), matrix)
    assert [d.split()[0] for d in one.differences(other)] == ["shape", "spacing", "direction", "origin"]
    assert "(4, 5, 6) against (4, 5, 7)" in one.differences(other)[0]
    assert "(1, 1, 1) mm against (2, 1, 1) mm" in one.differences(other)[1]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_affine_without_an_inverse_is_refused(value: float) -> None:
    matrix = np.eye(4)
    matrix[1, 1] = value
    with pytest.raises(ValidationError, match="singular or not finite"):
        Geometry.from_matrix((2, 2, 2), matrix)
    with pytest.raises(ValidationError, match="empty grid"):
        Geometry.plain((2, 0, 2))


@given(SHAPES, st.data())
def test_the_box_of_what_is_not_zero_is_the_smallest(shape: tuple[int, int, int], data: st.DataObject) -> None:
    image = np.zeros((2, *shape))
    places = data.draw(st.lists(st.tuples(st.integers(0, 1), *(st.integers(0, n - 1) for n in shape)), min_size=1))
    for place in places:
        image[place] = -1.0
    box = nonzero_box(image)
    assert np.count_nonzero(image[:, *box.slices]) == np.count_nonzero(image)
    assert image[:, *box.slices].shape[1:] == box.shape
    for axis, side in product((1, 2, 3), (0, -1)):
        assert np.take(image[:, *box.slices], side, axis=axis).any(), "a border without a voxel"


def test_an_image_of_zeros_is_kept_whole() -> None:
    assert nonzero_box(np.zeros((1, 2, 3, 4))) == Box(start=(0, 0, 0), stop=(2, 3, 4))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_fine_grids_are_compared_with_their_own_voxels(axis: int) -> None:
    spacing = (0.01, 0.001, 0.002)
    one = Geometry.plain((4, 5, 6), spacing_ZYX=spacing)
    for share, told in ((0.05, False), (0.5, True)):
        moved, wider = one.matrix, one.matrix
        moved[2 - axis, 3] += share * spacing[axis]
        wider[2 - axis, axis] *= 1 + share
        for matrix, name in ((moved, "origin"), (wider, "spacing")):
            found = [d.split()[0] for d in one.differences(Geometry.from_matrix((4, 5, 6), matrix))]
            assert found == [name] * told


def test_rounding_far_from_the_origin_is_no_difference() -> None:
    exact, rounded = (Geometry.plain((4, 5, 6), spacing_ZYX=(0.001,) * 3).matrix for _ in range(2))
    exact[0, 3] = 1234.5678901
    rounded[0, 3] = np.float32(exact[0, 3])
    assert Geometry.from_matrix((4, 5, 6), exact).differences(Geometry.from_matrix((4, 5, 6), rounded)) == []
