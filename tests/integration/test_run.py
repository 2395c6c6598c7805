"""``run`` on a phantom: all steps, from raw files to scores, a report and predictions."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import decathlete
from decathlete.cli.main import main
from decathlete.io.images import read_grid, read_image, read_label, write_image
from decathlete.synthetic.phantoms import make_phantoms


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


def _run(workspace: decathlete.Workspace, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", _arguments(workspace, dim))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)


def test_run_in_3d_learns_scores_reports_predicts_and_goes_on(
    workspace: decathlete.Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(workspace, 3, monkeypatch)
    folder = workspace.run_folder("7", 3, 0)
    _expect_results(workspace, folder, capsys.readouterr().out)
    kept = [folder / "model" / "weights" / "3d_fold_0.safetensors", *sorted((folder / "validation").glob("*.nii.gz"))]
    before = [p.stat().st_mtime_ns for p in kept]
    _run(workspace, 3, monkeypatch)
    assert [p.stat().st_mtime_ns for p in kept] == before, "a second run keeps what the first finished"

    image_ZYX = np.random.default_rng(0).normal(100, 10, (9, 20, 16)).astype(np.float32)
    prediction = decathlete.Predictor.load(folder, device="cpu").predict(image_ZYX, spacing=(2.0, 1.0, 1.0))
    assert prediction.label_ZYX.shape == image_ZYX.shape
    assert list(prediction.volumes_ml) == _class_names(workspace)


def test_run_in_2d_learns_scores_reports_and_predicts(
    workspace: decathlete.Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(workspace, 2, monkeypatch)
    _expect_results(workspace, workspace.run_folder("7", 2, 0), capsys.readouterr().out)


def test_bad_test_images_cost_only_their_own_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_phantoms(tmp_path / "data" / "Task07_Balls", n_cases=5, n_test=3, shape_ZYX=(16, 16, 16))
    truncated, wide, _ = sorted((root / "imagesTs").glob("*.nii.gz"))
    truncated.write_bytes(truncated.read_bytes()[:500])
    image = read_image(wide)
    write_image(wide, np.concatenate([image.array_CZYX] * 2), image.geometry)
    workspace = decathlete.Workspace(data=root.parent, prepared=tmp_path / "prepared", results=tmp_path / "results")
    monkeypatch.setattr("sys.argv", [*_arguments(workspace, 3)[:-1], "1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "could not predict 2 of 3 cases" in said.err
    for name, why in (("phantom_005", "truncated"), ("phantom_006", "2 channels")):
        assert said.err.count(f"  {name}: ") == 1
        assert why in said.err
    assert "Traceback" not in said.err
    assert said.out.rstrip().splitlines()[-1].startswith("mean Dice")
    folder = workspace.run_folder("7", 3, 0)
    assert (folder / "report.html").is_file()
    assert [p.name for p in (folder / "predictions").glob("*.nii.gz")] == ["phantom_007.nii.gz"]


def test_on_every_case_there_is_a_model_a_report_and_predictions_but_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_phantoms(tmp_path / "data" / "Task07_Balls", n_cases=3, n_test=1, shape_ZYX=(16, 16, 16))
    workspace = decathlete.Workspace(data=root.parent, prepared=tmp_path / "prepared", results=tmp_path / "results")
    arguments = [*_arguments(workspace, 3)[:-1], "2", "--fold", "all"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith("trained on every case: none is held out")
    folder = workspace.run_folder("7", 3, "all")
    assert json.loads((folder / "run.json").read_text())["train"] == [f"phantom_{i:03}" for i in range(3)]
    assert not (folder / "scores.json").exists()
    report = (folder / "report.html").read_text()
    assert report.count("The model was trained on every case") == 1
    assert "does not exist" not in report
    assert [p.name for p in (folder / "predictions").glob("*.nii.gz")] == ["phantom_003.nii.gz"]


def test_the_readmes_script_does_what_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's Python lines as they stand, with their paths and a length that a test can wait for."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    root = make_phantoms(tmp_path / "MY_DATASET", n_cases=4, shape_ZYX=(12, 14, 12))
    (tmp_path / "scans").mkdir()
    shutil.copy(sorted((root / "imagesTr").glob("*.nii.gz"))[0], tmp_path / "scans" / "patient7.nii.gz")
    assert "max_time_s=1200" in script
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(script.replace("max_time_s=1200", "epochs=1, steps_per_epoch=2, device='cpu', loggers=()"), names)
    assert names["result"].report.is_file()
    assert names["prediction"].label_ZYX.shape == (12, 14, 12)


def _class_names(workspace: decathlete.Workspace) -> list[str]:
    return [c.name for c in decathlete.read_dataset(workspace.dataset("7")).labels.foreground]


def _expect_results(workspace: decathlete.Workspace, folder: Path, said: str) -> None:
    headline = json.loads((folder / "scores.json").read_text())["headline"]
    assert said.rstrip().splitlines()[-1].startswith(f"mean Dice {headline['values']['dice']:.3f}")
    assert headline["values"]["dice"] > 0.6, "two bright blobs in noise are learned in 80 steps"
    assert (folder / "report.html").stat().st_size > 10_000
    images = sorted((workspace.dataset("7") / "imagesTs").glob("*.nii.gz"))
    assert len(images) == 2
    for image in images:
        prediction = read_label(folder / "predictions" / image.name)
        assert decathlete.read_dataset(workspace.dataset("7")).labels.find_undeclared_values(prediction.array_ZYX) == []
        assert prediction.geometry == read_grid(image)[1]
