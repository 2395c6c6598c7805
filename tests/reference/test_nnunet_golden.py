"""Models of nnU-Net v2, imported: our prediction against nnU-Net's own, stored (``golden/make_nnunet.py``)."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from decathlete.inference.predict import Predictor
from decathlete.interop.nnunet import import_nnunet

GOLDEN = Path(__file__).parent / "golden" / "nnunet"
CASES = sorted(path.name for path in GOLDEN.iterdir())
LEAST_DICE = 0.999


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    for case in CASES:
        import_nnunet(GOLDEN / case, folder / case)
    return folder


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_predictions_are_those_of_nnunet(case: str, mirrored: bool, bundles: Path) -> None:
    predictor = Predictor.load(bundles / case, device="cpu", precision="fp32", tta=mirrored)
    ours = predictor.predict(sorted((GOLDEN / case / "images").iterdir())).label_ZYX
    theirs = np.asarray(nibabel.load(GOLDEN / case / f"expected{'_mirrored' * mirrored}.nii.gz").dataobj).T
    assert len(np.unique(theirs)) > 2  # something was learned
    for value in np.union1d(ours, theirs)[1:]:
        a, b = ours == value, theirs == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= LEAST_DICE


def test_the_two_predictions_of_nnunet_differ() -> None:
    """Else the comparison would not tell whether mirroring is right."""
    for case in set(CASES) - {"residual_2d_batch_norm"}:  # it allows no mirroring
        plain, mirrored = (GOLDEN / case / f"expected{end}.nii.gz" for end in ("", "_mirrored"))
        assert (nibabel.load(plain).get_fdata() != nibabel.load(mirrored).get_fdata()).any()
