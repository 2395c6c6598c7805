"""Which configurations ``run --configurations`` trains, and by which folds."""

from __future__ import annotations

from pathlib import Path

import pytest

from decathlete.core.choices import Configuration
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.splits import Fold, Splits
from decathlete.errors import ModelError, OptionError, PlanError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning import compute_budget
from decathlete.planning.compute_budget import Speed
from decathlete.planning.configurations import CONFIGURATIONS, ConfigurationOffer, dims_of
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows.checked_dataset import CheckedDataset
from decathlete.workflows.choose_configurations import ConfigurationChooser
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.prepared_configurations import CommonFolds
from decathlete.workflows.time_shares import SharePlanner
from factories import make_test_network, make_test_plan
from made_up import made_up_fingerprint

IDS = ("phantom_000", "phantom_001", "phantom_002")
PLANS = {name: make_test_plan(dims_of(name), median_shape=(28, 28, 28)) for name in CONFIGURATIONS}
PLANS["3d_lowres"] = PLANS["3d"].at_spacing((2, 2, 2))


def chooser(
    root: Path,
    *held_out: str,
    config: TrainConfig = TrainConfig(),
    total_time_s: float | None = None,
    max_members: int = 2,
) -> ConfigurationChooser:
    """A dataset whose only fold holds out these cases."""
    fold = Fold(train=tuple(case_id for case_id in IDS if case_id not in held_out), val=held_out)
    dataset = CheckedDataset(
        spec=read_dataset(make_phantoms(root / "Balls", n_cases=3, shape_ZYX=(8, 8, 8))),
        fingerprint=made_up_fingerprint([(20, 20, 20)] * 3, [(1, 1, 1)] * 3),
        folds=CommonFolds(splits=Splits(seed=0, grouped=False, folds=(fold,)), prepared={}),
        offers=tuple(
            ConfigurationOffer(name=name, offered=True, reason="offered", plan=PLANS[name]) for name in CONFIGURATIONS
        ),
    )
    planner = SharePlanner(
        pipeline=FoldPipeline(task=root / "Balls"),
        dataset=dataset,
        folds=(0,),
        plan_in=lambda name, _: PLANS[name],
        config_of=lambda _: config,
        total_time_s=total_time_s,
        max_members=max_members,
        started=lambda _: {},
    )
    return ConfigurationChooser(dataset=dataset, plan_of=PLANS.__getitem__, config_of=lambda _: config, planner=planner)


def test_a_cascade_needs_folds_that_hold_out_every_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    some = chooser(tmp_path / "some", "phantom_001")
    assert some.choose([]) == ("2d", "3d", "3d_lowres")
    assert "3d_cascade is not trained: no fold holds out 2 cases" in caplog.text
    with pytest.raises(ModelError, match="no fold holds out 2 cases: phantom_000, phantom_002") as problem:
        some.choose(["3d_lowres", "3d_cascade"])
    assert problem.value.code == "E-MODEL-STAGE"
    assert chooser(tmp_path / "all", *IDS).choose([]) == CONFIGURATIONS


def test_a_cascade_is_not_trained_for_models_of_one_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert chooser(tmp_path, *IDS, max_members=1).choose([]) == ("2d", "3d", "3d_lowres")
    assert "3d_cascade is not trained: it has 2 networks, and --max-members is 1" in caplog.text


@pytest.mark.parametrize("named", [("3d", "3d_lowres"), ("3d_lowres", "3d_cascade")])
def test_one_grid_of_the_user_for_both_resolutions_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[Configuration, ...]
) -> None:
    low = PLANS["3d"].revised(configuration="3d_lowres", user_set={"target_spacing": "--set target_spacing=1,1,1"})
    monkeypatch.setitem(PLANS, "3d_lowres", low)
    with pytest.raises(PlanError, match="is not finer than 3d_lowres"):
        chooser(tmp_path, *IDS).choose(named)


def test_configurations_that_the_pretrained_model_has_no_network_for_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    plan = PLANS["3d"]
    ModelBundle.save(tmp_path / "model", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    config = TrainConfig(pretrained=str(tmp_path / "model"), freeze_stages=1)
    choose = chooser(tmp_path, *IDS, config=config).choose
    assert choose([]) == ("3d", "3d_lowres", "3d_cascade")
    assert (
        "2d is not trained: the pretrained model has networks of other kinds (3D unet) than the training" in caplog.text
    )
    assert choose(["3d"]) == ("3d",)
    with pytest.raises(ModelError, match="networks of other kinds") as problem:
        choose(["2d", "3d"])
    assert "a 2D unet network, or train only what this model has networks for" in problem.value.remedy
    masked = make_test_plan(
        3, configuration="3d_cascade", previous_stage="3d_lowres", network=make_test_network(in_channels=3)
    )
    monkeypatch.setitem(PLANS, "3d_cascade", masked)
    assert chooser(tmp_path / "masked", *IDS, config=config).choose([]) == ("3d", "3d_lowres")
    assert "3d_cascade is not trained: --freeze-stages 1: " in caplog.text
    assert "has no weights for (previous stage) c1, (previous stage) c2" in caplog.text
    with pytest.raises(OptionError, match="--freeze-stages 9"):
        chooser(tmp_path / "more", *IDS, config=config.revised(freeze_stages=9)).choose([])


def test_steps_are_those_of_the_pretrained_network(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time for the small network of the plan, but not for the wide one of the model."""
    caplog.set_level("INFO")
    speed = Speed(gflops=1.0, elements=1.0)
    monkeypatch.setattr(compute_budget, "CPU_SPEED", dict.fromkeys(compute_budget.CPU_SPEED, speed))
    wide = PLANS["3d"].network.revised(features=(64, 64))
    plan = PLANS["3d"].revised(network=wide)
    ModelBundle.save(tmp_path / "model", TrainedMember(plan=plan, networks=[build_network(wide, seed=0)]))
    config = TrainConfig(device="cpu", precision="fp32")
    own = chooser(tmp_path / "own", *IDS, config=config, total_time_s=1200.0)
    assert own.choose([]) == CONFIGURATIONS
    started = chooser(
        tmp_path / "more", *IDS, config=config.revised(pretrained=str(tmp_path / "model")), total_time_s=1200.0
    )
    assert started.choose([]) == ("3d",)
    assert "for each training are about" in caplog.text
    scoring_s = [shares.other.expected_s["3d"] for c in (started, own) if (shares := c.planner.shares(["3d"]))]
    assert scoring_s[0] > 2 * scoring_s[1]
