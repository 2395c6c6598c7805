"""Patches of cases with ignored voxels are cut where there is something to learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decathlete.core.labels import IGNORE_INDEX
from decathlete.loading.samplers import SAMPLERS, SamplerContext
from decathlete.preprocessing.prepare import FOREGROUND_SAMPLES, foreground_sample


def sampled_centres(label: np.ndarray, oversampling: float) -> np.ndarray:
    context = SamplerContext(case_ids=("a",), patch_size=(8, 8, 8), global_batch=2, seed=1, has_ignore=True)
    sampler = SAMPLERS.build(SAMPLERS.settings({"name": "foreground", "oversampling": oversampling}), context)
    places = foreground_sample(label, "a", 3)
    return np.array([sampler.start(label.shape, places, step, 0) for step in range(50)]) + 4


def test_patches_are_centred_on_voxels_that_are_not_ignored() -> None:
    label = np.full((32, 32, 32), IGNORE_INDEX, np.uint8)
    label[10:14, 12:16, 20:24] = 0
    for oversampling in (0.0, 1.0):  # without foreground, forced patches are cut there, too
        assert all(label[tuple(centre)] == 0 for centre in sampled_centres(label, oversampling))
    label[12, 13, 21] = 2
    assert all(label[tuple(centre)] == 2 for centre in sampled_centres(label, 1.0))
    assert all(label[tuple(centre)] != IGNORE_INDEX for centre in sampled_centres(label, 0.0))


def test_cases_of_a_store_without_these_places_are_cut_anywhere() -> None:
    """Early versions stored places of foreground alone."""
    context = SamplerContext(case_ids=("a",), patch_size=(8, 8, 8), global_batch=2, seed=1, has_ignore=True)
    for name in ("foreground", "lesion"):
        settings = SAMPLERS.settings({"name": name, "oversampling": 0.0})
        with_label = replace(context, read_label=lambda _: np.zeros((32, 32, 32), np.uint8))
        sampler = SAMPLERS.build(settings, with_label)
        starts = {sampler.start((32, 32, 32), {}, step, 0) for step in range(50)}
        assert len(starts) > 40
        assert all(0 <= s <= 24 for start in starts for s in start)


def test_the_places_are_bounded_and_only_kept_where_voxels_are_ignored() -> None:
    label = np.zeros((32, 32, 32), np.uint8)
    label[0, 0, 0] = 1
    assert list(foreground_sample(label, "a", 2)) == [1]
    label[1] = IGNORE_INDEX
    places = foreground_sample(label, "a", 2)
    assert len(places[IGNORE_INDEX]) == FOREGROUND_SAMPLES
    assert (label.reshape(-1)[places[IGNORE_INDEX]] != IGNORE_INDEX).all()
    assert foreground_sample(np.full((3, 3, 3), IGNORE_INDEX, np.uint8), "a", 2) == {}
