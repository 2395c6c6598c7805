"""What every sampler promises, built in or of a plug-in: patches that depend on seed, step and index alone."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.core.geometry import Shape
from decathlete.loading.samplers import SAMPLERS, Sampler, SamplerContext

SHAPE: Shape = (12, 30, 8)
FOREGROUND = {1: np.array([5, 700, 2000]), 3: np.array([2879])}

pytestmark = pytest.mark.parametrize("name", SAMPLERS.names())


def sampler(name: str, patch_size: tuple[int, ...], *, seed: int = 0) -> Sampler:
    label_ZYX = np.zeros(SHAPE, np.uint8)
    for index, places in FOREGROUND.items():
        label_ZYX.ravel()[places] = index
    context = SamplerContext(
        case_ids=("a", "b", "c"),
        patch_size=patch_size,
        global_batch=4,
        seed=seed,
        class_volumes=lambda: {case_id: {1: 3.0, 3: 1.0} for case_id in "abc"},
        read_label=lambda case_id: label_ZYX,
    )
    return SAMPLERS.build(SAMPLERS.settings(name), context)


def drawn(patches: Sampler) -> list[tuple[str, Shape]]:
    places = [(step, index) for step in range(30) for index in range(4)]
    return [(patches.case_id(*place), patches.start(SHAPE, FOREGROUND, *place)) for place in places]


@pytest.mark.parametrize("patch_size", [(4, 8, 4), (8, 6)], ids=["3d", "2d"])
def test_it_repeats_by_seed_and_another_seed_differs(name: str, patch_size: tuple[int, ...]) -> None:
    assert drawn(sampler(name, patch_size)) == drawn(sampler(name, patch_size))
    assert drawn(sampler(name, patch_size)) != drawn(sampler(name, patch_size, seed=1))


@pytest.mark.parametrize("patch_size", [(4, 8, 4), (20, 8, 10), (8, 6)], ids=["3d", "larger than the case", "2d"])
def test_patches_lie_inside_the_case_or_around_it(name: str, patch_size: tuple[int, ...]) -> None:
    box = (1, *patch_size)[-3:]
    for case_id, start in drawn(sampler(name, patch_size)):
        assert case_id in "abc"
        for s, n, p in zip(start, SHAPE, box, strict=True):
            assert 0 <= s <= n - p if n >= p else s <= 0 <= s + p - n


def test_a_case_without_foreground_is_cut_too(name: str) -> None:
    assert len(sampler(name, (4, 8, 4)).start(SHAPE, {}, 0, 3)) == 3


def test_every_case_is_used(name: str) -> None:
    assert {case_id for case_id, _ in drawn(sampler(name, (4, 8, 4)))} == set("abc")
