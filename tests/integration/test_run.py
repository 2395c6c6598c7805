"""``run`` on a phantom: the whole road, twice, and the functions behind it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import decathlete
from decathlete.cli.main import main
from decathlete.dataset.images import read_label
from decathlete.dataset.phantoms import make_phantoms


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> decathlete.Workspace:
    root = tmp_path_factory.mktemp("run")
    make_phantoms(root / "data" / "Task07_Balls", n_cases=6, n_test=2, shape_ZYX=(18, 20, 16), oblique=True, noise=0.2)
    return decathlete.Workspace(data=root / "data", prepared=root / "prepared", results=root / "results")


def _arguments(workspace: decathlete.Workspace, dim: int) -> list[str]:
    roots = ["--data", workspace.data, "--prepared", workspace.prepared, "--results", workspace.results]
    features = "8,16,32"
    return ["decathlete", "run", "7", "--dim", str(dim), "--epochs", "2", *map(str, roots), "--device", "cpu",
            "--set", f"network.features={features}", "--steps-per-epoch", "40"]  # fmt: skip


@pytest.mark.parametrize("dim", [3, 2])
def test_run_learns_scores_reports_and_predicts(
    workspace: decathlete.Workspace, dim: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", _arguments(workspace, dim))
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().out
    assert stop.value.code in (0, None)
    folder = workspace.run_folder("7", 2 if dim == 2 else 3, 0)
    headline = json.loads((folder / "scores.json").read_text())["headline"]
    assert said.rstrip().splitlines()[-1].startswith(f"mean Dice {headline['dice']:.3f}")
    assert headline["dice"] > 0.6, "two bright balls in noise are learned in 80 steps"
    assert (folder / "report.html").stat().st_size > 10_000
    images = sorted((workspace.data / "Task07_Balls" / "imagesTs").glob("*.nii.gz"))
    for image in images:
        prediction = read_label(folder / "predictions" / image.name)
        expected = decathlete.read_dataset(workspace.data / "Task07_Balls")
        assert expected.labels.undeclared(prediction.array_ZYX) == []
        from decathlete.dataset.images import read_grid

        assert prediction.geometry == read_grid(image)[1]


def test_a_second_run_keeps_everything(
    workspace: decathlete.Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace.run_folder("7", 3, 0)
    if not (folder / "scores.json").is_file():
        pytest.skip("needs the run before it")
    kept = [folder / "model" / "weights.safetensors", *sorted((folder / "validation").glob("*.nii.gz"))]
    before = [p.stat().st_mtime_ns for p in kept]
    monkeypatch.setattr("sys.argv", _arguments(workspace, 3))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)
    assert [p.stat().st_mtime_ns for p in kept] == before


def test_a_predictor_serves_arrays(workspace: decathlete.Workspace) -> None:
    folder = workspace.run_folder("7", 3, 0)
    if not (folder / "model").is_dir():
        pytest.skip("needs the run before it")
    predictor = decathlete.Predictor.load(folder, device="cpu")
    image_ZYX = np.random.default_rng(0).normal(100, 10, (9, 20, 16)).astype(np.float32)
    prediction = predictor.predict(image_ZYX, spacing=(2.0, 1.0, 1.0))
    assert prediction.label_ZYX.shape == image_ZYX.shape
    assert set(prediction.volumes_ml) == {"ball 1", "ball 2"}
