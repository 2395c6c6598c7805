"""Strides, kernels and patch divisibility, for any spacing and size."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlete.planning.topology import MIN_EDGE, Pooling, make_topology, shorten, shrink, smallest_poolable

axes = st.integers(2, 3).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.1, 12), min_size=n, max_size=n), st.lists(st.integers(1, 300), min_size=n, max_size=n)
    )
)


@given(axes)
def test_patch_is_rounded_up_to_what_the_strides_divide(spacing_and_size):
    spacing, size = spacing_and_size
    topology = make_topology(spacing, size)
    for patch, wanted, divisor in zip(topology.patch_size, size, topology.divisor, strict=True):
        assert patch % divisor == 0
        assert wanted <= patch < wanted + divisor


@given(axes)
def test_pooled_feature_maps_keep_at_least_four_voxels(spacing_and_size):
    topology = make_topology(*spacing_and_size)
    for patch, divisor in zip(topology.patch_size, topology.divisor, strict=True):
        if divisor > 1:
            assert patch // divisor >= MIN_EDGE


@given(axes)
def test_kernels_open_once_and_the_bottleneck_sees_all_axes(spacing_and_size):
    topology = make_topology(*spacing_and_size)
    assert topology.strides[0] == (1,) * len(topology.patch_size)
    assert topology.kernels[-1] == (3,) * len(topology.patch_size)
    for along_axis in zip(*topology.kernels, strict=True):
        assert set(along_axis) <= {1, 3}
        assert list(along_axis) == sorted(along_axis)
    for stride in topology.strides[1:]:
        assert set(stride) <= {1, 2}
        assert max(stride) == 2


@given(axes)
def test_another_pooling_would_break_a_rule(spacing_and_size):
    spacing, size = spacing_and_size
    topology = make_topology(spacing, size)
    edges = [math.ceil(s / d) for s, d in zip(size, topology.divisor, strict=True)]
    gaps = [g * d for g, d in zip(spacing, topology.divisor, strict=True)]
    long_enough = [i for i, edge in enumerate(edges) if edge >= 2 * MIN_EDGE]
    near = [i for i in long_enough if gaps[i] / min(gaps[j] for j in long_enough) < 2]
    assert len(near) <= 1, "two axes could be pooled together"
    assert all(edges[axis] < 3 * MIN_EDGE for axis in near), "this axis could be pooled alone"


@given(axes)
def test_small_volumes_grow_until_one_pooling_is_possible(spacing_and_size):
    spacing, size = spacing_and_size
    grown = smallest_poolable(spacing, size)
    assert all(g >= s for g, s in zip(grown, size, strict=True))
    assert len(make_topology(spacing, grown).strides) >= 2


@given(axes)
def test_shrinking_makes_valid_ever_smaller_patches_and_ends(spacing_and_size):
    spacing, size = spacing_and_size
    topology, median = make_topology(spacing, smallest_poolable(spacing, size)), size
    while smaller := shrink(spacing, topology, median):
        assert math.prod(smaller.patch_size) < math.prod(topology.patch_size)
        assert all(p % d == 0 for p, d in zip(smaller.patch_size, smaller.divisor, strict=True))
        topology = smaller
    assert len(topology.strides) >= 2


def test_shrinking_skips_no_valid_size():
    topology = make_topology((1, 1), (256, 256))
    assert topology.divisor == (64, 64)
    assert shrink((1, 1), topology, (256, 256)).patch_size == (256, 224)


@pytest.mark.parametrize(
    ("spacing", "size", "patch", "strides", "kernels"),
    [
        ((1, 1, 1), (36, 50, 35), (40, 56, 40), ("111", "222", "222", "222"), ("333", "333", "333", "333")),
        ((1, 1), (50, 35), (56, 40), ("11", "22", "22", "22"), ("33", "33", "33", "33")),
        (
            (10, 1.5, 1.5),
            (9.5, 256, 216),
            (10, 256, 224),
            ("111", "122", "122", "222", "122", "122"),
            ("133", "133", "333", "333", "333", "333"),
        ),
        ((1, 1), (11, 7), (11, 7), ("11",), ("33",)),  # one axis alone needs 12
        ((1, 1), (12, 7), (12, 7), ("11", "21"), ("33", "33")),
    ],
)
def test_known_topologies(spacing, size, patch, strides, kernels):
    topology = make_topology(spacing, size)
    assert topology.patch_size == patch
    assert tuple("".join(map(str, s)) for s in topology.strides) == strides
    assert tuple("".join(map(str, k)) for k in topology.kernels) == kernels


def test_a_network_without_pooling_shrinks_by_its_multiple():
    pooling = Pooling(most_stages=1, multiple=8)
    topology = make_topology((1, 1, 1), (60, 60, 50), pooling=pooling)
    assert (topology.patch_size, topology.strides) == ((64, 64, 56), ((1, 1, 1),))
    smaller = shrink((1, 1, 1), topology, (64, 64, 64), pooling=pooling)
    assert smaller is not None
    assert smaller.patch_size == (64, 56, 56)
    assert smallest_poolable((1, 1, 1), (3, 3, 3), pooling=pooling) == (3, 3, 3)


def test_a_shorter_patch_for_the_same_strides():
    topology = make_topology((3, 1, 1), (32, 128, 96))
    sizes = [topology.patch_size]
    while shorter := shorten(topology, (1, 1, 1), divisor=topology.divisor):
        assert (shorter.strides, shorter.kernels) == (topology.strides, topology.kernels)
        can_be_shorter = [a for a in range(3) if topology.patch_size[a] > 2 * topology.divisor[a]]
        axis = max(can_be_shorter, key=lambda a: (topology.patch_size[a], a))
        differences = [old - new for old, new in zip(topology.patch_size, shorter.patch_size, strict=True)]
        assert differences == [topology.divisor[a] if a == axis else 0 for a in range(3)]
        topology = shorter
        sizes.append(shorter.patch_size)
    assert sizes[0] == (32, 128, 96)
    assert sizes[-1] == tuple(2 * divisor for divisor in topology.divisor)
    assert shorten(make_topology((1, 1), (5, 4)), (1, 1), divisor=(1, 1)).patch_size == (4, 4)
