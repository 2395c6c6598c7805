"""A cascade: the second stage sees the cross-validated prediction of the first, and both are one model."""

from __future__ import annotations

import numpy as np
import pytest

import decathlete
from decathlete.errors import ModelError, OptionError
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_image, read_label
from decathlete.models.bundle import ModelBundle
from decathlete.models.combine import combine_bundles
from decathlete.planning.options import PlanOptions
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.previous_stage import structure_masks
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows.fold import PipelineOptions
from decathlete.workflows.preprocess import preprocess
from decathlete.workflows.workspace import Workspace

CONFIG = TrainConfig(epochs=1, steps_per_epoch=3, device="cpu", val_cases=1)
PLAN = PlanOptions(overrides=("patch_size=16,16,16", "batch_size=2", "keep_largest=true"), filters=(4, 8, 8), n_folds=2)
"""The first stage keeps its largest component: so must the masks that the second stage sees."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    root = tmp_path_factory.mktemp("cascade")
    make_phantoms(root / "data" / "Big", n_cases=4, n_test=1, shape_ZYX=(36, 40, 36))
    return Workspace(data=root / "data", prepared=root / "prepared", results=root / "results")


@pytest.fixture(scope="module")
def options(workspace) -> PipelineOptions:
    return {"workspace": workspace, "plan_options": PLAN, "config": CONFIG, "workers": 1}


@pytest.fixture(scope="module")
def first_stage(options):
    return decathlete.cross_validate("Big", configuration="3d_lowres", **options)


@pytest.fixture(scope="module")
def cascade(options, first_stage):
    return decathlete.run("Big", configuration="3d_cascade", fold=1, **options)


def test_without_the_first_stage_it_is_said_what_to_run(tmp_path, workspace, options):
    elsewhere = Workspace(data=workspace.data, prepared=tmp_path / "prepared", results=tmp_path / "results")
    with pytest.raises(ModelError, match="and none was trained") as problem:
        decathlete.run("Big", configuration="3d_cascade", **{**options, "workspace": elsewhere})
    assert problem.value.code == "E-MODEL-STAGE"
    assert "--configuration 3d_lowres --folds 0-" in problem.value.remedy
    assert not elsewhere.prepared.exists(), "said before any work"
    with pytest.raises(ModelError, match="fold 0-1 of 2 is not finished") as problem:
        decathlete.preprocess("Big", configuration="3d_cascade", options=PLAN, workspace=elsewhere, workers=1)
    assert "--configuration 3d_lowres --folds 0-" in problem.value.remedy


def test_the_stages_are_planned_as_such(workspace, first_stage, cascade):
    low = ModelBundle.load(first_stage.folder / "fold_0").record.plan
    record = ModelBundle.load(cascade.folder).record
    first, second = record.members
    assert (first.name, second.previous_stage, record.outputs) == ("3d_lowres", "3d_lowres", (second,))
    assert first.plan == ModelBundle.load(first_stage.folder / "fold_1").record.plan
    assert min(low.network_spacing) > max(second.plan.network_spacing)
    assert second.plan.network.in_channels == 1 + len(record.labels.structures)
    assert cascade.folder == workspace.results / "Big" / "3d_cascade" / "fold_1"


def test_it_is_trained_on_predictions_of_models_that_did_not_see_the_case(workspace, cascade):
    store = PreparedStore.open(workspace.prepared_folder("Big", "3d_cascade"))
    for fold, cases in enumerate(store.splits.folds):
        for case_id in cases.val:
            label = read_label(workspace.run_folder("Big", "3d_lowres", fold) / "validation" / f"{case_id}.nii.gz")
            case = store.case(case_id)
            masks = structure_masks(label.array_ZYX, store.plan, case.restoration)
            np.testing.assert_array_equal(case.read_image()[1:], masks)


def test_prepared_data_keep_their_plan_and_folds_where_no_option_requests_others(workspace, cascade):
    before = PreparedStore.open(workspace.prepared_folder("Big", "3d_cascade"))
    written = (before.folder / "cases" / before.case_ids[0] / "case.json").stat().st_mtime_ns
    after = preprocess("Big", configuration="3d_cascade", workspace=workspace, workers=1, reuse=True)
    assert (after.plan, after.splits) == (before.plan, before.splits)
    assert (after.folder / "cases" / before.case_ids[0] / "case.json").stat().st_mtime_ns == written


def test_prediction_runs_both_stages(workspace, first_stage, cascade):
    (image,) = (workspace.data / "Big" / "imagesTs").glob("*.nii.gz")
    first = Predictor.load(first_stage.folder / "fold_1").predict(image).label_ZYX
    predictor = Predictor.load(cascade.folder)
    (ensemble,) = predictor.ensembles
    case = prepare(read_image(image), ensemble.plan)
    masks = structure_masks(first, ensemble.plan, case.restoration)
    seen = []

    class Recorder:
        def __init__(self, engine):
            self.engine = engine

        def __getattr__(self, name):
            return getattr(self.engine, name)

        def __call__(self, windows):
            seen.append(windows.numpy().copy())
            return self.engine(windows)

    object.__setattr__(ensemble, "engines", tuple(Recorder(engine) for engine in ensemble.engines))
    found = predictor.predict(image)
    (expected,) = cascade.predictions.glob("*.nii.gz")
    np.testing.assert_array_equal(found.label_ZYX, read_label(expected).array_ZYX)
    assert max(window[:, 1:].max() for window in seen) == masks.max()
    first_window = seen[0][0]
    z, y, x = first_window.shape[1:]
    np.testing.assert_array_equal(first_window[1:], masks[:, :z, :y, :x])


def test_it_is_scored_on_the_prepared_grid_too(cascade):
    scores = decathlete.validate(cascade.folder, grid="prepared", workers=1)
    assert len(scores.cases) == 2


def test_folds_of_a_cascade_are_one_model(options, cascade, workspace, tmp_path):
    other = decathlete.run("Big", configuration="3d_cascade", fold=0, **options)
    combined = combine_bundles([other.folder, cascade.folder], tmp_path / "both")
    assert [m.name for m in combined.record.members if m.previous_stage is None] == ["3d_lowres", "3d_lowres-2"]
    (image,) = (workspace.data / "Big" / "imagesTs").glob("*.nii.gz")
    one = Predictor.load(combined.folder).predict(image).label_ZYX
    several = Predictor.load([other.folder, cascade.folder]).predict(image).label_ZYX
    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("exporter", ["onnx", "openvino"])
def test_exported_programs_are_of_both_stages(exporter, cascade, workspace, tmp_path):
    pytest.importorskip({"onnx": "onnxruntime"}.get(exporter, exporter))
    program = decathlete.export_model(exporter, cascade.folder, tmp_path / "program")
    assert program.difference < 1e-3
    (image,) = (workspace.data / "Big" / "imagesTs").glob("*.nii.gz")
    found = Predictor.load(tmp_path / "program").predict(image).label_ZYX
    expected = Predictor.load(cascade.folder, precision="fp32").predict(image).label_ZYX
    assert np.mean(found != expected) < 0.01
    decathlete.export_model(exporter, cascade.folder, tmp_path / "program", overwrite=True)
    (tmp_path / "program" / "previous_stage" / "program.json").unlink()
    with pytest.raises(ModelError, match="first stage"):
        Predictor.load(tmp_path / "program")


def test_what_one_plan_cannot_do_is_refused(cascade, workspace, tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(OptionError, match="two programs"):
        decathlete.export_onnx(cascade.folder, tmp_path / "model.onnx")
    with pytest.raises(OptionError, match="is a cascade"):
        decathlete.prepare_for_model("Big", model=cascade.folder, workspace=workspace)
    with pytest.raises(ModelError, match="different plans"):
        decathlete.export_model("nnunet", cascade.folder, tmp_path / "nnunet")
