"""Samplers by class volume and by lesion: what is shown how often, and that a resumed training repeats it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import ndimage

from decathlete.core.labels import IGNORE_INDEX
from decathlete.core.rng import stream
from decathlete.errors import OptionError
from decathlete.loading.samplers import SAMPLERS, SamplerContext

SHAPE = (20, 40, 40)
PATCH = (3, 3, 3)


def label_of(*boxes):
    """A label with boxes of (class index, first corner, edge)."""
    label_ZYX = np.zeros(SHAPE, np.uint8)
    for index, corner, edge in boxes:
        label_ZYX[tuple(slice(c, c + edge) for c in corner)] = index
    return label_ZYX


def places_of(label_ZYX):
    return {int(c): np.flatnonzero(label_ZYX == c) for c in np.unique(label_ZYX) if 0 < c < IGNORE_INDEX}


def sampler(name, labels, *, patch_size=PATCH, seed=0, **settings):
    has_ignore = any((label == IGNORE_INDEX).any() for label in labels.values())
    volumes = {case_id: {c: float(len(v)) for c, v in places_of(label).items()} for case_id, label in labels.items()}
    context = SamplerContext(
        case_ids=tuple(labels),
        patch_size=patch_size,
        global_batch=2,
        seed=seed,
        has_ignore=has_ignore,
        class_volumes=lambda: volumes,
        read_label=labels.__getitem__,
    )
    return SAMPLERS.build(SAMPLERS.settings({"name": name, **settings}), context)


def centres(patches, labels, n_steps, *, index=1):
    """Case and centre voxel of one sample in each of ``n_steps`` steps."""
    for step in range(n_steps):
        case_id = patches.case_id(step, index)
        start = patches.start(SHAPE, places_of(labels[case_id]), step, index)
        yield case_id, tuple(s + p // 2 for s, p in zip(start, PATCH, strict=True))


def shown_classes(patches, labels, n_steps):
    return Counter(int(labels[case_id][centre]) for case_id, centre in centres(patches, labels, n_steps))


@pytest.fixture
def rare():
    """Ten cases with class 1; one of them also has class 2, which is 64 times smaller in each case that has it."""
    labels = {f"case{i}": label_of((1, (4, 4, 4), 8)) for i in range(9)}
    return labels | {"both": label_of((1, (4, 4, 4), 8), (2, (14, 30, 30), 2))}


def test_a_class_of_one_case_is_shown_as_often_as_that_of_all_cases(rare):
    shown = shown_classes(sampler("class_balanced", rare, exponent=0), rare, 400)
    assert shown[2] / 400 == pytest.approx(0.5, abs=0.08)
    rarely = shown_classes(sampler("foreground", rare), rare, 400)
    assert rarely[2] / 400 == pytest.approx(0.05, abs=0.04)


@pytest.mark.parametrize(("exponent", "share"), [(0.5, 25.3 / 26.3), (1.0, 640 / 641)])
def test_the_exponent_prefers_small_classes(rare, exponent, share):
    # volumes: class 1 has 10 * 512 voxels, class 2 has 8: the ratio is 640
    shown = shown_classes(sampler("class_balanced", rare, exponent=exponent), rare, 300)
    assert shown[2] / 300 == pytest.approx(share, abs=0.04)


def test_samples_that_are_not_centred_come_from_all_cases_alike(rare):
    cases = Counter(case for case, _ in centres(sampler("class_balanced", rare), rare, 600, index=0))
    assert set(cases) == set(rare)
    assert cases["both"] / 600 == pytest.approx(0.1, abs=0.04)


def test_a_class_that_resampling_removed_is_replaced_by_another(rare):
    patches = sampler("class_balanced", rare, exponent=1)
    start = patches.start(SHAPE, {1: np.array([0])}, 0, 1)
    assert start == (0, 0, 0)


def test_volumes_that_are_unknown_are_an_error(rare):
    context = SamplerContext(case_ids=tuple(rare), patch_size=PATCH, global_batch=2, seed=0)
    with pytest.raises(OptionError, match="volume of each class"):
        SAMPLERS.build(SAMPLERS.settings("class_balanced"), context)
    with pytest.raises(OptionError, match="needs the labels"):
        SAMPLERS.build(SAMPLERS.settings("lesion"), context)


def test_cases_without_any_class_are_cut_anywhere():
    empty = {"a": label_of(), "b": label_of()}
    for name in ("class_balanced", "lesion"):
        assert {case for case, _ in centres(sampler(name, empty), empty, 30)} == {"a", "b"}


@pytest.fixture
def lesions():
    """One large lesion and three of a single voxel."""
    small = [(1, corner, 1) for corner in ((2, 20, 4), (2, 30, 30), (17, 4, 30))]
    return {"a": label_of((1, (4, 4, 4), 12), *small)}


def test_each_lesion_is_shown_equally_often(lesions):
    patches = sampler("lesion", lesions)
    in_large = [all(4 <= c < 16 for c in centre) for _, centre in centres(patches, lesions, 400)]
    assert np.mean(in_large) == pytest.approx(0.25, abs=0.07)
    by_voxel = sampler("foreground", lesions)
    assert np.mean([all(4 <= c < 16 for c in centre) for _, centre in centres(by_voxel, lesions, 400)]) > 0.97


def test_touching_classes_are_one_lesion_on_request():
    labels = {"a": label_of((1, (4, 4, 4), 6), (2, (6, 6, 6), 2), (1, (15, 30, 30), 3))}
    shown = shown_classes(sampler("lesion", labels), labels, 300)
    assert shown[2] / 300 == pytest.approx(0.5, abs=0.08)
    merged = sampler("lesion", labels, merge_classes=True)
    apart = [centre[0] >= 14 for _, centre in centres(merged, labels, 300)]
    assert np.mean(apart) == pytest.approx(0.5, abs=0.08)


def test_ignored_voxels_are_no_lesion():
    label_ZYX = label_of((IGNORE_INDEX, (0, 0, 0), 10), (2, (12, 30, 30), 3))
    labels = {"a": label_ZYX}
    patches = sampler("lesion", labels)
    foreground = places_of(label_ZYX) | {IGNORE_INDEX: np.flatnonzero(label_ZYX != IGNORE_INDEX)}
    for step in range(40):
        forced = patches.start(SHAPE, foreground, step, 1)
        assert label_ZYX[tuple(s + 1 for s in forced)] == 2
        free = patches.start(SHAPE, foreground, step, 0)
        assert all(s >= 0 for s in free)


@pytest.mark.parametrize("merge_classes", [False, True])
def test_background_that_is_not_annotated_is_no_lesion(merge_classes):
    label_ZYX = label_of((IGNORE_INDEX - 1, (0, 0, 0), 10), (2, (12, 30, 30), 3))
    patches = sampler("lesion", {"a": label_ZYX}, merge_classes=merge_classes)
    foreground = {2: np.flatnonzero(label_ZYX == 2)}
    for step in range(40):
        assert label_ZYX[tuple(s + 1 for s in patches.start(SHAPE, foreground, step, 1))] == 2


@pytest.mark.parametrize(
    ("merge_classes", "boxes"), [(False, [(10, 25, 32), (10, 25, 32), (1, 6, 1)]), (True, [(14, 27, 33)])]
)
def test_components_are_searched_in_boxes_and_are_those_of_the_volume(merge_classes, boxes, monkeypatch):
    random = np.random.default_rng(0)
    label_ZYX = label_of((IGNORE_INDEX, (0, 0, 0), 2))
    label_ZYX[2:12, 5:30, 8:] = random.choice([0, 1, 2], (10, 25, 32), p=[0.93, 0.04, 0.03])
    label_ZYX[15, 3:9, 7] = 3
    label, searched = ndimage.label, []

    def search(mask_ZYX, structure):
        searched.append(mask_ZYX.shape)
        return label(mask_ZYX, structure)

    monkeypatch.setattr(ndimage, "label", search)
    patches = sampler("lesion", {"a": label_ZYX}, merge_classes=merge_classes, voxels_per_lesion=2)
    found = patches._find_lesions("a", [3, 1, 2, 4])
    assert searched == boxes
    members = {1: (1, 2, 3)} if merge_classes else {1: (1,), 2: (2,), 3: (3,)}
    assert list(found) == list(members)
    for value, places in found.items():
        components_ZYX, n = label(np.isin(label_ZYX, members[value]), np.ones((3, 3, 3)))
        assert len(places) == n
        draw = stream(0, "lesion", "a", value)
        for number, some in enumerate(places, start=1):
            voxels = np.flatnonzero(components_ZYX == number)
            expected = voxels if len(voxels) <= 2 else np.sort(draw.choice(voxels, 2, replace=False))
            assert some.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["class_balanced", "lesion"])
@pytest.mark.parametrize("patch_size", [PATCH, (3, 3)], ids=["3d", "2d"])
def test_a_training_that_resumes_at_a_step_draws_the_same(name, patch_size, rare):
    def drawn(patches, steps):
        cases = [(patches.case_id(step, i), step, i) for step in steps for i in range(2)]
        return [(case, patches.start(SHAPE, places_of(rare[case]), step, i)) for case, step, i in cases]

    whole = drawn(sampler(name, rare, patch_size=patch_size), range(12))
    assert drawn(sampler(name, rare, patch_size=patch_size), range(7, 12)) == whole[14:]
    assert drawn(sampler(name, rare, patch_size=patch_size, seed=1), range(12)) != whole
