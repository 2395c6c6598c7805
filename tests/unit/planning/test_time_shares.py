"""Configurations are chosen, and the time is divided, by the plans that are trained in each share of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from decathlete.core.choices import Configuration
from decathlete.core.sliding_window import SlidingWindow
from decathlete.dataset.splits import Fold, Splits
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.configurations import (
    CONFIGURATIONS,
    ConfigurationOffer,
    offered_configurations,
    plan_configuration,
    why_low_resolution_adds_nothing,
)
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.planning.resolution import Ceiling
from decathlete.training.config import TrainConfig
from decathlete.workflows import resolution, time_shares
from decathlete.workflows.checked_dataset import CheckedDataset
from decathlete.workflows.choose_configurations import ConfigurationChooser
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.prepared_configurations import CommonFolds
from decathlete.workflows.scoring_time import expected_case_seconds
from decathlete.workflows.time_shares import SharePlanner, Shares, TimedPlan, leave_out_by_time
from decathlete.workflows.total_time import OtherWork
from decathlete.workflows.training_jobs import Job, list_jobs, training_time
from factories import make_test_plan
from made_up import made_up_fingerprint, made_up_spec

SPEC = made_up_spec()
LARGE = made_up_fingerprint([(300, 512, 512)] * 2, [(1, 0.8, 0.8)] * 2)
"""The rules plan a low resolution of 2.03 × 1.63 × 1.63 mm; ten minutes on two threads are enough for 3.2 mm."""
LAPTOP = ComputeBudget(device="cpu", threads=2, arithmetic="bf16")
WORKSTATION = ComputeBudget(device="cuda")
TEN_MINUTES = 600.0
RULES = {name: plan_configuration(SPEC, LARGE, name) for name in CONFIGURATIONS}
IDS = ("case0", "case1")
SPLITS = Splits(seed=0, grouped=False, folds=tuple(Fold(train=(IDS[1 - n],), val=(IDS[n],)) for n in range(2)))

MakeChooser = Callable[..., ConfigurationChooser]


@dataclass(frozen=True, kw_only=True)
class FixedWork(OtherWork):
    """Takes ``seconds``, whatever is scored."""

    seconds: float

    def total_s(self, *_: object, **__: object) -> float:
        return self.seconds


@pytest.fixture
def make_chooser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeChooser:
    """Makes choosers for a dataset of large images; coarser grids keep ``coarse_dice`` of the labels."""

    def make(
        *,
        machine: ComputeBudget = LAPTOP,
        total_time_s: float | None = None,
        max_time_s: float | None = None,
        started: dict[Job, float] | None = None,
        options: PlanOptions = PlanOptions(),
        spent_s: float = 0.0,
        coarse_dice: float = 1.0,
    ) -> ConfigurationChooser:
        folder = tmp_path / str(coarse_dice)
        folder.mkdir(exist_ok=True)

        def budget(config: TrainConfig, *_: object, **__: object) -> ComputeBudget:
            return replace(machine, max_time_s=config.max_time_s)

        def plan_in(name: Configuration, time_s: float) -> Plan:
            return resolution.plan_resolution(
                plan_configuration(SPEC, LARGE, name, options=options),
                SPEC,
                LARGE,
                options=options,
                config=TrainConfig(max_time_s=time_s),
                folder=folder,
                recorded=None,
                workers=1,
            )

        def measured(
            cases: object, plan: Plan, spacings: Sequence[resolution.Spacing], **_: object
        ) -> tuple[Ceiling, ...]:
            dice = [1.0, *[coarse_dice] * (len(spacings) - 1)]
            return tuple(Ceiling(spacing=s, dice=(d,)) for s, d in zip(spacings, dice, strict=True))

        monkeypatch.setattr(resolution, "measure_ceilings", measured)
        for module in (resolution, time_shares):
            monkeypatch.setattr(module, "budget_of_folds", budget)
        dataset = CheckedDataset(
            spec=SPEC,
            fingerprint=LARGE,
            folds=CommonFolds(splits=SPLITS, prepared={}),
            offers=offered_configurations(SPEC, LARGE, options=options),
        )
        config = TrainConfig(max_time_s=max_time_s or total_time_s)
        planner = SharePlanner(
            pipeline=FoldPipeline(task="Made", workers=1),
            dataset=dataset,
            folds=(0, 1),
            plan_in=plan_in,
            config_of=lambda _: config,
            total_time_s=total_time_s,
            max_members=2,
            started=lambda jobs: {job: time_s for job, time_s in (started or {}).items() if job in jobs},
            spent_s=lambda: spent_s,
        )
        return ConfigurationChooser(
            dataset=dataset,
            plan_of=lambda name: plan_configuration(SPEC, LARGE, name, options=options),
            config_of=lambda _: config,
            planner=planner,
        )

    return make


def shares_of(chooser: ConfigurationChooser, *names: Configuration) -> Shares:
    shares = chooser.planner.shares(names)
    assert shares is not None
    return shares


def test_steps_and_scoring_are_those_of_the_plan_that_is_trained(make_chooser: MakeChooser) -> None:
    shares = shares_of(make_chooser(max_time_s=TEN_MINUTES), "3d")
    found, budget = shares.plans["3d"], replace(LAPTOP, max_time_s=TEN_MINUTES)
    assert found.plan.target_spacing == (3.2, 3.2, 3.2)
    assert found.plan.patch_size != RULES["3d"].patch_size, "adapted to the time"
    at_full_resolution = adapt_plan(RULES["3d"], budget, n_cases=len(IDS), warn=False)
    n_voxels = 300 * 512 * 512
    full_s, trained_s = (
        expected_case_seconds(plan, budget, SlidingWindow(), n_voxels=n_voxels)
        for plan in (at_full_resolution, found.plan)
    )
    assert (found.steps, found.case_s) == (946, trained_s)
    assert time_shares.steps_after_adaptation(RULES["3d"], budget, n_cases=len(IDS)) == 419
    assert trained_s < full_s / 3
    assert shares.other.expected_s["3d"] == pytest.approx(trained_s, abs=5)


def test_the_longest_share_is_found_that_leaves_time_for_scoring(make_chooser: MakeChooser) -> None:
    """At full resolution, scoring would take more than all of the time, and every training the least share."""
    for total_s in (1200.0, 3600.0, 36_000.0):
        chooser = make_chooser(total_time_s=total_s, spent_s=100)
        shares = shares_of(chooser, "2d", "3d")
        names: list[Configuration] = ["2d", "2d", "3d", "3d"]
        left_s = training_time(total_s, other_s=100 + shares.other.total_s(names)) / 4
        assert shares.time_s <= left_s
        assert left_s == pytest.approx(shares.time_s, rel=0.25)
        trained = shares.plans["3d"].plan
        again = chooser.planner.plan_in("3d", shares.time_s)
        assert trained.target_spacing == again.target_spacing
    assert left_s > 0.8 * 36_000 / 4


@pytest.mark.parametrize(
    ("scoring_s", "expected_s"), [((0, 92, 150), 54), ((90, 92, 150), 50.5), ((150, 150, 150), 25)]
)
def test_the_search_goes_on_until_no_longer_share_is_left_to_try(
    make_chooser: MakeChooser, monkeypatch: pytest.MonkeyPatch, scoring_s: Sequence[float], expected_s: float
) -> None:
    """Scoring takes longer beside shares of 30 s, and again of 60 s; 92 s of it leave 54 s for each training."""

    def plan(planner: SharePlanner, names: Sequence[Configuration], time_s: float) -> Shares:
        scoring = scoring_s[(time_s > 30) + (time_s >= 60)]
        return Shares(time_s=time_s, plans={}, other=FixedWork(expected_s={}, n_folds=2, seconds=scoring))

    monkeypatch.setattr(SharePlanner, "_plan", plan)
    shares = make_chooser(total_time_s=200).planner.shares(["3d"])
    assert shares is not None
    assert shares.time_s == expected_s


def test_time_that_was_spent_is_not_divided(make_chooser: MakeChooser) -> None:
    late = shares_of(make_chooser(total_time_s=36_000, spent_s=18_000), "2d", "3d")
    assert late.time_s < 18_000 / 4


def test_a_low_resolution_that_full_resolution_has_reached_is_left_out(
    make_chooser: MakeChooser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    chooser = make_chooser(total_time_s=8 * TEN_MINUTES)
    assert chooser.choose([]) == ("2d", "3d")
    assert (
        "for each training, 3d is trained at 3.2 × 3.2 × 3.2 mm, not finer than the low resolution by the rule "
        "(2.033 × 1.626 × 1.626 mm)" in caplog.text
    )
    assert "3d_cascade is not trained: its first stage is left out: in " in caplog.text


def test_a_low_resolution_is_kept_for_a_reason_about_what_is_trained(
    make_chooser: MakeChooser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    chooser = make_chooser(machine=WORKSTATION, total_time_s=400 * 3600.0, coarse_dice=0.5)
    assert chooser.choose([]) == CONFIGURATIONS
    (line,) = (record.message for record in caplog.records if record.message.startswith("3d_lowres is trained"))
    assert "a patch of 3d covers 3.1% of the median image at 1 × 0.8 × 0.8 mm" in line
    assert "a patch of 3d_lowres covers" in line


def test_a_patch_that_covers_enough_on_its_grid_needs_no_low_resolution() -> None:
    full, low = RULES["3d"], RULES["3d_lowres"]
    assert why_low_resolution_adds_nothing(full, low) is None
    z, y, x = full.patch_size
    wide = full.revised(median_shape=(z, y, 3 * x))
    assert why_low_resolution_adds_nothing(wide, low) == (
        "a patch of 3d covers 33.3% of the median image at 1 × 0.8 × 0.8 mm, which is enough"
    )
    for times, hardly in ((1.2, "hardly"), (0.9, "not")):
        near = full.at_spacing(tuple(s / times for s in low.network_spacing))
        assert f" mm, {hardly} finer than" in (why_low_resolution_adds_nothing(near, low) or "")
    assert why_low_resolution_adds_nothing(full.at_spacing(tuple(s / 1.3 for s in low.network_spacing)), low) is None


def test_the_time_of_each_training_also_decides_about_the_low_resolution(make_chooser: MakeChooser) -> None:
    assert make_chooser(max_time_s=TEN_MINUTES).choose([]) == ("2d", "3d")
    assert make_chooser(max_time_s=1.0).choose([]) == ("2d", "3d"), "the user set a short time, and it is used"
    assert make_chooser().choose([]) == CONFIGURATIONS, "by the images alone"


@pytest.mark.parametrize("full", ["3d", "3d_cascade"])
def test_a_low_resolution_that_is_named_is_trained_with_a_warning(
    make_chooser: MakeChooser, caplog: pytest.LogCaptureFixture, full: Configuration
) -> None:
    named: tuple[Configuration, ...] = ("3d_lowres", full)
    assert make_chooser(total_time_s=8 * TEN_MINUTES).choose(named) == named
    assert "3d_lowres is trained, since it was named, but probably adds nothing: in " in caplog.text
    assert f"{full} is trained at 3.2 × 3.2 × 3.2 mm, not finer than" in caplog.text
    caplog.clear()
    chooser = make_chooser(machine=WORKSTATION, total_time_s=400 * 3600.0, coarse_dice=0.5)
    assert chooser.choose(named) == named
    assert caplog.text == ""


def test_what_an_earlier_command_began_is_kept_with_its_time(make_chooser: MakeChooser) -> None:
    began: dict[Job, float] = {Job(configuration="3d_lowres", fold=0): 70.0}
    chooser = make_chooser(total_time_s=8 * TEN_MINUTES, started=began)
    assert "3d_lowres" in chooser.choose([])
    shares = shares_of(chooser, "2d", "3d_lowres")
    assert shares.plans["3d_lowres"].plan.reasons["budget"].count("in 1.17 min"), "planned for 70 s"


def offers(*names: Configuration) -> tuple[ConfigurationOffer, ...]:
    return tuple(ConfigurationOffer(name=n, offered=True, reason="", plan=make_test_plan(3)) for n in names)


def left_out(
    names: Sequence[Configuration],
    *,
    total_s: float,
    steps_per_s: dict[Configuration, float] | None = None,
    started: Sequence[Configuration] = (),
) -> dict[Configuration, str]:
    """Return the configurations of one fold each that are left out; every training makes one step in a second."""
    full = make_test_plan(3).revised(median_shape=(900, 900, 900))

    def shares(kept: Sequence[Configuration]) -> Shares:
        time_s = total_s / len(list_jobs(kept, [0], n_folds=2))
        steps = {name: int((steps_per_s or {}).get(name, 1) * time_s) for name in kept}
        plans = {name: TimedPlan(plan=full, steps=steps[name], case_s=1) for name in kept}
        return Shares(time_s=time_s, plans=plans, other=OtherWork(expected_s={}, n_folds=1))

    z, y, x = full.network_spacing
    low = full.at_spacing((2 * z, 2 * y, 2 * x))
    offered = [replace(offer, plan=low) if offer.name == "3d_lowres" else offer for offer in offers(*names)]
    found = leave_out_by_time(offered, shares_of=shares, started=started)
    return {offer.name: offer.reason for offer in found if not offer.offered}


def test_auto_leaves_out_what_the_time_is_too_short_for_and_says_so() -> None:
    # 5 trainings: a first stage needs both folds
    assert left_out(CONFIGURATIONS, total_s=500) == {}
    short = left_out(CONFIGURATIONS, total_s=400)
    assert set(short) == {"3d_cascade"}
    assert (
        short["3d_cascade"] == "the time is too short: 1 min 20 s for each training are about 80 steps, fewer than 100"
    )
    assert set(left_out(CONFIGURATIONS, total_s=100)) == {"3d", "3d_lowres", "3d_cascade"}
    assert set(left_out(CONFIGURATIONS, total_s=1)) == {"3d", "3d_lowres", "3d_cascade"}, "one is always trained"


def test_what_was_started_and_the_first_stage_of_a_cascade_belong_together() -> None:
    assert set(left_out(["2d", "3d"], total_s=10, started=["3d"])) == {"2d"}
    slow_first = left_out(
        ["2d", "3d_lowres", "3d_cascade"], total_s=400, steps_per_s={"3d_lowres": 0.5, "3d_cascade": 2}, started=["2d"]
    )
    assert list(slow_first) == ["3d_lowres", "3d_cascade"]
