"""``run --folds`` on a phantom: a fold that fails does not cost the others, and what is finished is kept."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

import decathlete
from decathlete import PlanOptions, TrainConfig, Workspace
from decathlete.cli.main import main
from decathlete.errors import OptionError, OutputError
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.scores import Scores
from decathlete.inference.output.provenance import PredictionRecord
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.fold import PipelineOptions
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.selection.configurations import find_configurations


@dataclass(frozen=True)
class CommandResult:
    code: object
    out: str
    err: str


@dataclass(frozen=True)
class Story:
    """A cross-validation whose fold 0 could not be written, and the same command again when it could."""

    folder: Path
    broken: CommandResult
    summary_of_broken: CrossValidation
    predictions_of_broken: list[Path]
    fixed: CommandResult
    kept: bool


def _command(root: Path, *options: str) -> CommandResult:
    places = [f"--{name}={root / name}" for name in ("data", "prepared", "results")]
    training = "--epochs 1 --steps-per-epoch 2 --device cpu --n-folds 2 --set network.features=8,16,32 --workers 1"
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["decathlete", "run", "7", *training.split(), *places, *options])
        with pytest.raises(SystemExit) as stop:
            main()
    return CommandResult(stop.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("folds")
    make_phantoms(root / "data" / "Task07_Balls", n_cases=3, n_test=1, shape_ZYX=(16, 16, 16), noise=0.2)
    folder = root / "results" / "Task07_Balls" / "3d"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_0" / "run.json").write_text("{")
    broken = _command(root, "--folds", "0-1")
    summary = CrossValidation.load(folder / "cross_validation.json")
    predictions = list(folder.glob("predictions*"))
    weights = folder / "fold_1" / "model" / "weights" / "3d_fold_1.safetensors"
    before = weights.stat().st_mtime_ns
    (folder / "fold_0" / "run.json").unlink()
    fixed = _command(root, "--folds", "0-")
    return Story(folder, broken, summary, predictions, fixed, weights.stat().st_mtime_ns == before)


def test_a_fold_that_fails_is_named_and_does_not_cost_the_others(story: Story) -> None:
    assert story.broken.code == 2
    assert "1 of 2 folds failed" in story.broken.err
    assert "fold 0: " in story.broken.err
    assert "Traceback" not in story.broken.err
    assert "· 1 fold of 2 ·" in story.broken.out.rstrip().splitlines()[-1]
    assert [f.fold for f in story.summary_of_broken.folds] == [1]
    assert list(story.summary_of_broken.failed) == [0]
    assert story.predictions_of_broken == [], "not by some of the models that were asked for"


def test_the_same_command_again_does_what_is_missing_and_keeps_the_rest(story: Story) -> None:
    assert story.fixed.code in (0, None)
    assert story.kept
    scores = CrossValidation.load(story.folder / "cross_validation.json")
    of_folds = [Scores.load(story.folder / f"fold_{k}" / "scores.json") for k in range(2)]
    assert scores.failed == {}
    assert scores.pooled.cases == tuple(sorted((c for s in of_folds for c in s.cases), key=lambda c: c.case_id))
    assert [c.case_id for c in scores.pooled.cases] == [f"phantom_{i:03}" for i in range(3)]
    assert scores.overall.dice is not None
    assert scores.overall.dice.mean == pytest.approx(sum(s.headline.dice for s in of_folds) / 2)
    assert story.fixed.out.rstrip().splitlines()[-1] == scores.headline_line()
    assert scores.table() in story.fixed.out
    for name in ("cross_validation.html", "cross_validation.csv", "fold_0/report.html", "fold_1/report.html"):
        assert (story.folder / name).is_file()


def test_test_images_are_predicted_by_all_the_folds_models_together(story: Story) -> None:
    record = json.loads((story.folder / "predictions_folds_0-1" / "phantom_003.json").read_text())
    digests = {model["digest"] for model in record["settings"]["models"]}
    origins = [f.origin for f in CrossValidation.load(story.folder / "cross_validation.json").folds]
    assert digests == {digest for origin in origins if origin for digest in origin.models}
    assert len(digests) == 2
    assert not (story.folder / "fold_0" / "predictions").exists()


def test_folds_that_were_trained_again_alone_predict_again(story: Story) -> None:
    folder, root = story.folder / "predictions_folds_0-1", story.folder.parents[2]
    before = PredictionRecord.load(folder / "phantom_003.json").settings.models
    first = _command(root, "--fold", "1", "--seed", "7", "--overwrite")
    assert first.code in (0, None), first.err
    other = _command(root, "--folds", "0-1")
    assert other.code == 2
    assert "different settings or data: 3d fold 1: seed: 7 -> 1" in " ".join(other.err.split())
    assert "Train fold 0" not in other.err, "it is said at the start"
    for options in (["--fold", "0", "--overwrite"], ["--folds", "0-1"]):
        said = _command(root, *options, "--seed", "7")
        assert said.code in (0, None), said.err
    after = PredictionRecord.load(folder / "phantom_003.json").settings.models
    assert not {model.digest for model in before} & {model.digest for model in after}


def test_label_maps_that_the_user_has_changed_are_not_replaced(story: Story) -> None:
    label = story.folder / "predictions_folds_0-1" / "phantom_003.nii.gz"
    predicted = label.read_bytes()
    label.write_bytes(b"corrected")
    seed = RunRecord.load(story.folder / "fold_0" / "run.json").config.seed
    said = _command(story.folder.parents[2], "--folds", "0-1", "--seed", str(seed))
    text = " ".join(said.err.split())
    assert said.code == 2
    assert "were changed after their prediction, or are no predictions: phantom_003.nii.gz" in text
    assert "Train fold" not in text
    assert label.read_bytes() == b"corrected"
    label.write_bytes(predicted)


class Steps(ProgressReporter):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def step(self, title: str) -> None:
        self.heard.append(title)


def test_time_is_for_each_fold_and_what_every_fold_fails_by_is_said_once(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "Balls", n_cases=2, shape_ZYX=(12, 14, 12))
    workspace = decathlete.Workspace(prepared=tmp_path / "prepared", results=tmp_path / "results")
    config, steps = decathlete.TrainConfig(max_time_s=1200, device="cuda:99"), Steps()
    with pytest.raises(decathlete.DecathleteError, match="cuda") as failed:
        decathlete.cross_validate(root, workspace=workspace, config=config, adapt=False, workers=1, reporter=steps)
    assert "folds failed" not in str(failed.value)
    assert "Folds 0-1, one after the other: each trains for 20 min 0 s, together 40 min 0 s" in steps.heard
    assert not list(tmp_path.glob("results/**/cross_validation.*"))


def test_fold_and_folds_contradict_each_other(tmp_path: Path) -> None:
    said = _command(tmp_path, "--fold", "1", "--folds", "0-1")
    assert said.code == 2
    assert "--fold and --folds exclude each other" in said.err


@pytest.mark.full
def test_five_folds_score_every_case_once(tmp_path: Path) -> None:
    make_phantoms(tmp_path / "data" / "Task07_Balls", n_cases=5, shape_ZYX=(16, 16, 16), noise=0.2)
    said = _command(tmp_path, "--folds", "0-4", "--n-folds", "5")
    assert said.code == 0, said.err
    folder = tmp_path / "results" / "Task07_Balls" / "3d"
    scored = [case.case_id for k in range(5) for case in Scores.load(folder / f"fold_{k}" / "scores.json").cases]
    assert sorted(scored) == sorted(set(scored))
    assert len(scored) == 5
    assert "over 5 folds" in said.out


def test_a_given_fold_that_holds_out_no_case_gets_no_scores(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "Balls", n_cases=2, shape_ZYX=(12, 12, 12), noise=0.2)
    ids = ["phantom_000", "phantom_001"]
    folds = [{"train": ids[:1], "val": ids[1:]}, {"train": ids, "val": []}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    options: PipelineOptions = {
        "configuration": "2d",
        "workspace": Workspace(prepared=tmp_path / "prepared", results=tmp_path / "results"),
        "plan_options": PlanOptions(filters=(4, 8)),
        "config": TrainConfig(epochs=1, steps_per_epoch=1, device="cpu"),
        "adapt": False,
        "workers": 1,
    }
    found = decathlete.cross_validate(root, folds="0-1", **options)
    assert (found.failed_folds, sorted(found.folds), [fold.fold for fold in found.scores.folds]) == (None, [0, 1], [0])
    alone = decathlete.run(root, fold=1, **options)
    assert alone.headline_line() == "the fold holds out no case, so there are no scores"
    assert "In fold 1, no case is held out, so there are no scores" in alone.report.read_text()
    (trained,) = find_configurations([tmp_path / "results" / "Balls"])
    assert list(trained.folds) == [0], "the folds by which a selection compares"
    for command in (decathlete.cross_validate, decathlete.run_configurations):
        own = {key: value for key, value in options.items() if key != "configuration"}
        with pytest.raises(OptionError, match=r"fold 1 holds out no case \(splits_final.json\)"):
            command(root, folds="1", **(options if command is decathlete.cross_validate else own))


def test_a_command_with_another_plan_leaves_the_plan_of_runs_as_it_is(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "Balls", n_cases=2, shape_ZYX=(12, 12, 12), noise=0.2)
    options: PipelineOptions = {
        "configuration": "2d",
        "workspace": Workspace(prepared=tmp_path / "prepared", results=tmp_path / "results"),
        "config": TrainConfig(epochs=1, steps_per_epoch=1, device="cpu"),
        "adapt": False,
        "workers": 1,
    }
    plan = tmp_path / "prepared" / "Balls" / "2d" / "plan.json"
    first = decathlete.run(root, plan_options=PlanOptions(filters=(4, 8)), **options)
    before = plan.read_text()
    other: PipelineOptions = {**options, "plan_options": PlanOptions(filters=(4, 6))}
    message = r"runs that were made with different settings: fold_0: another plan \(network\)"
    for fold in (0, 1, "all"):
        with pytest.raises(OutputError, match=message):
            decathlete.run(root, fold=fold, **other)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=message):
        decathlete.cross_validate(root, **other)
    assert plan.read_text() == before
    resumed = decathlete.cross_validate(root, **options)
    assert resumed.folds[0].scores == first.scores, "the command without options resumes"
    decathlete.run(root, overwrite=True, **other)
    assert plan.read_text() != before
