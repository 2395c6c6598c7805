"""The comparison of two checkouts sees every difference, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmark_support import importable
from decathlete.training.reporting.records import EpochRecord, write_logs


@pytest.fixture(autouse=True)
def equality():
    """Its modules."""
    with importable("equality"):
        yield


WEIGHTS = {"encoder.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "head.bias": np.array([0.0, np.nan])}


def test_equal_arrays_are_equal_nan_included():
    from results import compare

    found = compare("2d", "weights", WEIGHTS, {name: array.copy() for name, array in WEIGHTS.items()})
    assert (found.equal, found.n, found.max_difference, found.note) == (True, 2, 0.0, "")


def test_the_last_bit_of_one_number_counts():
    from results import compare

    changed = WEIGHTS["encoder.weight"].copy()
    changed[1, 2] = np.nextafter(changed[1, 2], np.float32(9))
    found = compare("2d", "weights", WEIGHTS, WEIGHTS | {"encoder.weight": changed})
    assert not found.equal
    assert found.max_difference == pytest.approx(4.8e-7, rel=0.01)
    assert found.note == "1 differ: encoder.weight"


@pytest.mark.parametrize(
    ("other", "difference"),
    [(np.array([0.0, 1.0]), np.inf), (np.array([0.0]), np.inf), (np.array([-0.0, np.nan]), 0.0)],
    ids=["a number for NaN", "another shape", "another sign of zero"],
)
def test_other_values_differ(other, difference):
    from results import compare

    found = compare("2d", "weights", WEIGHTS, WEIGHTS | {"head.bias": other})
    assert (found.equal, found.max_difference) == (False, difference)


def test_figures_of_a_training_are_read_without_its_times(tmp_path):
    from results import read_losses

    run = tmp_path / "results" / "Task01_Small" / "3d" / "fold_0"
    run.mkdir(parents=True)
    times = {"seconds": 2.0, "elapsed": 2.5, "patches_per_second": 6.0}
    epoch = EpochRecord(epoch=0, step=3, **times, train_loss=0.5, learning_rate=1e-3, dice={"a": 0.75}, coarse=True)
    write_logs(run, ["a"], [epoch])
    found = read_losses(tmp_path)
    assert (found["train_loss"], found["dice_a"], found["step"]) == ([0.5], [0.75], [3])
    assert {*times, "coarse"}.isdisjoint(found)
    assert np.isnan(found["val_loss"]).all()


def test_a_missing_tensor_differs_and_a_renamed_one_is_noted():
    from results import compare

    missing = compare("2d", "weights", WEIGHTS, {"head.bias": WEIGHTS["head.bias"]})
    assert not missing.equal
    renamed = compare("2d", "weights", WEIGHTS, {f"new.{name}": array for name, array in WEIGHTS.items()})
    assert renamed.equal
    assert renamed.note.startswith("same values; 2 names missing, 2 added")


@pytest.mark.parametrize(
    ("file", "prefix"), [("weights", "0."), ("members/a/weights", ""), ("members/a", "network.0.")]
)
def test_weights_are_found_in_other_layouts(file, prefix, tmp_path: Path):
    from results import compare, read_weights

    for side, name, before in (("old", "weights", ""), ("new", file, prefix)):
        path = tmp_path / side / "results" / "Task" / "fold_0" / "model" / f"{name}.safetensors"
        path.parent.mkdir(parents=True)
        save_file({before + key: array for key, array in WEIGHTS.items()}, path)
    found = compare("2d", "weights", read_weights(tmp_path / "old"), read_weights(tmp_path / "new"))
    assert (found.equal, found.note) == (True, "")


def test_renamed_options_reach_the_other_checkout():
    from run import renamed

    arguments = ["-m", "decathlete", "--seed=7", "--set", "mirror_axes=0,1", "--focal"]
    names = {"--seed": "--random-seed", "mirror_axes": "flip_axes", "--focal": "--loss=focal"}
    expected = ["-m", "decathlete", "--random-seed=7", "--set", "flip_axes=0,1", "--loss=focal"]
    assert renamed(arguments, names) == expected


def test_datasets_are_the_same_whenever_they_are_made(tmp_path: Path):
    import nibabel

    from data import make_data

    for side in ("old", "new"):
        make_data(tmp_path / side)
    images = sorted(path.relative_to(tmp_path / "old") for path in (tmp_path / "old").rglob("*.nii.gz"))
    assert len(images) == 18
    for image in images:
        first, second = (np.asarray(nibabel.load(tmp_path / side / image).dataobj) for side in ("old", "new"))
        assert first.tobytes() == second.tobytes()
