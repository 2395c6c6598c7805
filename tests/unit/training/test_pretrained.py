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
from decathlete.networks.mednext_spec import MedNeXtSpec
from decathlete.networks.stages import freeze_stages
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.objective.optimizers import OPTIMIZERS
from decathlete.training.pretrained import load_pretrained, network_replacement
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
    replaced = network_replacement(TrainConfig(pretrained=str(tmp_path / "old")), plan)
    adapted = replaced(plan)
    assert adapted.network == wide.revised(in_channels=2, out_channels=3)
    assert adapted.patch_size == (20, 32)
    assert "pretrained model" in adapted.reasons["network.strides"]
    assert "rounded up from 18 × 32" in adapted.reasons["patch_size"]
    assert replaced(adapted) == adapted
    by_hand = plan.revised(user_set={"network.features": "--filters 4,8"})
    assert replaced(by_hand) == by_hand
    assert network_replacement(TrainConfig(), plan)(plan) == plan


def test_a_model_of_another_kind_is_rejected(tmp_path: Path) -> None:
    save_model(tmp_path / "old", make_test_plan(3))
    with pytest.raises(ModelError, match=r"3D unet.*2D unet"):
        network_replacement(TrainConfig(pretrained=str(tmp_path / "old")), make_test_plan(2))


def test_only_some_stages_can_be_frozen() -> None:
    network = build_network(make_test_network(2), seed=1)
    freeze_stages(network, 0)
    assert all(weight.requires_grad for weight in network.parameters())
    freeze_stages(network, 1)
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert frozen
    assert all(name.startswith("encoder.0.") for name in frozen)
    with pytest.raises(OptionError, match="encoder has 2 stage"):
        freeze_stages(network, 2)


def test_stages_are_frozen_only_with_weights_of_the_model(tmp_path: Path) -> None:
    """Stage 1 fits, stage 2 is wider than the model's."""
    store = make_store(tmp_path / "store", 2)
    save_model(tmp_path / "old", store.plan)
    wider = make_test_network(2).revised(
        features=(4, 12, 16), strides=((1, 1), (2, 2), (2, 2)), kernels=((3, 3),) * 3,
        encoder_convs=(1, 1, 1), decoder_convs=(1, 1),
    )  # fmt: skip
    plan = store.plan.revised(network=wider, user_set={"network.features": "--filters 4,12,16"})
    config = tiny_config(epochs=1, steps_per_epoch=1, val_cases=0, pretrained=str(tmp_path / "old"))
    with pytest.raises(OptionError, match=r"stage 2 of the encoder would keep random weights: encoder\.1\.") as refused:
        train(store, 0, tmp_path / "run", config.revised(freeze_stages=2), plan=plan)
    assert refused.value.remedy.startswith("use --freeze-stages 1, or leave out the options that change the network")
    assert not (tmp_path / "run").exists()
    assert train(store, 0, tmp_path / "run", config.revised(freeze_stages=1), plan=plan).steps == 1


def test_the_first_stage_is_not_frozen_with_channels_that_the_model_does_not_know(tmp_path: Path) -> None:
    plan = make_test_plan(2, channels=("CT",))
    store = make_store(tmp_path / "store", plan=plan)
    save_model(tmp_path / "old", make_test_plan(2, channels=("MRI",)))
    config = tiny_config(epochs=1, steps_per_epoch=1, val_cases=0, pretrained=str(tmp_path / "old"))
    with pytest.raises(OptionError, match="has no weights for CT, and the first stage") as refused:
        train(store, 0, tmp_path / "run", config.revised(freeze_stages=1))
    assert "leave out --freeze-stages" in refused.value.remedy
    assert not (tmp_path / "run").exists()
    assert train(store, 0, tmp_path / "run", config).steps == 1


