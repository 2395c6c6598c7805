"""Made-up gliomas are what --brats and the foreground channel are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from decathlete.dataset.brats import brats_regions
from decathlete.dataset.check import check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.synthetic.tumour_phantoms import CHANNELS, make_tumour, make_tumour_phantoms

SHAPE = (36, 44, 36)


def test_the_cohort_is_clean_and_its_labels_make_the_regions(tmp_path: Path) -> None:
    spec = read_dataset(make_tumour_phantoms(tmp_path, n_cases=3, n_test=1))
    assert (len(spec.cases), len(spec.test_cases)) == (3, 1)
    assert check_dataset(spec).problems == ()
    assert list(spec.channels) == CHANNELS
    assert brats_regions(spec.labels) == {"whole tumour": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}


def test_all_parts_are_there_in_a_brain_among_zeros() -> None:
    for index in range(8):
        image_CZYX, label_ZYX = make_tumour(SHAPE, index=index)
        assert np.bincount(label_ZYX.ravel(), minlength=4).min() >= 20
        brain_ZYX = image_CZYX[0] != 0
        assert all(np.array_equal(channel_ZYX != 0, brain_ZYX) for channel_ZYX in image_CZYX)
        assert brain_ZYX[label_ZYX > 0].all()
        assert 0.3 < brain_ZYX.mean() < 0.6


def test_no_channel_alone_shows_all_parts() -> None:
    image_CZYX, label_ZYX = make_tumour(SHAPE, noise=0.0, bias=0.0)
    brain_ZYX = image_CZYX[0] != 0
    levels = [[np.median(channel[brain_ZYX & (label_ZYX == k)]) for k in range(4)] for channel in image_CZYX]
    flair, t1, t1gd, t2 = (np.array(values) / values[0] for values in levels)
    assert flair[1:].min() > 1.4, "the whole tumour"
    assert np.ptp(flair[1:]) < 0.3
    assert t1gd[3] > 1.5 > t1gd[:3].max(), "the rim that enhances"
    assert t1gd[3] > 1.2 * np.delete(t1, 3).max()
    assert t2.argmax() == 2, "the rest of the core"


def test_a_case_depends_on_seed_and_index_alone() -> None:
    first, again, other = (make_tumour(SHAPE, index=index) for index in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert (first[1] != other[1]).any()
