"""The demo's cohort: made from the template, different in every case, and not solved by thresholding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decathlete.dataset.check import check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.io.images import read_label
from decathlete.synthetic.brain_cohort import CohortOptions, load_template, make_brain, make_brain_cohort
from decathlete.workflows.demo import thresholding_dice

OPTIONS = CohortOptions(n_train=3, n_test=1, spacing_mm=5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_brain_cohort(tmp_path_factory.mktemp("cohort") / "Brain", OPTIONS)


def test_the_cohort_is_a_clean_dataset(cohort: Path) -> None:
    spec = read_dataset(cohort)
    assert (len(spec.cases), len(spec.test_cases)) == (3, 1)
    assert check_dataset(spec).problems == ()


def test_every_brain_is_another_and_has_all_tissues(cohort: Path) -> None:
    labels = [read_label(c.label).array_ZYX for c in read_dataset(cohort).cases if c.label]
    assert all(set(np.unique(label)) == {0, 1, 2} for label in labels)
    assert (labels[0] != labels[1]).mean() > 0.02


def test_a_brain_depends_on_seed_and_index_alone() -> None:
    template = load_template(OPTIONS.spacing_mm)
    first, again = make_brain(template, OPTIONS, index=1), make_brain(template, OPTIONS, index=1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_a_finished_cohort_is_kept(cohort: Path) -> None:
    before = [p.stat().st_mtime_ns for p in sorted(cohort.rglob("*"))]
    make_brain_cohort(cohort, OPTIONS)
    assert [p.stat().st_mtime_ns for p in sorted(cohort.rglob("*"))] == before


def test_thresholding_does_not_solve_it(cohort: Path) -> None:
    dice = thresholding_dice(cohort, [c.id for c in read_dataset(cohort).cases])
    assert 0.3 < dice < 0.8
