"""A model that nnU-Net v2 planned, trained and predicted with, imported: the same predictions end to end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.inference.predict import Predictor
from decathlete.interop.nnunet import import_nnunet
from decathlete.io.images import read_label, write_image, write_label

SCRIPT = Path(__file__).parent / "peers" / "train_nnunet.py"
SPACING = (2.4, 1.0, 1.3)
NEARLY_EQUAL = 0.05
"""Of two logits. nnU-Net sums them in float16, whose steps are 0.016 from 16 on."""


def _make_dataset(folder: Path) -> None:
    """Two nested ellipsoids in noise, 0 in a margin; each case with another spacing and size."""
    rng = np.random.default_rng(0)
    for part, n in (("Tr", 5), ("Ts", 2)):
        for number in range(n):
            shape = tuple(int(s) for s in rng.integers((14, 26, 28), (20, 36, 38)))
            spacing = tuple(float(s * f) for s, f in zip(SPACING, rng.uniform(0.8, 1.25, 3), strict=True))
            grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, s) for s in shape], indexing="ij"))
            radius = np.sqrt(((grid - rng.uniform(-0.2, 0.2, (3, 1, 1, 1))) ** 2).sum(0))
            label = (radius < 0.75).astype(np.uint8) + (radius < 0.4)
            image = np.array([60, 110, 160])[label] + rng.normal(0, 8, shape)
            image[:, :3], label[:, :3] = 0, 0
            geometry = Geometry.plain(shape, spacing_ZYX=spacing)
            write_image(folder / f"images{part}" / f"case{number}_0000.nii.gz", image[None], geometry)
            if part == "Tr":
                write_label(folder / "labelsTr" / f"case{number}.nii.gz", label, geometry)
    manifest = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "outer": 1, "inner": 2},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(manifest))


@pytest.mark.full
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_a_model_of_nnunets_own_training_predicts_the_same(configuration: str, peers: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "Dataset999_Phantom"
    _make_dataset(raw)
    done = subprocess.run(
        [peers, SCRIPT, tmp_path, configuration], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made = import_nnunet(tmp_path / "results", tmp_path / "model")
    assert made.notes == ()
    for end, mirrored in (("", False), ("_mirrored", True)):
        predictor = Predictor.load(tmp_path / "model", device="cpu", precision="fp32", tta=mirrored)
        for path in sorted((raw / "imagesTs").iterdir()):
            prediction = predictor.predict(path, probabilities=True)
            ours, probabilities_KZYX = prediction.label_ZYX, prediction.probabilities_KZYX
            theirs = read_label(tmp_path / f"predicted{end}" / f"{path.name[:-12]}.nii.gz").array_ZYX
            assert set(np.unique(theirs)) == {0, 1, 2}
            second_ZYX, first_ZYX = np.sort(probabilities_KZYX, axis=0)[-2:]
            decided = first_ZYX > np.exp(NEARLY_EQUAL) * second_ZYX
            assert decided.mean() > 0.99
            np.testing.assert_array_equal(ours[decided], theirs[decided])
