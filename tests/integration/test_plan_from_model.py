"""``preprocess --plan-from`` a model, then ``train --pretrained`` it: all of its weights fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from decathlete import PlanOptions, Workspace, preprocess, train_config
from decathlete.errors import ModelError, OptionError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning.plan import Plan
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.pretrained import load_pretrained
from factories import make_test_network, make_test_plan


def save_model(folder: Path) -> Plan:
    """A model with channels, features and a patch that no planner would choose for the phantoms."""
    network = make_test_network(3, out_channels=4).revised(features=(6, 10))
    plan = make_test_plan(3, channels=("MRI",), n_foreground=3, network=network, patch_size=(8, 16, 12))
    ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=7)]))
    return plan


def test_a_dataset_prepared_by_the_plan_of_a_model_is_trained_from_its_weights(tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    source = save_model(tmp_path / "model")
    task = make_phantoms(tmp_path / "data" / "Task01_New", n_cases=3, shape_ZYX=(12, 20, 18), n_classes=1)

    def prepare(**changes):
        workspace = Workspace(prepared=tmp_path / "prepared")
        return preprocess(task, workspace=workspace, plan_from=tmp_path / "model", workers=1, **changes)

    store = prepare()
    assert store.plan.patch_size == source.patch_size
    assert store.plan.network.features == (6, 10)
    assert "network (unet), patch 8 × 16 × 12" in caplog.text
    assert "planned for this dataset: inputs and outputs" in caplog.text
    transfer = load_pretrained(build_network(store.plan.network, seed=1), store.plan, tmp_path / "model")
    assert transfer.fresh == ()
    caplog.clear()
    assert prepare().plan == store.plan  # a second run keeps the cases
    assert "3 of 3 cases were prepared before" in caplog.text
    with pytest.raises(ModelError, match=r"no plan of the configuration 2d \(it has: 3d\)"):
        prepare(dims=2)
    with pytest.raises(OptionError, match="--max-time would choose another"):
        prepare(training=train_config(max_time="5m"))
    with pytest.raises(OptionError, match="--network"):
        prepare(options=PlanOptions(network="resenc-m"))
