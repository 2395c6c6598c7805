"""Logits that are NaN or infinite fail the case, whatever engine computed them; they never become a label map."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from decathlete.cli.main import main
from decathlete.core.geometry import Geometry
from decathlete.errors import CasesFailedError, ModelError
from decathlete.inference.engines import ENGINES
from decathlete.inference.ensemble import PlanEnsemble
from decathlete.inference.output.restore import require_finite, restore
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import predict_files
from decathlete.io.images import Image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.preprocessing.prepare import prepare
from factories import make_test_network, make_test_plan, make_volumes

PLAN = make_test_plan()
PACKAGES = {"torch": ("torch",), "onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


def available(name: str) -> bool:
    return all(importlib.util.find_spec(package) for package in PACKAGES[name])


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.skipif(not available(n), reason=n)) for n in PACKAGES])
def predictor(request) -> Predictor:
    """An engine whose network computes NaN."""
    network = build_network(PLAN.network, seed=1).eval()
    with torch.no_grad():
        network.heads[0].bias.fill_(float("nan"))
    return predictor_of(request.param, network)


def predictor_of(engine: str, network) -> Predictor:
    cls = ENGINES.resolve(engine).cls
    cpu = torch.device("cpu")
    made = cls.from_network(cls.Settings(), network, PLAN, device=cpu, precision="fp32", layout="auto")
    return Predictor([PlanEnsemble(plan=PLAN, engines=(made,), mirror_axes=(), models=())], device=cpu)


def image_file(folder: Path, name: str, size: int) -> Path:
    image_CZYX, _ = make_volumes((size, size, size), margin=2)
    path = folder / name
    nib.save(nib.Nifti1Image(image_CZYX[0].T, np.eye(4)), path)
    return path


@pytest.mark.parametrize("size", [12, 40])  # shares batches with other cases; is computed alone
def test_no_engine_writes_a_label_map_of_nan(predictor, tmp_path, size):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        image_file(folder, name, size)
    with pytest.raises(CasesFailedError, match="NaN or infinite") as caught:
        predict_files(predictor, folder, tmp_path / "out", save_probabilities=True)
    assert set(caught.value.failures) == {"a", "b"}
    assert list((tmp_path / "out").iterdir()) == []


def test_an_array_is_rejected_too(predictor):
    image_CZYX, _ = make_volumes((20, 20, 20))
    with pytest.raises(ModelError, match="NaN or infinite") as caught:
        predictor.predict(image_CZYX[0], spacing=(1.0, 1.0, 1.0))
    assert caught.value.code == "E-MODEL-LOGITS"


def test_the_command_fails(tmp_path, capsys, monkeypatch):
    plan = make_test_plan(network=make_test_network().revised(norm="batch"))
    state = dict(build_network(plan.network).state_dict())
    name = next(n for n in state if n.endswith("running_var"))
    state[name] = -torch.ones_like(state[name])  # finite, and its square root is NaN
    ModelBundle.save(tmp_path / "model", TrainedMember(plan=plan, networks=[state]))
    path = image_file(tmp_path, "a.nii.gz", 20)
    arguments = ["--model", str(tmp_path / "model"), "--input", str(path), "--output", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["decathlete", "predict", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "NaN or infinite" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.nii.gz"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 3, 2, 1), (2, 5, 4, 6)])
def test_one_value_is_enough(value, place):
    logits_KZYX = torch.zeros(3, 6, 5, 7)
    logits_KZYX[place] = value
    with pytest.raises(ModelError, match="NaN or infinite"):
        require_finite(logits_KZYX)
    image = Image(array_CZYX=np.ones((1, 6, 5, 7), np.float32), geometry=Geometry.plain((6, 5, 7)))
    with pytest.raises(ModelError, match="NaN or infinite"):
        restore(logits_KZYX, prepare(image, PLAN).restoration, PLAN.labels)


def test_large_logits_whose_sum_overflows_are_finite():
    require_finite(torch.full((3, 4, 5, 6), 3e38))
    require_finite(torch.zeros(3, 0, 5, 6))
