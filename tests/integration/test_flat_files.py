"""A dataset whose files are pictures of single slices: two axes, a 2D model, and predictions of two axes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from decathlete.cli.main import main
from decathlete.synthetic.phantoms import make_phantoms

SHAPE = (40, 32)
"""Of the files, x and y."""


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["decathlete", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    root = make_phantoms(tmp_path / "data" / "Task05_Slices", n_cases=5, n_test=1, shape_ZYX=(1, 32, 40), noise=0.2)
    for path in sorted(root.rglob("*.nii.gz")):
        stored: Any = nibabel.load(path)
        flat = np.asarray(stored.dataobj)[:, :, 0]
        nibabel.save(nibabel.Nifti1Image(flat, stored.affine), path)
    return root


def test_slices_of_two_axes_are_learned_and_predicted_as_they_came(root, monkeypatch, capsys):
    assert call(monkeypatch, "check", root) == 0
    train = ["--epochs", 2, "--steps-per-epoch", 30, "--filters", "8,16,32", "--device", "cpu"]
    assert call(monkeypatch, "run", "5", "--dim", 2, *train) == 0
    run = Path("results/Task05_Slices/2d/fold_0")
    scores = json.loads((run / "scores.json").read_text())
    assert scores["headline"]["values"]["dice"] > 0.6, "two bright blobs in noise are learned in 60 steps"
    (image,) = (root / "imagesTs").glob("*.nii.gz")
    before, after = (nibabel.load(path) for path in (image, run / "predictions" / image.name))
    assert before.shape == after.shape == SHAPE
    assert np.array_equal(before.affine, after.affine)
    assert "<svg" in (run / "report.html").read_text()
    truths = Path("truths")
    truths.mkdir()
    for path in (run / "validation").glob("*.nii.gz"):
        (truths / path.name).write_bytes((root / "labelsTr" / path.name).read_bytes())
    assert call(monkeypatch, "evaluate", "--preds", run / "validation", "--lbls", truths, "--output", "scored") == 0
    again = json.loads(Path("scored/scores.json").read_text())
    assert again["headline"]["values"]["dice"] == pytest.approx(scores["headline"]["values"]["dice"])


def test_a_model_of_volumes_is_refused_with_the_remedy(root, monkeypatch, capsys):
    assert call(monkeypatch, "run", "5", "--epochs", 1, "--device", "cpu") == 2
    said = capsys.readouterr().err
    assert "single slices" in said
    assert "--dim 2" in said
    assert not Path("prepared/Task05_Slices/3d").exists()
