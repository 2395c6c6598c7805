"""MedNeXt, an architecture that is not a U-Net, is planned, trained, predicted with, exported and reported."""

from __future__ import annotations

import numpy as np
import pytest

import decathlete
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_label
from decathlete.models.bundle import ModelBundle
from decathlete.networks.mednext_spec import MedNeXtSpec
from decathlete.planning.options import PlanOptions
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows.workspace import Workspace

OPTIONS = PlanOptions(network="mednext-b", overrides=("patch_size=16,16,16", "network.features=4,8,16"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("mednext")
    make_phantoms(root / "data" / "Blobs", n_cases=4, n_test=1, shape_ZYX=(16, 20, 16))
    workspace = Workspace(data=root / "data", prepared=root / "prepared", results=root / "results")
    config = TrainConfig(epochs=1, steps_per_epoch=3, device="cpu", val_cases=1)
    return decathlete.run("Blobs", workspace=workspace, plan_options=OPTIONS, config=config, workers=1)


def test_it_is_planned_trained_scored_and_reported(trained):
    plan = ModelBundle.load(trained.folder).record.plan
    assert isinstance(plan.network, MedNeXtSpec)
    assert (plan.network.size, plan.network.encoder_expansion) == ("B", (2, 3, 4))
    assert plan.user_set["network.architecture"] == "--network mednext-b"
    assert trained.scores is not None
    assert "MedNeXt B, 3 levels" in trained.report.read_text("utf-8")


@pytest.mark.parametrize("exporter", ["onnx", "openvino"])
def test_exported_programs_predict_what_the_model_predicts(trained, exporter, tmp_path):
    pytest.importorskip({"onnx": "onnxruntime"}.get(exporter, exporter))
    program = decathlete.export_model(exporter, trained.folder, tmp_path / exporter)
    assert program.difference < 1e-3
    (image,) = (trained.folder.parents[3] / "data" / "Blobs" / "imagesTs").glob("*.nii.gz")
    found = Predictor.load(tmp_path / exporter).predict(image).label_ZYX
    (expected,) = trained.predictions.glob("*.nii.gz")
    assert np.mean(found != read_label(expected).array_ZYX) < 0.01
