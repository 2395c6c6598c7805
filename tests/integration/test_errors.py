"""Every mistake a user can make: one clear message, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest

from decathlete.cli.main import main
from decathlete.core.geometry import Geometry
from decathlete.io.images import write_volume
from decathlete.synthetic.phantoms import make_phantoms

if TYPE_CHECKING:
    from decathlete.inference.prediction import Prediction, PreparedInput

Run = Callable[..., str]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command that must fail as a user's mistake; returns what it said."""

    def run(*arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["decathlete", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert stop.value.code == 2, said.err
        assert "Traceback" not in said.err + said.out
        assert not list(tmp_path.rglob(".partial-*")), "something half-written is left"
        return said.err + said.out

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model for two channels, trained for one step."""
    from decathlete import PlanOptions, TrainConfig, Workspace, preprocess, train

    root = tmp_path_factory.mktemp("trained")
    dataset = make_phantoms(root / "data" / "Task01_Two", n_channels=2, n_cases=5, shape_ZYX=(16, 16, 16))
    workspace = Workspace(data=root / "data", prepared=root / "prepared", results=root / "results")
    small = ("patch_size=16,16,16", "network.features=4,8,8")
    preprocess(dataset, workspace=workspace, options=PlanOptions(overrides=small), workers=1)
    config = TrainConfig(epochs=1, steps_per_epoch=1, device="cpu", loggers=())
    return train(dataset, workspace=workspace, config=config, adapt=False).folder


def test_check_names_a_missing_folder(fails: Run) -> None:
    said = fails("check", "nowhere")
    assert said.startswith("error E-DATASET-NOT-FOUND: ")
    assert "nowhere" in said
    assert said.endswith("(documentation: docs/reference/errors.md#e-dataset-not-found)\n")


def test_check_names_a_missing_manifest(fails: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "dataset.json" in fails("check", tmp_path / "empty")


def test_check_reports_all_problems_together(fails: Run, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=4)
    _truncate(root / "imagesTr" / "phantom_000.nii.gz")
    _rewrite(root / "labelsTr" / "phantom_001.nii.gz", lambda a: a * 0.7)
    _rewrite(root / "labelsTr" / "phantom_002.nii.gz", lambda a: a[:, :, :-1])
    (root / "imagesTr" / "phantom_003.nii.gz").unlink()
    said = fails("check", root)
    for part in ("phantom_000", "truncated", "integer", "phantom_002", "shape", "does not exist"):
        assert part in said


def test_run_names_a_missing_model_to_start_from_before_it_prepares(fails: Run, tmp_path: Path) -> None:
    make_phantoms(tmp_path / "Balls", n_cases=2, shape_ZYX=(8, 8, 8))
    prepared = tmp_path / "prepared"
    options = [f"--prepared={prepared}", f"--results={tmp_path / 'results'}", "--device=cpu"]
    said = fails("run", tmp_path / "Balls", "--pretrained", tmp_path / "nothing", *options)
    assert "nothing" in said
    assert "E-MODEL-NOT-FOUND" in said
    assert not prepared.exists()


def test_preprocess_names_an_unknown_task(fails: Run, tmp_path: Path) -> None:
    said = fails("preprocess", "--task", "77", "--data", tmp_path)
    assert "77" in said
    assert not (tmp_path / "prepared").exists()


def test_preprocess_refuses_a_bad_dataset_and_prepares_nothing(fails: Run, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=4)
    _rewrite(root / "labelsTr" / "phantom_001.nii.gz", lambda a: a * 7)
    said = fails("preprocess", "--task", root)
    assert "phantom_001" in said
    assert "does not declare" in said
    assert not list((tmp_path / "prepared").rglob("*.b2nd"))


def test_preprocess_refuses_an_override_that_does_not_fit(fails: Run, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=4)
    assert "batch_size" in fails("preprocess", "--task", root, "--set", "batch_size=none")
    assert "colour" in fails("preprocess", "--task", root, "--set", "colour=blue")


def test_preprocess_names_an_output_that_cannot_be_written(fails: Run, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=4)
    (tmp_path / "file").write_text("in the way")
    assert "file" in fails("preprocess", "--task", root, "--prepared", tmp_path / "file")


def test_train_says_that_preprocessing_is_missing(fails: Run, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=4)
    assert "preprocess" in fails("train", "--task", root)
    assert not (tmp_path / "results").exists()


def test_train_refuses_two_budgets_and_bad_durations(fails: Run, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=4)
    assert "not both" in fails("train", "--task", root, "--epochs", 1, "--max-time", "1m")
    assert "duration" in fails("train", "--task", root, "--max-time", "soon")


def test_train_refuses_a_folder_that_holds_another_run(fails: Run, trained: Path) -> None:
    root = trained.parents[3]
    said = fails(
        "train", "--task", "1", "--epochs", 2, "--device", "cpu", "--data", root / "data",
        "--prepared", root / "prepared", "--results", root / "results",
    )  # fmt: skip
    assert "--overwrite" in said


def test_predict_names_a_wrong_model_path(fails: Run, tmp_path: Path) -> None:
    said = fails("predict", "--model", tmp_path / "mistyped", "--input", tmp_path, "--output", tmp_path / "out")
    assert "mistyped" in said
    assert not (tmp_path / "out").exists()


def test_predict_names_a_wrong_number_of_channels(fails: Run, trained: Path, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=1)
    said = fails("predict", "--model", trained, "--input", root / "imagesTr", "--output", tmp_path / "out")
    assert "2 channels" in said
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_predict_keeps_the_good_and_names_the_truncated(fails: Run, trained: Path, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=2, n_channels=2, shape_ZYX=(16, 16, 16))
    _truncate(root / "imagesTr" / "phantom_000.nii.gz")
    said = fails("predict", "--model", trained, "--input", root / "imagesTr", "--output", tmp_path / "out")
    assert "phantom_000" in said
    assert [p.name for p in (tmp_path / "out").glob("*.nii.gz")] == ["phantom_001.nii.gz"]


def test_predict_names_an_empty_input_and_a_bad_output(fails: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    assert "no images" in fails(
        "predict", "--model", trained, "--input", tmp_path / "empty", "--output", tmp_path / "o"
    )
    images = make_phantoms(tmp_path / "set", n_cases=1, n_channels=2) / "imagesTr"
    assert "file" in fails("predict", "--model", trained, "--input", images, "--output", tmp_path / "file")


def test_predict_refuses_a_damaged_model(fails: Run, trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained / "model", tmp_path / "model")
    _truncate(copy / "weights" / "3d_fold_0.safetensors")
    images = make_phantoms(tmp_path / "set", n_cases=1, n_channels=2) / "imagesTr"
    assert "3d_fold_0.safetensors" in fails("predict", "--model", copy, "--input", images, "--output", tmp_path / "out")


def test_validate_says_when_the_dataset_moved(fails: Run, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"dataset_root": "/gone"}))
    assert "--dataset" in fails("validate", "--model", run)
    assert "run.json" in fails("validate", "--model", tmp_path / "mistyped")


def test_validate_keeps_scores_of_the_same_and_refuses_others(
    fails: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decathlete.evaluation.scores import Scores
    from decathlete.inference.options import PredictOptions
    from decathlete.models.bundle import ModelBundle
    from decathlete.workflows.validate import validate

    run = shutil.copytree(trained, tmp_path / "run")
    data = shutil.copytree(trained.parents[3] / "data" / "Task01_Two", tmp_path / "Task01_Two")
    options = PredictOptions(device="cpu")
    first = validate(run, dataset_root=data, options=options)
    assert first.origin is not None
    assert first.origin.models == (ModelBundle.load(run / "model").digest,)
    before = _times(run)
    with monkeypatch.context() as patch:
        patch.setattr("decathlete.workflows.validate.score_held_out", lambda *_, **__: pytest.fail("scored again"))
        assert validate(run, dataset_root=data, options=options) == first
    del before[run / "scores.csv"]
    assert before.items() <= _times(run).items()

    ours = ("--model", run, "--dataset", data, "--device", "cpu")
    before = _times(run)
    assert "other scores (other metrics: nsd (tolerance_mm 1))" in fails("validate", *ours, "--tolerance", 2)
    assert "settings" in fails("validate", *ours, "--overlap", 0.25)
    _rewrite(next((data / "labelsTr").glob(f"{first.cases[0].case_id}.*")), lambda a: a[::-1])
    assert "other label maps" in fails("validate", *ours)
    assert _times(run) == before
    again = validate(run, dataset_root=data, options=options, overwrite=True)
    assert again.headline != first.headline
    assert Scores.load(run / "scores.json") == again

    (run / "scores.json").write_text(first.revised(origin=None).model_dump_json())
    assert "their origin is unknown" in fails("validate", *ours)
    (run / "scores.json").write_text("{")
    assert "damaged" in fails("validate", *ours)


def test_validate_names_what_the_model_has_not_learned(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from decathlete.inference.options import PredictOptions
    from decathlete.workflows.validate import validate

    run = shutil.copytree(trained, tmp_path / "run")
    data = shutil.copytree(trained.parents[3] / "data" / "Task01_Two", tmp_path / "Task01_Two")
    for path in (data / "labelsTr").iterdir():
        _rewrite(path, _keep_two_voxels)
    scores = validate(run, dataset_root=data, options=PredictOptions(device="cpu"))
    names = ", ".join(summary.name for summary in scores.classes)
    assert f"not learned: {names}: mean Dice below 0.1 in the held-out cases; train longer" in caplog.text


def _keep_two_voxels(label_XYZ: np.ndarray) -> np.ndarray:
    kept_XYZ = np.zeros_like(label_XYZ)
    kept_XYZ[0, 0, :2] = (1, 2)
    return kept_XYZ


def test_validate_refuses_scores_of_another_model(fails: Run, trained: Path, tmp_path: Path) -> None:
    from decathlete.inference.options import PredictOptions
    from decathlete.workflows.validate import validate

    run = shutil.copytree(trained, tmp_path / "run")
    validate(run, options=PredictOptions(device="cpu"))
    shutil.rmtree(run / "validation")
    shutil.rmtree(run / "model")
    shutil.copytree(run / "model_best", run / "model")
    assert "another model" in fails("validate", "--model", run, "--device", "cpu")
    assert not (run / "validation").exists()


def _times(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_evaluate_names_what_does_not_go_together(fails: Run, tmp_path: Path) -> None:
    labels = make_phantoms(tmp_path / "set", n_cases=2) / "labelsTr"
    preds = shutil.copytree(labels, tmp_path / "preds")
    _rewrite(preds / "phantom_000.nii.gz", lambda a: a[:, :, :-1])
    assert "phantom_000" in fails("evaluate", "--preds", preds, "--lbls", labels)
    (preds / "phantom_000.nii.gz").unlink()
    assert "phantom_000" in fails("evaluate", "--preds", preds, "--lbls", labels)
    (tmp_path / "empty").mkdir()
    assert "empty" in fails("evaluate", "--preds", tmp_path / "empty", "--lbls", labels)
    assert "nowhere" in fails("evaluate", "--preds", tmp_path / "nowhere", "--lbls", labels)


def test_evaluate_never_writes_over_other_scores_unasked(fails: Run, tmp_path: Path) -> None:
    labels = make_phantoms(tmp_path / "set", n_cases=2) / "labelsTr"
    command = ("evaluate", "--preds", labels, "--lbls", labels, "--output", tmp_path / "out")
    assert _status(*command) == 0
    before = (tmp_path / "out" / "scores.json").read_bytes()
    assert _status(*command) == 0, "the same again is no mistake"
    assert "--overwrite" in fails(*command, "--tolerance", 3)
    assert (tmp_path / "out" / "scores.json").read_bytes() == before
    assert _status(*command, "--tolerance", 3, "--overwrite") == 0
    nsd = json.loads((tmp_path / "out" / "scores.json").read_text())["metrics"][2]
    assert (nsd["name"], nsd["settings"]) == ("nsd", {"tolerance_mm": 3})


def test_a_terminal_without_arrows_is_no_error(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=2, n_test=1)
    next((root / "imagesTs").iterdir()).unlink()
    done = subprocess.run(
        [sys.executable, "-m", "decathlete", "check", root],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"does not exist" in done.stdout


def test_mistaken_inputs_of_every_kind_fail_alone_and_together_at_the_end(
    fails: Run, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "scans ü"
    folder.mkdir()
    good = make_phantoms(tmp_path / "set", n_cases=1, n_channels=2, shape_ZYX=(1, 16, 16)) / "imagesTr"
    shutil.copy(good / "phantom_000.nii.gz", folder / "one slice.nii.gz")
    (folder / "nothing.nii.gz").touch()
    (folder / "text.mha").write_text("hello")
    flat = nibabel.Nifti1Image(np.ones((4, 4, 4, 2), np.float32), None)
    flat.header["sform_code"], flat.header["srow_x"] = 1, np.nan
    nibabel.save(flat, folder / "nowhere.nii")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((30000, 30000, 30000, 2))
    (folder / "endless.nii").write_bytes(header.binaryblock + bytes(4))
    said = fails("predict", "--model", trained, "--device", "cpu", "--input", folder, "--output", tmp_path / "out ü")
    assert "could not predict 4 of 5 cases" in said
    for part in ("nothing.nii.gz", "text.mha", "endless.nii: ", "nothing.nii.gz: "):
        assert part in said
    assert "validation error" not in said, "a library's words are not the user's"
    assert sorted(p.name for p in (tmp_path / "out ü").iterdir()) == ["one slice.json", "one slice.nii.gz"]


def test_a_picture_given_for_a_scan_is_named(fails: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    for source in (tmp_path / "a.gif", tmp_path):
        said = fails("predict", "--model", trained, "--device", "cpu", "--input", source, "--output", tmp_path / "out")
        assert "a.gif" in said
        assert ".nii.gz" in said
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_cut_or_lacks_a_channel_is_named(fails: Run, trained: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    write_volume(folder / "a.png", np.zeros((1, 1, 16, 16), np.uint8), Geometry.pixels((1, 16, 16)))
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:8])
    for source, problems in (
        (folder / "b.png", ("b.png: is truncated",)),
        (folder, ("a: has 1 channel", "b.png: is truncated")),
    ):
        said = fails("predict", "--model", trained, "--device", "cpu", "--input", source, "--output", out)
        assert all(problem in said for problem in problems), said
        assert not list(out.iterdir())


@pytest.mark.parametrize("cases_before", [0, 2])
def test_ctrl_c_is_one_message_and_nothing_half_written(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cases_before: int,
) -> None:
    from decathlete.inference.predict import Predictor

    images = make_phantoms(tmp_path / "set", n_cases=4, n_channels=2, shape_ZYX=(16, 16, 16)) / "imagesTr"
    computed: list[object] = []
    compute = Predictor.compute

    def interrupted(self: Predictor, ready: PreparedInput, **options: Any) -> Prediction:
        computed.append(ready)
        if len(computed) == cases_before + 1:
            raise KeyboardInterrupt
        return compute(self, ready, **options)

    command = ["decathlete", "predict", "--model", trained, "--device", "cpu", "-i", images, "-o", tmp_path / "out"]
    command += ["--batch-size", "1"]  # images that share a batch are finished together
    monkeypatch.setattr("sys.argv", list(map(str, command)))
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "compute", interrupted)
        with pytest.raises(SystemExit) as stop:
            main()
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert said.count("interrupted") == 1
    assert "same command again" in said
    assert not list(tmp_path.rglob(".partial-*"))
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == cases_before, "what was finished is kept"
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 4


def _status(*command: object) -> int:
    return subprocess.run(
        [sys.executable, "-m", "decathlete", *map(str, command)], capture_output=True, check=False
    ).returncode


def test_report_names_a_folder_that_is_no_run(fails: Run, tmp_path: Path) -> None:
    assert "run.json" in fails("report", "--model", tmp_path)


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nibabel.load(path)
    array = change(np.asarray(image.dataobj).astype(np.float32))
    nibabel.save(nibabel.Nifti1Image(array, image.affine), path)


def test_a_manifest_cannot_lead_out_of_the_store(fails: Run, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", n_cases=4, layout="nnunet")
    manifest = json.loads((root / "dataset.json").read_text())
    entry = {"images": ["imagesTr/phantom_000_0000.nii.gz"], "label": "labelsTr/phantom_000.nii.gz"}
    (root / "dataset.json").write_text(json.dumps(manifest | {"dataset": {"../../victim": entry, "": entry}}))
    assert "cannot be a case's name" in fails("preprocess", "--task", root)
    assert not (tmp_path / "prepared").exists()


def test_nothing_is_written_into_a_raw_dataset(fails: Run, trained: Path, tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "data" / "Task05_Set", n_cases=4, n_channels=2)
    before = sorted(root.rglob("*"))
    assert "nothing is ever written" in fails("preprocess", "--task", "5", "--prepared", tmp_path / "data")
    said = fails(
        "predict", "--model", trained, "--input", root / "imagesTr", "--output", root / "labelsTr", "--overwrite"
    )
    assert "nothing is ever written" in said
    assert sorted(root.rglob("*")) == before


def test_another_split_of_prepared_cases_is_refused(fails: Run, tmp_path: Path) -> None:
    from decathlete import PlanOptions, Workspace, preprocess

    root = make_phantoms(tmp_path / "set", n_cases=6, shape_ZYX=(16, 16, 16))
    workspace = Workspace(prepared=tmp_path / "prepared")
    splits = preprocess(root, workspace=workspace, options=PlanOptions(n_folds=3), workers=1).splits
    assert "other folds" in fails("preprocess", "--task", root)
    reused = preprocess(root, workspace=workspace, workers=1, reuse=True)
    assert reused.splits == splits, "`run` uses what `preprocess` made"
    random_split = PlanOptions(n_folds=3, split_seed=1)
    assert (
        preprocess(root, workspace=workspace, options=random_split, workers=1, overwrite=True).splits.folds
        != splits.folds
    )
