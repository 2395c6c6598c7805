"""Models of version 1 are read as one member, and keep their identity."""

from __future__ import annotations

import hashlib
import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from decathlete.errors import ModelError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.combine import combine_bundles
from decathlete.networks.build import build_network
from factories import make_test_plan

PLAN = make_test_plan()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_version_1(folder, *, n_networks=1, change_state=None, **changes):
    """What a release with version 1 wrote; the state dicts of its networks."""
    folder.mkdir()
    states = [dict(build_network(PLAN.network, seed=seed).state_dict()) for seed in range(n_networks)]
    if change_state is not None:
        change_state(states[-1])
    named = (
        states[0] if n_networks == 1 else {f"{i}.{n}": v for i, state in enumerate(states) for n, v in state.items()}
    )
    save_file(named, folder / "weights.safetensors", metadata={"format": "pt"})
    record = {
        "version": 1,
        "plan": json.loads(PLAN.model_dump_json()),
        "mirror_axes": [0, 2],
        "networks": n_networks,
        "weights": "best",
        "provenance": {"fold": 3, "training_cases": 7},
        "weights_sha256": sha256(folder / "weights.safetensors"),
    }
    (folder / "model.json").write_text(json.dumps({k: v for k, v in (record | changes).items() if v is not ...}))
    return states


def test_a_model_of_one_network(tmp_path):
    (state,) = save_version_1(tmp_path / "m")
    bundle = ModelBundle.load(tmp_path / "m")
    (member,) = bundle.record.members
    assert (bundle.record.version, bundle.record.labels, bundle.record.plan) == (2, PLAN.labels, PLAN)
    assert (member.mirror_axes, member.weights, member.provenance["training_cases"]) == ((0, 2), "best", 7)
    assert [(n.file, n.prefix, n.fold) for n in member.networks] == [("weights.safetensors", "", "3")]
    assert (bundle.record.temperature, bundle.record.postprocessing, bundle.model_card) == (1.0, (), None)
    for name, value in bundle.build().state_dict().items():
        assert torch.equal(value, state[name]), name


def test_several_networks_are_one_member(tmp_path):
    states = save_version_1(tmp_path / "m", n_networks=11, provenance={"folds": [str(i) for i in range(11)]})
    bundle = ModelBundle.load(tmp_path / "m")
    (member,) = bundle.record.members
    assert [(n.prefix, n.fold) for n in member.networks] == [(f"{i}.", str(i)) for i in range(11)]
    for number, state in enumerate(states):
        for name, value in bundle.build(number=number).state_dict().items():
            assert torch.equal(value, state[name]), (number, name)


@pytest.mark.parametrize("n_networks", [1, 2])
def test_the_digest_is_that_of_version_1(tmp_path, n_networks):
    save_version_1(tmp_path / "m", n_networks=n_networks)
    both = sha256(tmp_path / "m" / "model.json") + sha256(tmp_path / "m" / "weights.safetensors")
    assert ModelBundle.load(tmp_path / "m").digest == hashlib.sha256(both.encode()).hexdigest()


def test_a_model_without_a_digest(tmp_path):
    (state,) = save_version_1(tmp_path / "m", weights_sha256=...)
    bundle = ModelBundle.load(tmp_path / "m")
    both = sha256(tmp_path / "m" / "model.json") + sha256(tmp_path / "m" / "weights.safetensors")
    assert bundle.digest == hashlib.sha256(both.encode()).hexdigest()
    assert all(torch.equal(value, state[name]) for name, value in bundle.build().state_dict().items())


def test_the_weights_of_a_model_without_a_digest_are_checked(tmp_path):
    for value, message in ((float("nan"), "NaN"), (-3.5e35, r"a weight of 3\.5e\+35")):
        folder = tmp_path / str(value)
        change = partial(set_bias, value=value)
        save_version_1(folder, change_state=change, weights_sha256=...)
        with pytest.raises(ModelError, match=message):
            ModelBundle.load(folder)


def set_bias(state, value):
    state["heads.0.bias"] = torch.full_like(state["heads.0.bias"], value)


def test_it_is_written_as_version_2(tmp_path):
    states = save_version_1(tmp_path / "m", n_networks=2)
    combine_bundles([tmp_path / "m"], tmp_path / "new")
    record = json.loads((tmp_path / "new" / "model.json").read_text())
    assert record["version"] == 2
    files = [network["file"] for network in record["members"][0]["networks"]]
    assert files == ["weights/model.0.safetensors", "weights/model.1.safetensors"]
    again = ModelBundle.load(tmp_path / "new")
    assert again.record.mirror_axes == (0, 2)
    for number, state in enumerate(states):
        for name, value in again.build(number=number).state_dict().items():
            assert torch.equal(value, state[name]), (number, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": ...}, "plan"),
        ({"plan": 3}, "plan"),
        ({"weights_sha256": ""}, "sha256"),
        ({"weights_sha256": "0" * 64}, "is not the file"),
        ({"networks": 2}, "is missing"),
        ({"networks": 0}, "networks must be"),
        ({"networks": 10**12}, "networks must be"),
        ({"networks": "1"}, "networks must be"),
        ({"mirror_axes": [3]}, "mirror_axes"),
        ({"stray": 1}, "stray"),
        ({"version": 3}, "version 3"),
        ({"version": 2}, "labels"),
    ],
)
def test_damaged_records(tmp_path, changes, message):
    save_version_1(tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=message):
        ModelBundle.load(tmp_path / "m")


def test_weights_are_checked(tmp_path):
    def add_nan(state):
        state["heads.0.bias"] = torch.tensor([0.0, float("nan"), 0.0])

    def make_double(state):
        state["heads.0.bias"] = state["heads.0.bias"].double()

    def add_stray(state):
        state["stray"] = torch.zeros(1)

    changes = {add_nan: r"1\.heads\.0\.bias contains NaN", make_double: "float64, not float32", add_stray: "1.stray"}
    for change, message in changes.items():
        save_version_1(tmp_path / change.__name__, n_networks=2, change_state=change)
        with pytest.raises(ModelError, match=message):
            ModelBundle.load(tmp_path / change.__name__)


def test_it_may_be_overwritten(tmp_path):
    save_version_1(tmp_path / "m")
    member = TrainedMember(plan=PLAN, networks=[build_network(PLAN.network, seed=5)])
    ModelBundle.save(tmp_path / "m", member, overwrite=True)
    assert not (tmp_path / "m" / "weights.safetensors").exists()
