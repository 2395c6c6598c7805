"""Weights of a bundle: a changed bit gives equal weights or an error; limits; files that may not be read."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decathlete.errors import DecathleteError, ModelError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.weights import LARGEST_WEIGHT
from decathlete.networks.build import build_network
from factories import make_test_network, make_test_plan

SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
PLAN = make_test_plan(network=make_test_network().revised(norm="batch"))


@pytest.fixture
def bundle(tmp_path) -> Path:
    member = TrainedMember(plan=PLAN, networks=[build_network(PLAN.network, seed=seed) for seed in range(2)])
    return ModelBundle.save(tmp_path / "model", member).folder


@SHARED_FOLDER
@given(st.sampled_from(["weights/3d.0.safetensors", "weights/3d.1.safetensors"]), st.floats(0, 1), st.integers(0, 7))
def test_a_changed_bit_is_an_error(bundle, name, place, bit):
    path = bundle / name
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[min(int(place * len(whole)), len(whole) - 1)] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        with pytest.raises(DecathleteError):
            ModelBundle.load(bundle)
    finally:
        path.write_bytes(whole)


def save_with(folder: Path, name: str, value: float) -> None:
    network = build_network(PLAN.network)
    state = dict(network.state_dict())
    name = next(n for n in state if n.endswith(name))
    state[name] = torch.full_like(state[name], value)
    ModelBundle.save(folder, TrainedMember(plan=PLAN, networks=[state]))


@pytest.mark.parametrize("value", [1.1 * LARGEST_WEIGHT, -3.5e35, torch.inf, torch.nan])
def test_weights_that_no_training_gives_are_not_saved(tmp_path, value):
    with pytest.raises(ModelError, match=r"heads\.0\.weight contains") as caught:
        save_with(tmp_path / "m", "heads.0.weight", value)
    assert caught.value.code == "E-MODEL-NOT-FINITE"
    assert list(tmp_path.iterdir()) == []


def test_statistics_may_be_large(tmp_path):
    save_with(tmp_path / "m", "running_var", 1e9)  # of intensities that are not normalised
    assert ModelBundle.load(tmp_path / "m").record.n_networks == 1
    save_with(tmp_path / "n", "heads.0.weight", LARGEST_WEIGHT)


@pytest.mark.parametrize(("number", "text"), [(13, "Permission denied"), (5, "Input/output error")])
@pytest.mark.parametrize("name", ["model.json", "weights/3d.1.safetensors"])
def test_files_that_cannot_be_read_are_not_called_damaged(bundle, monkeypatch, name, number, text):
    path = bundle / name

    def refusing(real):
        def refuse(self, *args, **options):
            if Path(self) == path:
                raise OSError(number, text, str(path))
            return real(self, *args, **options)

        return refuse

    monkeypatch.setattr(Path, "open", refusing(builtins.open))
    monkeypatch.setattr(os, "open", refusing(os.open))
    with pytest.raises(ModelError, match=rf"cannot be read \({text}\)") as caught:
        ModelBundle.load(bundle)
    assert (caught.value.code, caught.value.where) == ("E-FILE", path)
    assert "permissions" in str(caught.value.remedy)
