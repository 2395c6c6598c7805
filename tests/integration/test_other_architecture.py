"""An architecture that is not a U-Net, from a module outside the package, goes the whole way."""

from __future__ import annotations

import json

import pytest

import decathlete
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import ModelError, OptionError, PlanError
from decathlete.interop.nnunet_export import export_nnunet
from decathlete.io.images import read_image, read_label
from decathlete.models.bundle import ModelBundle
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.fingerprint import make_fingerprint
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override, plan_with
from decathlete.planning.plan import Plan
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows.workspace import Workspace
from dilated_network import DilatedSpec

OPTIONS = PlanOptions(architecture="dilated_network:Dilated")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    root = tmp_path_factory.mktemp("dilated")
    make_phantoms(root / "data" / "Task07_Blobs", n_cases=5, n_test=1, shape_ZYX=(16, 20, 16))
    return Workspace(data=root / "data", prepared=root / "prepared", results=root / "results")


@pytest.fixture(scope="module")
def trained(workspace):
    config = TrainConfig(epochs=1, steps_per_epoch=4, device="cpu", val_cases=1)
    return decathlete.run("Task07_Blobs", dims=3, workspace=workspace, plan_options=OPTIONS, config=config, workers=1)


def test_it_is_planned_trained_and_scored(trained, workspace):
    plan = ModelBundle.load(trained.folder).record.plan
    assert isinstance(plan.network, DilatedSpec)
    assert plan.user_set["network.architecture"] == "--architecture dilated_network:Dilated"
    assert plan.requires == {"architecture.dilated": "unknown"}
    stored = json.loads((workspace.prepared_folder("Task07_Blobs", 3) / "plan.json").read_text())
    assert (stored["network"]["architecture"], stored["network"]["channels"]) == ("dilated", 8)
    assert trained.scores is not None
    assert trained.report.is_file()


def test_it_predicts(trained, workspace):
    (predicted,) = trained.predictions.glob("*.nii.gz")
    image = workspace.data / "Task07_Blobs" / "imagesTs" / predicted.name
    assert read_label(predicted).geometry.shape_ZYX == read_image(image).geometry.shape_ZYX


def test_the_network_is_found_by_its_registered_name_alone(trained):
    network = ModelBundle.load(trained.folder).build()
    assert type(network).__name__ == "Network"
    plan = json.loads((trained.folder / "run.json").read_text())["plan"]
    assert "dilated_network" not in json.dumps(plan["network"])


def test_what_only_a_unet_has_is_rejected(trained, workspace, tmp_path):
    options = PlanOptions(architecture="dilated", depth=3, deep_supervision=False)
    with pytest.raises(OptionError, match="does not use --depth 3, --no-deep-supervision"):
        decathlete.preprocess("Task07_Blobs", workspace=workspace, options=options)
    with pytest.raises(ModelError, match="has the architecture dilated; nnU-Net has U-Nets"):
        export_nnunet(trained.folder, tmp_path / "out")


def test_its_fields_can_be_set(workspace):
    spec = read_dataset(workspace.data / "Task07_Blobs")
    fingerprint = make_fingerprint(spec, workers=1)
    options = PlanOptions(architecture="dilated", overrides=("network.dilation=3", "patch_size=9,10,11"))
    plan = plan_with(spec, fingerprint, dims=3, options=options)
    assert (plan.network.dilation, plan.patch_size) == (3, (9, 10, 11))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    wide = override(plan, ["network.channels=64", "batch_size=64"])
    adapted = adapt_plan(wide.revised(user_set={}), ComputeBudget(device="cpu"))
    assert (adapted.network, adapted.batch_size) == (wide.network, 8)
    assert adapted.reasons["budget"].endswith("the architecture dilated cannot be narrowed")
    with pytest.raises(OptionError, match="greater than or equal to 1"):
        override(plan, ["network.channels=0"])
    with pytest.raises(OptionError, match="choose it with --architecture"):
        override(plan, ["network.architecture=unet"])
    with pytest.raises(PlanError, match="needs more than"):
        plan_with(spec, fingerprint, dims=3, options=PlanOptions(architecture="dilated", memory_gb=1e-6))


def test_unknown_architectures_are_named(workspace):
    for name, message in (("dilatd", "did you mean dilated"), ("nowhere:Net", "cannot be imported")):
        with pytest.raises(OptionError, match=message):
            decathlete.preprocess("Task07_Blobs", workspace=workspace, options=PlanOptions(architecture=name))
