"""Models on disk: round trip, identity, and that nothing but the right weights is ever loaded."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from decathlete.errors import ModelError, OutputError
from decathlete.models.bundle import ModelBundle, ModelRecord
from decathlete.networks.build import build_network
from factories import make_test_network, make_test_plan


def make_bundle(folder, *, seed=0, overwrite=False, **changes):
    plan = make_test_plan(**changes)
    record = ModelRecord(plan=plan, mirror_axes=(0, 1), provenance={"fold": 0, "config": {"epochs": None}})
    return ModelBundle.save(folder, build_network(plan.network, seed=seed), record, overwrite=overwrite)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    saved = make_bundle(tmp_path / "run" / "model")
    network = build_network(saved.record.plan.network, seed=0).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    for path in (tmp_path / "run" / "model", tmp_path / "run"):
        loaded = ModelBundle.load(path)
        assert loaded == saved
        built = loaded.build()
        assert not built.training
        assert torch.equal(built(image), network(image))
        assert all(p.requires_grad for p in built.parameters())
    assert sorted(p.name for p in (tmp_path / "run" / "model").iterdir()) == ["model.json", "weights.safetensors"]


def test_a_state_dict_and_batch_norm_buffers_round_trip(tmp_path):
    plan = make_test_plan(network=make_test_network().revised(norm="batch"))
    network = build_network(plan.network, seed=0)
    network(torch.randn(2, 1, 16, 16, 16))
    bundle = ModelBundle.save(tmp_path / "m", network.state_dict(), ModelRecord(plan=plan))
    for name, value in bundle.build().state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_the_digest_is_the_identity_of_the_model(tmp_path):
    first, same = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")
    assert first.digest == same.digest
    assert make_bundle(tmp_path / "c", seed=1).digest != first.digest
    record = first.record.revised(mirror_axes=())
    assert ModelBundle.save(tmp_path / "d", first.build(), record).digest != first.digest


def test_a_bundle_is_replaced_only_on_request_and_leaves_nothing_behind(tmp_path):
    first = make_bundle(tmp_path / "model")
    with pytest.raises(OutputError, match="already exists"):
        make_bundle(tmp_path / "model", seed=1)
    assert ModelBundle.load(tmp_path / "model").digest == first.digest
    second = make_bundle(tmp_path / "model", seed=1, overwrite=True)
    assert second.digest != first.digest
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("there", ["dataset/labelsTr/a.nii.gz", "dataset/thesis.txt"])
def test_what_is_no_model_is_never_replaced(tmp_path, there):
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).write_text("years of work")
    with pytest.raises(OutputError, match="is there, and no model"):
        make_bundle(tmp_path / "dataset", overwrite=True)
    assert (tmp_path / there).read_text() == "years of work"


def test_nothing_is_saved_in_a_raw_dataset(tmp_path):
    (tmp_path / "Task04" / "imagesTr").mkdir(parents=True)
    (tmp_path / "Task04" / "dataset.json").write_text("{}")
    with pytest.raises(OutputError, match="lies in the raw dataset"):
        make_bundle(tmp_path / "Task04" / "models" / "mine")
    assert sorted(p.name for p in (tmp_path / "Task04").iterdir()) == ["dataset.json", "imagesTr"]


def test_a_save_that_fails_keeps_the_old_model(tmp_path, monkeypatch):
    first = make_bundle(tmp_path / "model")
    real = os.replace

    def fail_at_the_end(source, target):
        if str(target).endswith("/model"):
            monkeypatch.setattr(os, "replace", real)
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_end)
    with pytest.raises(OutputError, match="No space left"):
        make_bundle(tmp_path / "model", seed=1, overwrite=True)
    assert ModelBundle.load(tmp_path / "model").digest == first.digest
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_mistyped_path_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        ModelBundle.load(tmp_path / "modle")
    with pytest.raises(ModelError, match="not a model"):
        ModelBundle.load(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ModelError, match="no model yet"):
        ModelBundle.load(tmp_path)


def test_a_file_instead_of_a_folder_is_an_error(tmp_path):
    make_bundle(tmp_path / "model")
    with pytest.raises(ModelError, match="not a model"):
        ModelBundle.load(tmp_path / "model" / "weights.safetensors")


def test_missing_weights(tmp_path):
    make_bundle(tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights\.safetensors"):
        ModelBundle.load(tmp_path / "model")


def test_a_record_that_is_not_json(tmp_path):
    make_bundle(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{ not json")
    with pytest.raises(ModelError, match=r"model\.json"):
        ModelBundle.load(tmp_path / "model")


@pytest.mark.parametrize("keep", [0, 4, 100, -10])
def test_truncated_weights(tmp_path, keep):
    make_bundle(tmp_path / "model")
    path = tmp_path / "model" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged"):
        ModelBundle.load(tmp_path / "model")


def test_a_flipped_bit(tmp_path):
    make_bundle(tmp_path / "model")
    path = tmp_path / "model" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not the file"):
        ModelBundle.load(tmp_path / "model")


def test_weights_that_do_not_fit_are_named(tmp_path):
    make_bundle(tmp_path / "model")
    path = tmp_path / "model" / "weights.safetensors"
    weights = load_file(path)
    weights["stray"] = torch.zeros(1)
    weights["heads.0.bias"] = torch.zeros(9)
    del weights["heads.0.weight"]
    save_file(weights, path)
    with pytest.raises(ModelError, match=r"heads\.0\.weight is missing; stray is unknown; heads\.0\.bias has shape"):
        ModelBundle.load(tmp_path / "model")


def test_saving_weights_of_another_network_is_refused(tmp_path):
    plan = make_test_plan()
    other = build_network(make_test_network(out_channels=5), seed=0)
    with pytest.raises(ModelError, match="do not fit"):
        ModelBundle.save(tmp_path / "model", other, ModelRecord(plan=plan))
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_another_version_or_with_wrong_axes(tmp_path):
    make_bundle(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(ModelError, match="version 99"):
        ModelBundle.load(tmp_path / "model")
    with pytest.raises(ValueError, match="mirror_axes"):
        ModelRecord(plan=make_test_plan(2), mirror_axes=(0, 2))


def test_several_networks_are_one_model(tmp_path):
    plan = make_test_plan()
    networks = [build_network(plan.network, seed=seed).eval() for seed in (0, 1, 2)]
    states = [network.state_dict() for network in networks]
    bundle = ModelBundle.save(tmp_path / "m", states, ModelRecord(plan=plan, networks=3))
    image = torch.randn(1, 1, 16, 16, 16)
    for number, network in enumerate(networks):
        assert torch.equal(ModelBundle.load(tmp_path / "m").build(number)(image), network(image))
    assert bundle.digest == ModelBundle.load(tmp_path / "m").digest


@pytest.mark.parametrize("networks", [1, 3])
def test_as_many_networks_as_the_record_says(networks, tmp_path):
    plan = make_test_plan()
    states = [build_network(plan.network, seed=seed).state_dict() for seed in (0, 1)]
    with pytest.raises(ModelError, match="do not fit"):
        ModelBundle.save(tmp_path / "m", states, ModelRecord(plan=plan, networks=networks))
