"""Which loader a training takes, and what it refuses before anything is begun."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from decathlete.augmentation.config import AugmentationConfig
from decathlete.errors import OptionError
from decathlete.loading.dali import check_dali
from decathlete.training.distributed.devices import choose_hardware
from decathlete.training.loop.batches import check_loader, device_augmenter
from decathlete.training.loop.task import TrainTask
from decathlete.training.run import train
from decathlete.workflows.run import run
from decathlete.workflows.workspace import Workspace
from factories import make_test_plan
from training_support import make_store, tiny_config


@pytest.fixture
def no_dali(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)


def task_of(plan, config) -> TrainTask:
    return TrainTask(
        store=Path(),
        folder=Path(),
        plan=plan,
        config=config,
        hardware=choose_hardware(config),
        train_ids=(),
        val_ids=(),
        started=0.0,
        log_level=0,
    )


def test_without_dali_training_says_what_to_install_and_writes_nothing(no_dali, tmp_path):
    with pytest.raises(OptionError, match="not installed") as caught:
        train(make_store(tmp_path / "store"), 0, tmp_path / "run", tiny_config(loader="dali"))
    assert 'pip install ".[dali]"' in caught.value.remedy
    assert not (tmp_path / "run").exists()


def test_dali_leaves_the_masks_of_a_cascade_to_the_training_device(monkeypatch):
    for name in ("nvidia", "nvidia.dali"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    check_dali(AugmentationConfig.recipe(3).with_corrupted_masks())


def test_run_says_so_before_it_prepares(no_dali, tmp_path):
    with pytest.raises(OptionError, match="not installed"):
        run(tmp_path, workspace=Workspace(prepared=tmp_path / "prepared"), config=tiny_config(loader="dali"))
    assert not (tmp_path / "prepared").exists()


def test_transforms_that_dali_lacks_are_refused_by_name():
    with pytest.raises(OptionError, match="no rotation, no low resolution, no gamma inverted, no gamma") as caught:
        check_loader(tiny_config(loader="dali", augmentation=AugmentationConfig.default(3)))
    assert "recipe" in caught.value.remedy
    check_loader(tiny_config(augmentation=AugmentationConfig.default(3)))


@pytest.mark.parametrize("dims", [2, 3])
def test_with_dali_the_recipes_augmentation_is_the_default_and_is_not_done_twice(dims):
    plan = make_test_plan(dims, mirror_axes=(1,))
    task = task_of(plan, tiny_config(loader="dali"))
    recipe = AugmentationConfig.recipe(dims)
    assert task.augmentation == recipe.revised(mirroring={"axes": (1,)})
    assert device_augmenter(task).config == AugmentationConfig.none()
    with_threads = task_of(plan, tiny_config())
    assert device_augmenter(with_threads).config == with_threads.augmentation != task.augmentation


def test_the_loader_is_kept_when_resuming():
    assert tiny_config().differences(tiny_config(loader="dali")) == ["loader: threads -> dali"]
