"""Prediction and validation on a fake CUDA device: where the host waits, and how often."""

from __future__ import annotations

import pytest
import torch

from decathlete.core.labels import LabelSet
from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.predict import Predictor
from decathlete.inference.windows.flips import mean_over_flips
from decathlete.inference.windows.sweep import VolumeSweep, predict_logits
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.networks.devices import resolve_device
from decathlete.training.loop.validation import Validator
from factories import make_test_plan, make_volumes
from training_support import REGIONS, make_loss, make_store

CLASSES = LabelSet.from_names(["c1", "c2"])
BEFORE_A_CASE = ["copy to cuda"] * 5
"""The image, the weights of a window, and their sums along each axis."""
PRECISIONS = ["fp32", "bf16", "fp16"]


def engine(plan, precision: str = "bf16") -> TorchEngine:
    return TorchEngine(build_network(plan.network, seed=1).eval(), device="cuda", precision=precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dims", [2, 3])
def test_logits_of_a_volume_lie_on_the_device(cuda, dims, precision):
    plan = make_test_plan(dims)
    logits_KZYX = predict_logits(
        engine(plan, precision),
        torch.zeros(1, 25, 20, 17),
        plan=plan,
        window=SlidingWindow(tta=True),
        mirror_axes=range(dims),
    )
    assert (logits_KZYX.device, logits_KZYX.dtype) == (cuda.device, torch.float32)
    assert logits_KZYX.shape == (3, 25, 20, 17)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("shape", [(25, 20, 17), (8, 8, 8)], ids=["windows", "padded"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_sweep_never_waits_once_its_image_is_on_the_device(cuda, dims, shape, blend):
    plan = make_test_plan(dims)
    network = engine(plan)
    volume = VolumeSweep(torch.zeros(1, *shape), plan=plan, device=cuda.device, window=SlidingWindow(blend=blend))
    waited = len(cuda.waits)
    planes = 0
    for window in volume.windows():
        logits_BK = mean_over_flips([network, network], window[None], range(dims))
        planes += sum(slab_KZYX.shape[1] for slab_KZYX in volume.add(logits_BK[0]))
    assert planes == shape[0]
    assert cuda.waits[waited:] == []


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("dims", [2, 3])
def test_validation_reads_two_numbers_of_each_case(cuda, tmp_path, dims, labels):
    """The voxel counts of all classes together, and the loss; before them the label is copied to the device."""
    plan = make_test_plan(dims, labels=labels)
    store = make_store(tmp_path, dims, plan=plan)
    network = build_network(plan.network, seed=1).to(cuda.device).eval()
    loss = make_loss(labels, heads=1).to(cuda.device)
    validator = Validator(
        store,
        plan,
        loss,
        window=SlidingWindow(batch_size=2),
        precision="bf16",
        layout="auto",
        device=cuda.device,
    )
    cuda.waits.clear()
    result = validator.case(network, store.case_ids[0])
    assert len(result.dice) == 2
    assert cuda.waits == [*BEFORE_A_CASE, "copy to cuda", "copy to cpu", "item"]


@pytest.mark.parametrize(("labels", "probabilities"), [(CLASSES, False), (REGIONS, True)], ids=["classes", "regions"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 0.8)], ids=["same_grid", "resampled"])
def test_a_prediction_waits_for_finished_slabs_alone(cuda, tmp_path, dims, labels, probabilities, spacing):
    plan = make_test_plan(dims, labels=labels)
    ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=1)]))
    predictor = Predictor.load(tmp_path / "m", engine="torch", tta=True)
    assert predictor.device == resolve_device("auto") == torch.device("cuda")
    assert predictor.ensembles[0].engines[0].precision == "bf16"
    image_CZYX, _ = make_volumes((24, 20, 18))
    cuda.waits.clear()
    found = predictor.predict(image_CZYX, spacing=spacing, probabilities=probabilities)
    assert found.label_ZYX.shape == (24, 20, 18)
    assert (found.probabilities_KZYX is not None) is probabilities
    # The result of a slab is read as soon as the slab is finished; nothing else is waited for.
    first = cuda.waits.index("copy to cpu")
    assert cuda.waits[:first] == BEFORE_A_CASE + ["copy to cuda"] * 9  # low, high and weight of each axis
    assert set(cuda.waits[first:]) == {"copy to cpu"}
    assert len(cuda.waits[first:]) <= 24 * (1 + probabilities)
