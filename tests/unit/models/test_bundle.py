"""Models on disk: round trip, identity, and that nothing but the right weights is ever loaded."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from decathlete.core import sizes
from decathlete.errors import ModelError, OptionError, OutputError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.combine import combine_bundles
from decathlete.models.record import Combination, PostprocessingStep
from decathlete.networks.build import build_network
from decathlete.version import __version__
from factories import make_test_network, make_test_plan


def weights_of(tmp_path):
    return tmp_path / "model" / "weights" / "3d.safetensors"


def make_member(plan=None, *, seeds=(0,), **fields):
    plan = plan or make_test_plan()
    return TrainedMember(plan=plan, networks=[build_network(plan.network, seed=seed) for seed in seeds], **fields)


def make_bundle(folder, *, seed=0, overwrite=False, **changes):
    provenance = {"fold": 0, "config": {"epochs": None}}
    member = make_member(make_test_plan(**changes), seeds=[seed], mirror_axes=(0, 1), provenance=provenance)
    return ModelBundle.save(folder, member, overwrite=overwrite)


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
    files = sorted(str(p.relative_to(saved.folder)) for p in saved.folder.rglob("*") if p.is_file())
    assert files == ["MODEL_CARD.md", "model.json", "weights/3d.safetensors"]


def test_a_state_dict_and_batch_norm_buffers_round_trip(tmp_path):
    plan = make_test_plan(network=make_test_network().revised(norm="batch"))
    network = build_network(plan.network, seed=0)
    network(torch.randn(2, 1, 16, 16, 16))
    bundle = ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[network.state_dict()]))
    for name, value in bundle.build().state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_the_digest_is_the_identity_of_the_model(tmp_path):
    first, same = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")
    assert first.digest == same.digest
    assert make_bundle(tmp_path / "c", seed=1).digest != first.digest
    other = make_member(seeds=[0], provenance={"fold": 0, "config": {"epochs": None}})
    assert ModelBundle.save(tmp_path / "d", other).digest != first.digest
    (tmp_path / "a" / "MODEL_CARD.md").write_text("Rewritten by a reader.")
    (tmp_path / "a" / "notes.txt").write_text("Other files are ignored.")
    assert ModelBundle.load(tmp_path / "a") == first


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
    with pytest.raises(OutputError, match="exists and is not a model"):
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

    def fail_at_the_end(first, second):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("decathlete.core.files.exchange_names", fail_at_the_end)
    with pytest.raises(OutputError, match="No space left"):
        make_bundle(tmp_path / "model", seed=1, overwrite=True)
    assert ModelBundle.load(tmp_path / "model").digest == first.digest
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_disk_without_space_is_found_before_anything_is_written(tmp_path, monkeypatch):
    plan = make_test_plan()
    n_bytes = 4 * sum(p.numel() for p in build_network(plan.network, seed=0).parameters())
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: 2 * n_bytes - 1)
    make_bundle(tmp_path / "one")
    with pytest.raises(OutputError, match="are needed for the model") as caught:
        ModelBundle.save(tmp_path / "two", make_member(seeds=(0, 1)))
    assert caught.value.code == "E-DISK-FULL"
    assert not (tmp_path / "two").exists()


def test_combining_needs_the_space_of_the_stored_type(tmp_path, monkeypatch):
    plan = make_test_plan()
    half = build_network(plan.network, seed=0).half()
    ModelBundle.save(tmp_path / "half", TrainedMember(plan=plan, networks=[half]))
    n_bytes = 2 * sum(p.numel() for p in half.parameters())
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: n_bytes - 1)
    with pytest.raises(OutputError, match="are needed for the model"):
        combine_bundles([tmp_path / "half"], tmp_path / "again")
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: n_bytes)
    combine_bundles([tmp_path / "half"], tmp_path / "again")


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
    with pytest.raises(ModelError, match="is a file, not the folder of a model"):
        ModelBundle.load(weights_of(tmp_path))


def test_models_of_other_programs_are_to_be_imported(tmp_path):
    trained = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (trained / "fold_0").mkdir(parents=True)
    (trained / "plans.json").touch()
    (tmp_path / "model.zip").touch()
    (tmp_path / "net.pth").touch()
    for path in (trained, trained / "fold_0", tmp_path / "model.zip", tmp_path / "net.pth"):
        with pytest.raises(ModelError, match="decathlete import nnunet"):
            ModelBundle.load(path)


def test_missing_weights(tmp_path):
    make_bundle(tmp_path / "model")
    weights_of(tmp_path).unlink()
    with pytest.raises(ModelError, match=r"no weights/3d\.safetensors"):
        ModelBundle.load(tmp_path / "model")


def test_a_record_that_is_not_json(tmp_path):
    make_bundle(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{ not json")
    with pytest.raises(ModelError, match=r"model\.json"):
        ModelBundle.load(tmp_path / "model")


@pytest.mark.parametrize("keep", [0, 4, 100, -10])
def test_truncated_weights(tmp_path, keep):
    make_bundle(tmp_path / "model")
    path = weights_of(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged"):
        ModelBundle.load(tmp_path / "model")


def test_a_flipped_bit(tmp_path):
    make_bundle(tmp_path / "model")
    path = weights_of(tmp_path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not the file"):
        ModelBundle.load(tmp_path / "model")


def test_weights_that_do_not_fit_are_named(tmp_path):
    make_bundle(tmp_path / "model")
    path = weights_of(tmp_path)
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
        ModelBundle.save(tmp_path / "model", TrainedMember(plan=plan, networks=[other]))
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_another_version_or_with_wrong_axes(tmp_path):
    make_bundle(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(ModelError, match="version 99"):
        ModelBundle.load(tmp_path / "model")
    with pytest.raises(ModelError, match="mirror_axes"):
        ModelBundle.save(tmp_path / "other", make_member(make_test_plan(2), mirror_axes=(0, 2)))
    assert not (tmp_path / "other").exists()


def test_several_networks_are_one_member(tmp_path):
    member = make_member(seeds=(0, 1, 2), folds=["0", "1", "2"])
    image = torch.randn(1, 1, 16, 16, 16)
    saved = ModelBundle.save(tmp_path / "m", member)
    loaded = ModelBundle.load(tmp_path / "m")
    assert loaded == saved
    assert [network.fold for network in loaded.record.members[0].networks] == ["0", "1", "2"]
    assert sorted(p.name for p in (tmp_path / "m" / "weights").iterdir()) == [f"3d.{i}.safetensors" for i in range(3)]
    for number, network in enumerate(member.networks):
        assert torch.equal(loaded.build(number=number)(image), network.eval()(image))


def test_members_with_different_plans(tmp_path):
    members = [make_member(make_test_plan(dims), seeds=[dims], mirror_axes=(0,)) for dims in (2, 3)]
    bundle = ModelBundle.save(tmp_path / "m", members, combination=Combination(weights=(1.0, 3.0)), temperature=1.5)
    assert [member.name for member in bundle.record.members] == ["2d", "3d"]
    assert [member.plan.dims for member in bundle.members] == [2, 3]
    for member, expected in zip(bundle.members, members, strict=True):
        for name, value in member.build().state_dict().items():
            assert torch.equal(value, expected.networks[0].state_dict()[name]), name
    with pytest.raises(ModelError, match=r"different plans \(2d, 3d\)"):
        _ = bundle.record.plan


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "3d"}, "two members are called '3d'"),
        ({"name": "3D"}, "2 members are called '3d'"),
        ({"name": "../3d"}, "pattern"),
        ({"name": "a/b"}, "pattern"),
        ({"name": ""}, "pattern"),
        ({"plan": make_test_plan(n_foreground=1)}, "other labels"),
        ({"plan": make_test_plan(n_channels=2)}, "other channels"),
    ],
)
def test_members_that_do_not_fit_each_other_are_rejected(tmp_path, fields, message):
    second = make_member(**({"name": "second"} | fields))
    with pytest.raises(ModelError, match=message):
        ModelBundle.save(tmp_path / "m", [make_member(), second])
    assert list(tmp_path.iterdir()) == []


def test_folds_are_as_many_as_networks():
    with pytest.raises(ValueError, match="1 networks and 2 folds"):
        make_member(folds=["0", "1"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    member = make_member()
    state = member.networks[0].state_dict()
    state["heads.0.bias"][1] = value
    with pytest.raises(ModelError, match=r"heads\.0\.bias contains NaN or infinite values"):
        ModelBundle.save(tmp_path / "m", TrainedMember(plan=member.plan, networks=[state]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_stored_as_such_and_built_in_float32(tmp_path, dtype):
    member = make_member()
    state = {name: value.to(getattr(torch, dtype)) for name, value in member.networks[0].state_dict().items()}
    bundle = ModelBundle.save(tmp_path / "m", TrainedMember(plan=member.plan, networks=[state]))
    assert bundle.record.members[0].networks[0].dtype == dtype
    for name, value in bundle.build().state_dict().items():
        assert torch.equal(value, state[name].float()), name


def test_types_that_bundles_do_not_have_are_not_saved(tmp_path):
    member = make_member()
    state = member.networks[0].state_dict()
    mixed = state | {"heads.0.bias": state["heads.0.bias"].half()}
    for wrong, message in ((mixed, "float16, not float32"), ({n: v.double() for n, v in state.items()}, "float64")):
        with pytest.raises(ModelError, match=message):
            ModelBundle.save(tmp_path / "m", TrainedMember(plan=member.plan, networks=[wrong]))


def test_the_model_card_states_what_is_known(tmp_path):
    plan = make_test_plan(dataset="Task07 <b>|x", channels=("CT",))
    member = make_member(plan, folds=["2"], provenance={"training_cases": 12, "validation_dice": 0.87654})
    card = ModelBundle.save(tmp_path / "m", member, temperature=2.0).model_card
    assert card is not None
    for line in (
        r"# Task07 \<b\>\|x: segmentation model",
        "Research use only. Not a medical device.",
        "Input channels: CT.",
        "| c1 | 1 |",
        "- Temperature: 2",
        "| Folds | 2 |",
        "| Training cases | 12 |",
        "| Mean Dice during training, prepared grid | 0.8765 |",
    ):
        assert any(found.startswith(line) for found in card.splitlines()), line
    (tmp_path / "m" / "MODEL_CARD.md").unlink()
    assert ModelBundle.load(tmp_path / "m").model_card is None


def test_a_model_card_that_cannot_be_read(tmp_path):
    bundle = make_bundle(tmp_path / "model")
    (tmp_path / "model" / "MODEL_CARD.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"MODEL_CARD\.md: cannot be read"):
        _ = bundle.model_card


def test_a_component_that_is_not_installed_is_named_with_the_model(tmp_path):
    make_bundle(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    record = json.loads(path.read_text())
    record["members"][0]["plan"]["network"]["architecture"] = "nowhere"
    path.write_text(json.dumps(record))
    with pytest.raises(OptionError, match="no architecture called 'nowhere'") as caught:
        ModelBundle.load(tmp_path / "model")
    assert (caught.value.where, caught.value.code) == (tmp_path / "model", "E-COMPONENT-UNKNOWN")


def test_components_and_their_origin_are_recorded(tmp_path):
    found = make_bundle(tmp_path / "model").record.members[0].components
    assert [(c.kind, c.name, c.distribution) for c in found] == [
        ("architecture", "unet", "decathlete"),
        ("normalization", "zscore", "decathlete"),
    ]
    assert {c.version for c in found} == {__version__}


def test_the_origin_of_steps_of_post_processing_is_recorded(tmp_path):
    steps = [PostprocessingStep(name=name) for name in ("fill_holes", "remove_small", "fill_holes", "sharpen")]
    saved = ModelBundle.save(tmp_path / "m", make_member(), postprocessing=steps)
    assert [c.kind for c in saved.record.components] == ["postprocessing"] * 3
    assert [(c.name, c.distribution, c.version) for c in saved.record.components] == [
        ("fill_holes", "decathlete", __version__),
        ("remove_small", "decathlete", __version__),
        ("sharpen", None, None),  # not installed here
    ]


def test_a_copy_keeps_the_recorded_origin_of_its_steps(tmp_path):
    """The release that decided on the post-processing, not the one that copies the model."""
    ModelBundle.save(tmp_path / "m", make_member(), postprocessing=[PostprocessingStep(name="fill_holes")])
    path = tmp_path / "m" / "model.json"
    record = json.loads(path.read_text())
    record["components"][0] |= {"distribution": "my-steps", "version": "0.7"}
    path.write_text(json.dumps(record))
    (copied,) = combine_bundles([tmp_path / "m"], tmp_path / "copy", temperature=2.0).record.components
    assert (copied.name, copied.distribution, copied.version) == ("fill_holes", "my-steps", "0.7")
    other = [PostprocessingStep(name="remove_small")]
    (chosen,) = combine_bundles([tmp_path / "m"], tmp_path / "other", postprocessing=other).record.components
    assert (chosen.name, chosen.distribution) == ("remove_small", "decathlete")
    assert combine_bundles([tmp_path / "m"], tmp_path / "none", postprocessing=[]).record.components == ()
    assert "components" not in json.loads((tmp_path / "none" / "model.json").read_text())
