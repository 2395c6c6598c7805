"""Made-up data are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decathlete.dataset.manifest import read_dataset
from decathlete.io.images import read_channels, read_label
from decathlete.synthetic.phantoms import make_phantoms


@pytest.mark.parametrize("shape", [(24, 28, 20), (1, 16, 16), (3, 40, 12)])
def test_every_class_is_in_every_case_and_bright_in_its_order(tmp_path: Path, shape) -> None:
    spec = read_dataset(make_phantoms(tmp_path, n_cases=4, n_classes=3, shape_ZYX=shape, spacing_ZYX=(5, 1, 0.5)))
    for case in spec.cases:
        image, label = read_channels(case.images), read_label(case.label)
        assert image.geometry.spacing_ZYX == pytest.approx((5, 1, 0.5))
        means = [image.array_CZYX[0][label.array_ZYX == k].mean() for k in range(4)]
        assert np.all(np.diff(means) > 50)


def test_oblique_cases_differ_and_repeat(tmp_path: Path) -> None:
    specs = [read_dataset(make_phantoms(tmp_path / n, n_cases=2, oblique=True)) for n in "ab"]
    geometries = [[read_channels(c.images).geometry for c in s.cases] for s in specs]
    assert geometries[0] == geometries[1]
    assert geometries[0][0].differences(geometries[0][1])
    assert np.abs(geometries[0][0].direction).max() < 1


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats(tmp_path: Path, suffix) -> None:
    spec = read_dataset(make_phantoms(tmp_path, n_cases=2, layout="nnunet", suffix=suffix, channel="CT"))
    assert spec.channels == ("CT",)
    assert read_channels(spec.cases[0].images).array_CZYX.shape == (1, 24, 28, 20)
