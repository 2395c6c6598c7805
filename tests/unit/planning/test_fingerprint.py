"""The fingerprint measures what is in the files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete.core.labels import LabelClass, LabelSet
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import CasesFailedError, DatasetError
from decathlete.planning.connected import FEWEST_CASES
from decathlete.planning.fingerprint import Fingerprint, make_fingerprint

LABELS = LabelSet(
    classes=(LabelClass(name="background", value=0), LabelClass(name="a", value=1), LabelClass(name="b", value=4)),
    ignore=9,
)


def write_case(root: Path, case_id: str, *, shape=(10, 12, 14), affine=None, value=100.0, label=None) -> Case:
    """In nibabel's axis order: a block of ``value`` with a rim of zeros, and labels 1 and 4 inside."""
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
    image = np.zeros(shape, np.float32)
    image[2:8, 3:9, 4:10] = value
    if label is None:
        label = np.zeros(shape, np.uint8)
        label[3:5, 4:6, 5:7] = 1
        label[5:7, 4:6, 5:7] = 4
        label[7, 4, 5] = 9
    image[label == 4] *= 2
    paths = root / f"{case_id}.nii.gz", root / f"{case_id}_label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, affine), paths[0])
    nibabel.save(nibabel.Nifti1Image(label, affine), paths[1])
    return Case(id=case_id, images=(paths[0],), label=paths[1])


def spec_of(root: Path, *cases: Case) -> DatasetSpec:
    return DatasetSpec(name="D", root=root, layout="decathlon", channels=("MRI",), labels=LABELS, cases=cases)


def test_measures_crop_spacing_classes_and_intensity(tmp_path):
    fingerprint = make_fingerprint(spec_of(tmp_path, write_case(tmp_path, "one")))
    case = fingerprint.cases[0]
    assert case.shape == (6, 6, 6)
    assert case.spacing == pytest.approx((3, 2, 1))
    assert case.crop_ratio == pytest.approx(216 / (10 * 12 * 14))
    assert case.class_voxels == (10 * 12 * 14 - 17, 8, 8)
    assert case.channel_means == (pytest.approx(100 * (216 + 8) / 216),)
    statistics = fingerprint.intensity[0]
    assert (statistics.minimum, statistics.maximum) == (100, 200)
    # 100,000 samples are 100 or 200: the standard error of the mean is 0.16, and the deviation changes with its square.
    assert statistics.mean == pytest.approx(150, abs=0.64)
    assert statistics.std == pytest.approx(50, abs=0.005)


def test_canonical_axes_agree_whatever_the_storage(tmp_path):
    turned = np.array([[0, 0, -1.0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])
    spec = spec_of(tmp_path, write_case(tmp_path, "turned", affine=turned))
    canonical, stored = make_fingerprint(spec), make_fingerprint(spec, orientation="stored")
    assert canonical.cases[0].spacing == pytest.approx((3, 2, 1))
    assert stored.cases[0].spacing == pytest.approx((1, 3, 2))
    assert (canonical.orientation, stored.orientation) == ("canonical", "stored")
    for fingerprint in (canonical, stored):
        assert (fingerprint.intensity[0].minimum, fingerprint.intensity[0].maximum) == (100, 200)
        assert fingerprint.intensity[0].mean == pytest.approx(150, abs=0.64)  # four standard errors, as above


def test_is_the_same_with_any_number_of_workers(tmp_path):
    cases = [write_case(tmp_path, f"c{i}", value=50.0 + i) for i in range(5)]
    spec, seen = spec_of(tmp_path, *cases), []
    alone = make_fingerprint(spec, workers=1, progress=seen.append)
    assert make_fingerprint(spec, workers=3) == alone
    assert sorted(seen) == [case.id for case in cases]
    alone.save(tmp_path / "fingerprint.json")
    assert Fingerprint.load(tmp_path / "fingerprint.json") == alone
    assert Fingerprint.load(tmp_path / "fingerprint.json").digest() == alone.digest()


def test_all_failures_come_together(tmp_path):
    good, other_grid, nan = (write_case(tmp_path, name) for name in ("good", "grid", "nan"))
    write_case(tmp_path, "small", shape=(10, 12, 13))
    (tmp_path / "small_label.nii.gz").replace(other_grid.label)
    broken = nibabel.Nifti1Image(np.full((10, 12, 14), np.nan, np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    nibabel.save(broken, nan.images[0])
    huge = write_case(tmp_path, "huge")
    far_beyond = np.full((10, 12, 14), 1e300)
    nibabel.save(nibabel.Nifti1Image(far_beyond, broken.affine), huge.images[0])
    truncated = write_case(tmp_path, "truncated")
    truncated.images[0].write_bytes(truncated.images[0].read_bytes()[:100])
    with pytest.raises(CasesFailedError) as caught:
        make_fingerprint(spec_of(tmp_path, good, other_grid, nan, huge, truncated))
    assert set(caught.value.failures) == {"grid", "nan", "huge", "truncated"}
    assert "NaN" in caught.value.failures["nan"]
    assert "beyond 3.4e38" in caught.value.failures["huge"]
    assert "shape" in caught.value.failures["grid"]


def test_channels_must_be_as_declared(tmp_path):
    case = write_case(tmp_path, "one")
    two = Case(id="two", images=case.images * 2, label=case.label)
    with pytest.raises(CasesFailedError, match="2 channels"):
        make_fingerprint(spec_of(tmp_path, two))


def test_a_dataset_without_foreground_or_labels_is_refused(tmp_path):
    empty = write_case(tmp_path, "empty", label=np.zeros((10, 12, 14), np.uint8))
    with pytest.raises(DatasetError, match="foreground"):
        make_fingerprint(spec_of(tmp_path, empty))
    with pytest.raises(DatasetError, match="label"):
        make_fingerprint(spec_of(tmp_path, Case(id="empty", images=empty.images)))


@pytest.mark.parametrize("connected", [True, False])
def test_whether_the_foreground_is_connected_in_all_cases(tmp_path, connected):
    label = np.zeros((10, 12, 14), np.uint8)
    label[3:5, 4:6, 5:7], label[5:7, 4:6, 5:7] = 1, 4
    label[7, 8, 9] = 0 if connected else 1
    cases = [write_case(tmp_path, f"case{number}", label=label) for number in range(FEWEST_CASES)]
    assert make_fingerprint(spec_of(tmp_path, *cases)).connected == connected
    assert not make_fingerprint(spec_of(tmp_path, *cases[1:])).connected
