"""Dice during training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from decathlete.core.labels import IGNORE_INDEX, LabelSet
from decathlete.core.sliding_window import SlidingWindow
from decathlete.networks.build import build_network
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.loop.validation import (
    CaseResult,
    Validation,
    Validator,
    choose_evenly,
    dice_per_structure,
    in_parts,
    voxel_counts,
)
from training_support import REGIONS, make_store

CPU = torch.device("cpu")


def one_hot_logits(winner_ZYX: torch.Tensor, n: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(winner_ZYX.long(), n).movedim(-1, 0).float() * 9


def test_dice_of_classes_with_absent_ones_and_unknown_voxels():
    label = torch.zeros(1, 2, 8, dtype=torch.uint8)
    label[..., :4] = 1
    winner = label.clone()
    winner[0, 0, :4] = 0
    labels = LabelSet.from_names(["a", "b"])
    assert dice_per_structure(one_hot_logits(winner, 3), label, labels) == (pytest.approx(2 * 4 / 12), None)
    label[0, 0] = IGNORE_INDEX
    assert dice_per_structure(one_hot_logits(winner, 3), label, labels) == (1.0, None)
    winner[0, 1, 7] = 2
    assert dice_per_structure(one_hot_logits(winner, 3), label, labels)[1] == 0.0


def test_dice_of_regions_that_overlap():
    label = torch.tensor([[[0, 1, 1, 2]]], dtype=torch.uint8)
    logits = torch.tensor([[-1.0, 1, 1, 1], [-1, -1, 1, 1]]).view(2, 1, 1, 4)
    assert dice_per_structure(logits, label, REGIONS) == (1.0, pytest.approx(2 / 3))


@pytest.mark.parametrize("labels", [REGIONS, LabelSet.from_names(["a", "b"])])
def test_the_device_is_not_asked_class_by_class(labels):
    """On torch's meta device asking is an error."""
    with torch.device("meta"):
        logits, label = torch.zeros(labels.n_outputs, 2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.uint8)
    assert voxel_counts(logits, label, labels).shape == (2, 3)


def test_means_leave_out_what_does_not_count():
    results = [CaseResult(dice=(0.5, None), loss=1.0), CaseResult(dice=(1.0, None), loss=float("nan"))]
    mean = Validation.mean(results, ("a", "b"), CPU)
    assert mean == Validation(dice={"a": 0.75, "b": None}, mean_dice=0.75, loss=1.0)
    assert Validation.mean([], ("a",), CPU) == Validation(dice={"a": None}, mean_dice=None, loss=None)


@pytest.mark.parametrize("n", range(12))
def test_cases_are_chosen_evenly_and_always_the_same(n):
    ids = [f"{i:02}" for i in range(10)]
    chosen = choose_evenly(ids[::-1], n)
    assert len(chosen) == len(set(chosen)) == min(n, 10)
    assert list(chosen) == sorted(chosen)
    assert chosen == choose_evenly(ids, n)
    if n == 5:
        assert chosen == ("00", "02", "04", "06", "08")


@pytest.mark.parametrize("most", [1, 24, 25, 72, 1000])
def test_slabs_become_parts_of_a_size(most: int) -> None:
    logits_KZYX = torch.arange(2 * 11 * 3 * 4.0).view(2, 11, 3, 4)
    parts = list(in_parts(logits_KZYX.split([1, 5, 2, 3], dim=1), most))
    assert torch.equal(torch.cat(parts, dim=1), logits_KZYX)
    planes = max(most // 24, 1)
    assert [part.shape[1] for part in parts[:-1]] == [planes] * (len(parts) - 1)
    assert 0 < parts[-1].shape[1] <= planes


def make_validator(store: PreparedStore, window: SlidingWindow = SlidingWindow()) -> Validator:
    return Validator(store, store.plan, _cross_entropy, window=window, precision="fp32", layout="auto", device=CPU)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_case_in_parts_has_the_dice_of_the_whole(dims: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", dims)
    validator = make_validator(store)
    network = build_network(store.plan.network, seed=0).eval()
    whole = validator.case(network, store.case_ids[0])
    monkeypatch.setattr("decathlete.training.loop.validation.PART_ELEMENTS", 500)
    parts = validator.case(network, store.case_ids[0])
    assert whole is not None
    assert parts is not None
    assert parts.dice == whole.dice
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_validation_stops_in_the_middle_of_a_case(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    validator = make_validator(store)
    network = build_network(store.plan.network, seed=0).eval()
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    assert validator.run(network, store.case_ids, stop=stop) is None
    assert len(asked) == 2, "once before the case, once after its first slab"


def test_the_time_of_a_case_follows_from_its_windows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    window = SlidingWindow(overlap=0.5)
    calls: list[int] = []
    network = build_network(store.plan.network, seed=0).eval()
    network.register_forward_pre_hook(lambda _module, inputs: calls.append(len(inputs[0])))
    validator = make_validator(store, window)
    validator.case(network, store.case_ids[0])
    expected_s = validator.expected_seconds(store.case_ids[0], step_s=3.0 * store.plan.batch_size)
    assert expected_s == sum(calls) > 1


def _cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, label.long())
