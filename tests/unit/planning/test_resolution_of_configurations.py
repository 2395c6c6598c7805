"""The grid for a training time of each configuration, with what the user set about the coarse start."""

from __future__ import annotations

from pathlib import Path

import pytest

from decathlete.errors import OptionError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning import resolution as planning_resolution
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.configurations import plan_configuration
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.planning.resolution import Ceiling
from decathlete.training.config import TrainConfig
from decathlete.workflows import resolution
from made_up import made_up_fingerprint, made_up_spec

LARGE = made_up_fingerprint([(128, 512, 512)] * 20, [(1, 0.8, 0.8)] * 20)
SPEC = made_up_spec()


@pytest.fixture
def plan_for_minutes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Plans a configuration for five minutes, as if every grid kept the labels as they are."""

    def measured(cases, plan, spacings, **_):
        with (tmp_path / "measured.txt").open("a") as notes:
            notes.write(f"{plan.configuration_name} ")
        return tuple(Ceiling(spacing=spacing, dice=(1.0,)) for spacing in spacings)

    monkeypatch.setattr(planning_resolution, "FEWEST_CASES", 0)
    monkeypatch.setattr(resolution, "measure_ceilings", measured)
    budget = ComputeBudget(device="cpu", max_time_s=300, threads=2, arithmetic="bf16")
    monkeypatch.setattr(resolution, "budget_of_folds", lambda *_, **__: budget)

    def planned(configuration, *overrides: str, recorded: Plan | None = None, pretrained: str | None = None) -> Plan:
        options = PlanOptions(overrides=overrides)
        plan = plan_configuration(SPEC, LARGE, configuration, options=options)
        return resolution.plan_resolution(
            plan,
            SPEC,
            LARGE,
            options=options,
            config=TrainConfig(max_time_s=300, pretrained=pretrained),
            folder=tmp_path,
            recorded=recorded,
            workers=1,
        )

    return planned


@pytest.mark.parametrize("configuration", ["2d", "3d", "3d_lowres", "3d_cascade"])
def test_no_configuration_has_a_coarse_start_that_the_user_does_not_want(plan_for_minutes, configuration):
    with_start, without = plan_for_minutes(configuration), plan_for_minutes(configuration, "coarse_start=none")
    assert with_start.coarse_start is not None
    assert (without.coarse_start, without.target_spacing) == (None, with_start.coarse_start.target_spacing)


def test_a_coarse_grid_of_full_resolution_does_not_limit_that_of_the_low_resolution(plan_for_minutes):
    assert plan_for_minutes("3d_lowres", "coarse_start=1.2,1.2,1.2").digest == plan_for_minutes("3d_lowres").digest


def test_a_share_alone_waits_for_the_planned_start_and_is_checked_at_once(plan_for_minutes):
    for configuration in ("2d", "3d", "3d_lowres"):
        assert plan_for_minutes(configuration, "coarse_start.share=0.25") == plan_for_minutes(configuration)
    assert plan_for_minutes("3d_lowres", "coarse_start=2,2,2", "coarse_start.share=0.25").coarse_start is not None
    with pytest.raises(OptionError, match="less than 1"):
        plan_configuration(SPEC, LARGE, "3d", options=PlanOptions(overrides=("coarse_start.share=1",)))
    with pytest.raises(OptionError, match="has no coarse_start"):
        plan_for_minutes("3d", "coarse_start=none", "coarse_start.share=0.25")


@pytest.mark.parametrize("configuration", ["2d", "3d_lowres"])
def test_prepared_data_keep_their_plan_when_another_time_would_be_planned_otherwise(
    plan_for_minutes, monkeypatch, configuration
):
    recorded = plan_for_minutes(configuration)
    month = ComputeBudget(device="cpu", max_time_s=30 * 24 * 3600, threads=32, arithmetic="bf16_tiles")
    monkeypatch.setattr(resolution, "budget_of_folds", lambda *_, **__: month)
    assert plan_for_minutes(configuration).target_spacing != recorded.target_spacing
    assert plan_for_minutes(configuration, recorded=recorded) == recorded
    z, y, x = recorded.median_shape
    older = recorded.revised(median_shape=(z, y - 1, x))
    assert plan_for_minutes(configuration, recorded=older) == older, "runs of an older release can be resumed"
    other_data = older.revised(fingerprint_digest="other")
    assert plan_for_minutes(configuration, recorded=other_data) == recorded


def test_the_grid_is_chosen_for_the_network_that_is_trained(plan_for_minutes, monkeypatch, tmp_path):
    """In the same time a wide network, which is not narrowed, makes fewer steps: its grid is coarser."""
    half_a_day = ComputeBudget(device="cpu", max_time_s=12 * 3600, threads=2, arithmetic="bf16")
    monkeypatch.setattr(resolution, "budget_of_folds", lambda *_, **__: half_a_day)
    own = plan_for_minutes("3d")
    wide = own.network.revised(
        features=(48, 48), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3),) * 2, encoder_convs=(4, 4),
        decoder_convs=(4,), heads=1,
    )  # fmt: skip
    model = own.revised(network=wide, coarse_start=None)
    ModelBundle.save(tmp_path / "model", TrainedMember(plan=model, networks=[build_network(wide, seed=1)]))
    chosen = plan_for_minutes("3d", pretrained=str(tmp_path / "model"))
    assert chosen.on_coarse_grid().target_spacing[2] > own.on_coarse_grid().target_spacing[2]
    assert chosen.network.features[0] == own.network.features[0], "the data are prepared for any network"
    assert chosen.user_set == own.user_set


def test_ceilings_are_measured_once_for_all_configurations_with_the_same_grids(plan_for_minutes, tmp_path):
    for configuration in ("3d", "3d_cascade", "3d", "3d_lowres", "3d_cascade"):
        plan_for_minutes(configuration)
    assert (tmp_path / "measured.txt").read_text() == "3d 3d_lowres "
