"""Cases that differ from all others are named; datasets that merely vary are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decathlete.core.geometry import Geometry
from decathlete.dataset.case_measures import CaseMeasures, measure_case, orientation_letters
from decathlete.dataset.check import check_dataset
from decathlete.dataset.check_report import Problem
from decathlete.dataset.cohort import find_deviations, find_separate
from decathlete.dataset.manifest import read_dataset
from decathlete.io.images import read_image, read_label, write_image, write_label
from decathlete.io.volumes import Image, LabelMap
from decathlete.synthetic.phantoms import make_phantoms


def measures(spacing=(1.0, 1.0, 1.0), shape=(100, 100, 100), orientation="RAS", ct=None) -> CaseMeasures:
    return CaseMeasures(shape=shape, spacing=spacing, orientation=orientation, ct=ct)


def named(*cases: CaseMeasures) -> list[tuple[set[int], str]]:
    found = find_deviations({str(number): case for number, case in enumerate(cases)})
    return [({int(key) for key in d.keys}, d.message) for d in found]


@pytest.mark.parametrize("factor", [1e-3, 0.1, 10.0, 300.0, 1000.0])
@pytest.mark.parametrize("n_wrong", [1, 3, 5])
def test_a_wrong_unit_of_the_spacing_is_found_in_up_to_half_of_the_cases(factor: float, n_wrong: int) -> None:
    usual = [measures((5.0, 0.7 + k / 20, 0.7 + k / 20)) for k in range(10 - n_wrong)]
    wrong = [measures((5.0 * factor, 0.8 * factor, 0.8 * factor)) for _ in range(n_wrong)]
    ((keys, message),) = named(*usual, *wrong)
    assert keys == set(range(10 - n_wrong, 10))
    assert message.startswith("spacing of ")
    assert "elsewhere 5 × " in message


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_wrong_axis_is_found(axis: int) -> None:
    wrong = tuple(0.02 if a == axis else 1.0 for a in range(3))
    ((keys, message),) = named(*[measures()] * 5, measures(wrong))
    assert keys == {5}
    assert f"along {('superior', 'anterior', 'right')[axis]}" in message


def test_a_case_that_would_be_too_large_is_an_error() -> None:
    (found,) = find_deviations({str(k): m for k, m in enumerate([measures()] * 5 + [measures((300.0,) * 3)])})
    assert found.impossible
    assert "2.7e+13 voxels" in found.message
    (found,) = find_deviations({str(k): m for k, m in enumerate([measures()] * 5 + [measures((10.0,) * 3)])})
    assert not found.impossible


@pytest.mark.parametrize("shape", [(100, 100, 1), (1, 100, 100), (2000, 2000, 2000), (10, 10, 10)])
def test_unusual_sizes_are_found(shape) -> None:
    ((keys, message),) = named(*[measures(shape=(90 + k, 100, 100)) for k in range(6)], measures(shape=shape))
    assert keys == {6}
    assert message.startswith("size ")


@given(
    st.lists(
        st.tuples(st.floats(0.5, 7.5), st.floats(0.4, 1.5), st.integers(30, 450), st.integers(256, 512)),
        min_size=1,
        max_size=30,
    )
)
@example([(6.0, 1.0, 30, 256), (6.0, 1.0, 30, 256), (0.5, 0.40625, 30, 256)])
def test_the_usual_range_of_clinical_scans_is_silent(scans) -> None:
    cases = [measures((z, xy, xy), (n, m, m)) for z, xy, n, m in scans]
    assert named(*cases) == []


def test_two_cases_are_not_compared() -> None:
    assert named(measures(), measures((1e-3,) * 3)) == []


def ct(air=-1000.0, middle=-800.0, bright=150.0, tissue=60.0) -> CaseMeasures:
    return measures(ct=(air, middle, bright, tissue))


def shifted(by: float, **values: float) -> CaseMeasures:
    usual = ct(**values).ct
    assert usual is not None
    return measures(ct=tuple(v + by for v in usual))


@pytest.mark.parametrize("by", [1024.0, 1000.0, -1024.0])
@pytest.mark.parametrize("n_wrong", [1, 4, 5])
@pytest.mark.parametrize("tissue", [60.0, np.nan])
def test_a_wrong_rescale_intercept_is_found_in_up_to_half_of_the_cases(by, n_wrong, tissue) -> None:
    usual = [ct(middle=-900 + 150.0 * k, bright=100 + 20.0 * k, tissue=tissue) for k in range(10 - n_wrong)]
    ((keys, message),) = named(*usual, *[shifted(by, tissue=tissue)] * n_wrong)
    assert keys == set(range(10 - n_wrong, 10))
    assert "HU above" in message if by > 0 else "HU below" in message


def test_a_shifted_test_image_is_found_without_foreground() -> None:
    ((keys, _),) = named(*[ct(), ct(tissue=40), ct(tissue=300)], shifted(1024), shifted(1024, tissue=np.nan))
    assert keys == {3, 4}


@pytest.mark.parametrize(
    "other",
    [
        ct(air=-3024.0, middle=-3024.0),  # padded
        ct(air=-50.0, middle=30.0),  # cropped to the body
        ct(tissue=-750.0),  # a lesion of the lung
        ct(bright=1200.0),  # much bone
        ct(air=-50.0, middle=40.0, tissue=np.nan),
    ],
)
def test_other_contents_of_a_ct_are_no_offset(other: CaseMeasures) -> None:
    assert named(*[ct(tissue=60 + 10 * k) for k in range(5)], other) == []


def test_a_rare_orientation_is_found_and_a_mixture_is_not() -> None:
    ((keys, message),) = named(*[measures()] * 7, measures(orientation="LAS"))
    assert (keys, message) == ({7}, "axes stored as LAS, elsewhere as RAS")
    assert named(*[measures()] * 4, *[measures(orientation="LPS")] * 4) == []


def test_a_hole_separates_the_smaller_part() -> None:
    assert find_separate({"a": 0.0, "b": 0.5, "c": 2.0}, 1.0) == [("c",)]
    assert find_separate({"a": 5.0, "b": 0.5, "c": 0.0, "d": 5.5}, 1.0) == [("a", "d")], "nearer to 0 is usual"
    assert find_separate({}, 1.0) == []


def test_the_measures_of_a_case_follow_the_body_not_the_storage() -> None:
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[2, 1], matrix[1, 2], matrix[3, 3] = -0.7, -5.0, 0.7, 1.0
    grid = Geometry.from_matrix((6, 4, 8), matrix)
    array = np.full((2, 6, 4, 8), 7.0, np.float32)
    array[1, :2] = -1000.0
    label = np.zeros((6, 4, 8), np.uint8)
    label[5, 0, 0] = 1
    array[1, 5, 0, 0] = 80.0
    image, truth = Image(array_CZYX=array, geometry=grid), LabelMap(array_ZYX=label, geometry=grid)
    found = measure_case(["PET", "CT"], [image], truth)
    assert (found.shape, found.spacing) == ((4, 8, 6), (5.0, 0.7, 0.7))
    assert found.orientation == orientation_letters(grid) == "AIL"
    assert found.ct == (-1000.0, 7.0, 7.0, 80.0)
    assert measure_case(["PET", "MRI"], [image], truth).ct is None
    without = measure_case(["PET", "CT"], [image], None).ct
    assert without is not None
    assert np.isnan(without[3])


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "d", n_cases=8, n_test=1, shape_ZYX=(12, 12, 12), channel="CT")


def rewrite(root: Path, number: int, *, scale: float = 1.0, shift: float = 0.0) -> None:
    name = f"phantom_{number:03d}.nii.gz"
    image = read_image(root / "imagesTr" / name)
    label = read_label(root / "labelsTr" / name)
    matrix = image.geometry.matrix
    matrix[:3, :3] *= scale
    grid = Geometry.from_matrix(image.geometry.shape_ZYX, matrix)
    write_image(root / "imagesTr" / name, image.array_CZYX + shift, grid)
    write_label(root / "labelsTr" / name, label.array_ZYX, grid)


def cohort_problems(root: Path) -> list[Problem]:
    return [p for p in check_dataset(read_dataset(root)).problems if p.code == "E-DATASET-COHORT"]


def test_check_names_the_file_of_one_deviating_case(cohort: Path) -> None:
    assert cohort_problems(cohort) == []
    rewrite(cohort, 2, scale=1e-3)
    (problem,) = cohort_problems(cohort)
    assert (problem.severity, problem.case_id) == ("warning", "phantom_002")
    assert problem.file == "imagesTr/phantom_002.nii.gz"


def test_check_rejects_a_spacing_that_no_computer_could_hold(cohort: Path) -> None:
    rewrite(cohort, 5, scale=150)
    (problem,) = cohort_problems(cohort)
    assert (problem.severity, problem.file) == ("error", "imagesTr/phantom_005.nii.gz")
    assert "voxels" in problem.message


def test_check_names_all_cases_of_a_shifted_half(cohort: Path) -> None:
    for number in range(4):
        rewrite(cohort, number, shift=1024)
    (problem,) = cohort_problems(cohort)
    assert problem.cases == tuple(f"phantom_{k:03d}" for k in range(4))
    assert all(name in problem.message for name in problem.cases)
    assert "rescale intercept" in problem.remedy
