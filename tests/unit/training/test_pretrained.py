"""Training from a trained model: weights by names of channels and classes, the network, frozen stages, defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from decathlete import train_config
from decathlete.core.labels import LabelSet, Region
from decathlete.errors import ModelError, OptionError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.pretrained import freeze_stages, load_pretrained, with_pretrained_network
from decathlete.training.run import train
from factories import make_test_network, make_test_plan
from training_support import make_store, tiny_config


def save_model(folder: Path, plan: Plan) -> ModelBundle:
    return ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=7)]))


def make_plan(channels: tuple[str, ...], classes: list[str], **changes: object) -> Plan:
    return make_test_plan(
        2, n_channels=len(channels), channels=channels, labels=LabelSet.from_names(classes), **changes
    )


def test_channels_and_classes_are_matched_by_name(tmp_path: Path) -> None:
    bundle = save_model(tmp_path / "old", make_plan(("T1", "T2"), ["liver", "spleen"]))
    plan = make_plan(("T2", "FLAIR", "T1"), ["spleen", "kidney"])
    network = build_network(plan.network, seed=1)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    transfer = load_pretrained(network, plan, bundle.folder)
    old, new = bundle.build(number=0).state_dict(), network.state_dict()
    stem = next(name for name, value in new.items() if value.ndim == 4 and value.shape[1] == 3)
    assert torch.equal(new[stem][:, 0], old[stem][:, 1])
    assert torch.equal(new[stem][:, 2], old[stem][:, 0])
    torch.testing.assert_close(new[stem][:, 1], old[stem].mean(1))
    assert torch.equal(new["heads.0.weight"][:2], old["heads.0.weight"][[0, 2]])
    assert torch.equal(new["heads.0.weight"][2], fresh["heads.0.weight"][2])
    others = [name for name in new if name != stem and not name.startswith("heads")]
    assert all(torch.equal(new[name], old[name]) for name in others)
    assert transfer.fresh == ()
    assert "T2, T1 carried over; FLAIR starts from the mean" in transfer.lines[1]
    assert (
        "(background), spleen carried over; kidney starts from random weights; liver of the model not used"
        in (transfer.lines[2])
    )


def test_a_cascade_takes_over_the_stage_that_is_trained_with_its_masks(tmp_path: Path) -> None:
    low, high = (
        make_test_plan(3, configuration=configuration, **changes)
        for configuration, changes in (
            ("3d_lowres", {}),
            ("3d_cascade", {"previous_stage": "3d_lowres", "network": make_test_network(in_channels=3)}),
        )
    )
    first = TrainedMember(plan=low, networks=[build_network(low.network, seed=1)], name="3d_lowres")
    second = TrainedMember(
        plan=high, networks=[build_network(high.network, seed=2)], name="3d_cascade", previous_stage="3d_lowres"
    )
    bundle = ModelBundle.save(tmp_path / "old", [first, second])
    network = build_network(high.network, seed=3)
    transfer = load_pretrained(network, high, bundle.folder)
    assert transfer.fresh == ()
    trained = bundle.members[1].build(number=0).state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())


def test_regions_do_not_take_over_classes(tmp_path: Path) -> None:
    bundle = save_model(tmp_path / "old", make_plan(("T1",), ["rim", "core"]))
    labels = LabelSet.from_names(["rim", "core"]).revised(
        regions=(Region(name="rim", values=(1, 2)), Region(name="core", values=(2,))), region_order=(1, 2)
    )
    plan = make_test_plan(2, channels=("T1",), labels=labels)
    transfer = load_pretrained(build_network(plan.network, seed=1), plan, bundle.folder)
    assert set(transfer.fresh) == {"heads.0.weight", "heads.0.bias"}


def test_the_network_of_the_model_is_used_with_the_channels_of_the_plan(tmp_path: Path) -> None:
    wide = make_test_network(2, in_channels=1, out_channels=2).revised(features=(6, 10), strides=((1, 1), (4, 4)))
    save_model(tmp_path / "old", make_plan(("CT",), ["liver"], network=wide))
    plan = make_plan(("CT", "PET"), ["liver", "tumour"], patch_size=(18, 32))
    adapted = with_pretrained_network(plan, tmp_path / "old")
    assert adapted.network == wide.revised(in_channels=2, out_channels=3)
    assert adapted.patch_size == (20, 32)
    assert "pretrained model" in adapted.reasons["network"]
    by_hand = plan.revised(user_set={"network.features": "--filters 4,8"})
    assert with_pretrained_network(by_hand, tmp_path / "old") == by_hand


def test_a_model_of_another_kind_is_rejected(tmp_path: Path) -> None:
    save_model(tmp_path / "old", make_test_plan(3))
    with pytest.raises(ModelError, match=r"3D unet.*2D unet"):
        with_pretrained_network(make_test_plan(2), tmp_path / "old")


def test_only_some_stages_can_be_frozen() -> None:
    network = build_network(make_test_network(2), seed=1)
    freeze_stages(network, 1)
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert frozen
    assert all(name.startswith("encoder.0.") for name in frozen)
    with pytest.raises(OptionError, match="encoder has 2 stage"):
        freeze_stages(network, 2)


def test_fine_tuning_has_smaller_steps_unless_they_are_set(tmp_path: Path) -> None:
    assert train_config().optimizer.learning_rate == 0.1
    config = train_config(pretrained=tmp_path)
    assert config.optimizer.learning_rate == pytest.approx(0.01)
    assert config.schedule.warmup == 0.1
    assert train_config(pretrained=tmp_path, optimizer="adam").optimizer.learning_rate == pytest.approx(1e-4)
    assert train_config(pretrained=tmp_path, learning_rate=0.2).optimizer.learning_rate == 0.2
    assert train_config(pretrained=tmp_path, schedule="constant").pretrained == str(tmp_path.resolve())
    with pytest.raises((OptionError, ValidationError), match="set pretrained too"):
        train_config(freeze_stages=1)
    assert "pretrained" not in TrainConfig().model_dump(mode="json")  # as older releases recorded it


def test_training_starts_from_the_weights_and_leaves_frozen_stages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path / "store", 2)
    old = save_model(tmp_path / "old", store.plan)
    config = tiny_config(
        epochs=1, steps_per_epoch=2, pretrained=str(tmp_path / "old"), freeze_stages=1, learning_rate=1e-3
    )
    with caplog.at_level("INFO"):
        result = train(store, 0, tmp_path / "run", config)
    assert "pretrained: " in caplog.text
    before, after = old.build(number=0).state_dict(), ModelBundle.load(result.model).build(number=0).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder.0."))
    changes = {name: (before[name] - after[name]).abs().max() for name in before if name.startswith("encoder.1.")}
    assert 0 < max(changes.values()) < 0.1
    (tmp_path / "old").rename(tmp_path / "away")
    assert train(store, 0, tmp_path / "run", config, resume=True).steps == 2, "a resumed run does not need the model"