def test_channels_of_the_model_in_another_order_can_be_frozen(tmp_path: Path) -> None:
    save_model(tmp_path / "old", make_plan(("T1", "T2"), ["liver"]))
    plan = make_plan(("T2", "T1"), ["liver"])
    transfer = load_pretrained(build_network(plan.network, seed=1), plan, tmp_path / "old")
    assert transfer.unknown == {}
    more = make_plan(("T2", "FLAIR"), ["liver", "spleen"])
    unknown = load_pretrained(build_network(more.network, seed=1), more, tmp_path / "old").unknown
    assert sorted(set(unknown.values())) == [("FLAIR",), ("spleen",)]


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
    recipe = train_config(preset="recipe", pretrained=tmp_path)
    assert recipe.optimizer.learning_rate == pytest.approx(1e-4)
    assert recipe.optimizer.weight_decay == 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"learning_rate": 0.1},
        {"momentum": 0.8},
        {"optimizer": "adamw", "warmup": 0.2},
        {"optimizer": {"name": "adam", "weight_decay": 1e-3}},
        {"optimizer": {"name": "sgd", "learning_rate": 0.1}},
        {"optimizer": OPTIMIZERS.settings({"name": "adam", "weight_decay": 1e-3})},
        {"schedule": "constant"},
        {"schedule": {"name": "poly"}},
    ],
)
def test_python_and_the_command_line_have_the_same_defaults(tmp_path: Path, settings: dict[str, object]) -> None:
    expected = train_config(pretrained=tmp_path, **settings)
    config = TrainConfig(pretrained=str(tmp_path), **settings)
    assert config == expected
    assert TrainConfig().revised(pretrained=str(tmp_path), **settings) == expected
    assert TrainConfig(**settings).revised(pretrained=str(tmp_path)) == expected
    assert TrainConfig.model_validate_json(expected.model_dump_json()) == expected
    assert TrainConfig.model_validate_json(TrainConfig(**settings).model_dump_json()) == TrainConfig(**settings)


def test_a_recorded_config_keeps_its_steps(tmp_path: Path) -> None:
    """Also one of a training that began with the full rate."""
    recorded = TrainConfig(learning_rate=0.1, warmup=0.03).model_dump() | {"pretrained": str(tmp_path)}
    config = TrainConfig.model_validate(recorded)
    assert (config.optimizer.learning_rate, config.schedule.warmup) == (0.1, 0.03)
    with pytest.raises(ValidationError, match="no optimizer called 'sdg'; did you mean sgd"):
        TrainConfig(pretrained=str(tmp_path), optimizer="sdg")


MEDNEXT = MedNeXtSpec(
    dims=2,
    in_channels=1,
    out_channels=3,
    kernels=((3, 3),) * 3,
    strides=((1, 1), (2, 2), (2, 2)),
    features=(4, 8, 16),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1),
    encoder_expansion=(2, 2, 2),
    decoder_expansion=(2, 2),
)


@pytest.mark.parametrize(
    ("network", "n_stages", "frozen"),
    [
        (make_test_network(2), 1, ("encoder.0.",)),
        (make_test_network(2).revised(block="residual"), 1, ("encoder.0.",)),
        (make_test_network(2).revised(norm="batch"), 1, ("encoder.0.",)),
        (MEDNEXT, 1, ("stem.", "encoder.0.")),
        (MEDNEXT, 2, ("stem.", "encoder.0.", "downs.0.", "encoder.1.")),
    ],
)
def test_training_starts_from_the_weights_and_leaves_frozen_stages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, network: NetworkSpec, n_stages: int, frozen: tuple[str, ...]
) -> None:
    store = make_store(tmp_path / "store", plan=make_test_plan(2, network=network))
    old = save_model(tmp_path / "old", store.plan)
    config = tiny_config(
        epochs=1, steps_per_epoch=2, pretrained=str(tmp_path / "old"), freeze_stages=n_stages, learning_rate=1e-3
    )
    with caplog.at_level("INFO"):
        result = train(store, 0, tmp_path / "run", config)
    assert "pretrained: " in caplog.text
    before, after = old.build(number=0).state_dict(), ModelBundle.load(result.model).build(number=0).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(frozen))
    trained = [name for name, _ in old.build(number=0).named_parameters() if not name.startswith(frozen)]
    changes = {name: (before[name] - after[name]).abs().max() for name in trained}
    assert 0 < max(changes.values()) < 0.1
    assert all(change > 0 for name, change in changes.items() if name.endswith("conv.weight"))
    (tmp_path / "old").rename(tmp_path / "away")
    assert train(store, 0, tmp_path / "run", config, resume=True).steps == 2, "a resumed run does not need the model"


def test_a_start_from_a_model_that_has_seen_held_out_cases_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path / "store", dims=2)
    config = tiny_config(epochs=1, steps_per_epoch=1)
    models = {fold: train(store, fold, tmp_path / f"of_{fold}", config).model for fold in (0, "all")}
    for fold, says in ((0, ""), ("all", "was trained on all cases of the same dataset and has seen cases that fold 0")):
        caplog.clear()
        train(store, 0, tmp_path / f"from_{fold}", config.revised(pretrained=str(models[fold])))
        assert says in caplog.text
        assert ("scores will be too high" in caplog.text) is bool(says)
    caplog.clear()
    train(store, "all", tmp_path / "all_from_0", config.revised(pretrained=str(models[0])))
    assert "scores will be too high" not in caplog.text
