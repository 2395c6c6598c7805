"""The recipe's fixed settings, and what becomes of them in a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decathlete.dataset.decathlon import TASKS
from decathlete.planning.overrides import plan_with, preset_options
from decathlete.planning.plan import Plan
from decathlete.planning.presets import load_preset
from made_up import made_up_fingerprint, made_up_spec

RECIPE = load_preset("recipe")


def planned(dataset: str, dims: int = 3, *, channels: tuple[str, ...] = ("CT",), **options: object) -> Plan:
    spec = replace(made_up_spec(channels), name=dataset)
    fingerprint = made_up_fingerprint([(90, 200, 180)] * 9, [(0.9, 0.8, 1.1)] * 9, n_channels=len(channels))
    return plan_with(spec, fingerprint, dims=dims, options=preset_options("recipe", **options))


@pytest.mark.parametrize("task", RECIPE.tasks, ids=lambda task: task.name)
@pytest.mark.parametrize("dims", [2, 3])
def test_each_task_has_its_patch_its_spacing_and_a_network_that_fits(task, dims):
    plan = planned(f"Task{task.number:02d}_{task.name}", dims)
    patch = task.patch_3d if dims == 3 else task.patch_2d
    assert plan.batch_size == (2 if dims == 3 else 16)
    assert (plan.preprocessing_order, plan.network.heads) == ("recipe", 1)
    assert plan.network.n_stages <= 6
    if patch is None:
        return
    assert plan.patch_size == patch
    assert plan.axis_order == (0, 1, 2)
    assert plan.target_spacing[1:] == task.spacing[1:]
    assert plan.target_spacing[0] == (task.spacing[0] if dims == 3 else None)
    assert plan.reasons["patch_size"] == "set by --preset recipe"
    if task.ct:
        ct = plan.normalization[0]
        assert (ct.component, ct.clip_low, ct.std) == ("ct", task.ct.clip_low, task.ct.std)


def test_the_tasks_are_the_decathlons():
    assert {(t.number, t.name) for t in RECIPE.tasks[:10]} == {(t.number, t.organ) for t in TASKS}


def test_a_task_that_is_not_listed_is_planned():
    plan = planned("Task04_Kidney")
    assert plan.axis_order == (2, 0, 1)
    assert plan.normalization[0].clip_low == -120
    assert (plan.batch_size, plan.preprocessing_order) == (2, "recipe")


def test_what_the_user_sets_wins():
    plan = planned("Dataset004_Hippocampus", overrides=("patch_size=32,32,32",))
    assert plan.patch_size == (32, 32, 32)
    assert plan.reasons["patch_size"] == "set by --set patch_size=32,32,32"
    assert plan.target_spacing == (1, 1, 1)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("4", "Hippocampus"), ("04", "Hippocampus"), ("Task04_Hippocampus", "Hippocampus"), ("task10", "Colon")],
)
def test_tasks_are_found_by_number_or_folder(wanted, name):
    task = RECIPE.task(wanted)
    assert task is not None
    assert task.name == name


@pytest.mark.parametrize("wanted", ["13", "Hippocampus", "", "4.5"])
def test_other_names_are_no_tasks(wanted):
    assert RECIPE.task(wanted) is None


@pytest.mark.parametrize("task", RECIPE.tasks, ids=lambda task: task.name)
def test_tasks_with_ct_statistics_are_of_ct(task):
    assert (task.channels == ("CT",)) == (task.ct is not None)
    assert task.labels
