"""Plans against nnU-Net v2's own planner on the same real cases.

The numbers were made by nnunetv2 2.8.1: ``DatasetFingerprintExtractor``, then ``ExperimentPlanner`` (8 GB, and 2 GB)
and ``ResEncUNetPlanner``, on the datasets of the same names converted to its layout. nnU-Net reads axes as stored, so
the fingerprints here are ``stored`` too. Its intensity statistics are of other random draws.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import DatasetSpec
from decathlete.planning.fingerprint import Fingerprint, make_fingerprint
from decathlete.planning.options import PlanOptions
from decathlete.planning.planner import make_plan

pytestmark = pytest.mark.real_data


@dataclass(frozen=True)
class Golden:
    """One configuration of nnU-Net's plan; strides and kernels written as digits."""

    batch: int
    patch: tuple[int, ...]
    strides: str
    kernels: str


@dataclass(frozen=True)
class GoldenDataset:
    """``small``: with 2 GB; ``residual``: the residual encoder's batch size in 2D and 3D (patches are the same)."""

    axis_order: tuple[int, int, int]
    spacing: tuple[float, float, float]
    nonzero_only: bool
    two_d: Golden
    three_d: Golden
    small_2d: tuple[int, tuple[int, int]]
    small_3d: tuple[int, tuple[int, int, int]]
    residual_batches: tuple[int, int]


GOLDEN = {
    "Task04_Hippocampus": GoldenDataset(
        axis_order=(0, 1, 2),
        spacing=(1.0, 1.0, 1.0),
        nonzero_only=False,
        two_d=Golden(292, (56, 40), "11 22 22 22", "33 33 33 33"),
        three_d=Golden(7, (40, 56, 40), "111 222 222 222", "333 333 333 333"),
        small_2d=(292, (56, 40)),
        small_3d=(7, (40, 56, 40)),
        residual_batches=(292, 7),
    ),
    "ACDC": GoldenDataset(
        axis_order=(0, 1, 2),
        spacing=(10.0, 1.5, 1.5),
        nonzero_only=False,
        two_d=Golden(18, (256, 224), "11 22 22 22 22 22", "33 33 33 33 33 33"),
        three_d=Golden(2, (10, 256, 224), "111 122 122 222 122 122", "133 133 333 333 333 333"),
        small_2d=(14, (256, 224)),
        small_3d=(2, (8, 256, 224)),
        residual_batches=(18, 2),
    ),
    "ACDC_respaced": GoldenDataset(
        axis_order=(1, 0, 2),
        spacing=(1.9882352948188782, 1.9510483741760254, 1.7473684549331665),
        nonzero_only=False,
        two_d=Golden(105, (160, 192), "11 22 22 22 22 22", "33 33 33 33 33 33"),
        three_d=Golden(2, (128, 128, 128), "111 222 222 222 222 222", "333 333 333 333 333 333"),
        small_2d=(26, (160, 192)),
        small_3d=(2, (80, 80, 96)),
        residual_batches=(107, 2),
    ),
    "STS_CT": GoldenDataset(
        axis_order=(0, 1, 2),
        spacing=(3.2699999809265137, 0.9765620231628418, 0.9765620231628418),
        nonzero_only=False,
        two_d=Golden(30, (160, 160), "11 22 22 22 22 22", "33 33 33 33 33 33"),
        three_d=Golden(2, (56, 160, 160), "111 122 222 222 222 122", "133 333 333 333 333 333"),
        small_2d=(30, (160, 160)),
        small_3d=(2, (40, 112, 112)),
        residual_batches=(30, 2),
    ),
    "STS_CT_respaced": GoldenDataset(
        axis_order=(2, 0, 1),
        spacing=(2.1838034987449646, 1.2765670418739319, 1.1527056694030762),
        nonzero_only=False,
        two_d=Golden(36, (128, 160), "11 22 22 22 22 22", "33 33 33 33 33 33"),
        three_d=Golden(2, (80, 128, 160), "111 222 222 222 222 122", "333 333 333 333 333 333"),
        small_2d=(36, (128, 160)),
        small_3d=(2, (56, 96, 112)),
        residual_batches=(36, 2),
    ),
    "STS_PETCT": GoldenDataset(
        axis_order=(0, 1, 2),
        spacing=(3.2699999809265137, 0.9765620231628418, 0.9765620231628418),
        nonzero_only=False,
        two_d=Golden(21, (160, 160), "11 22 22 22 22 22", "33 33 33 33 33 33"),
        three_d=Golden(2, (56, 160, 160), "111 122 222 222 222 122", "133 333 333 333 333 333"),
        small_2d=(21, (160, 160)),
        small_3d=(2, (40, 112, 112)),
        residual_batches=(21, 2),
    ),
    "BRATS2013_FLAIR_T1c": GoldenDataset(
        axis_order=(0, 1, 2),
        spacing=(1.0, 1.0, 1.0),
        nonzero_only=True,
        two_d=Golden(32, (192, 160), "11 22 22 22 22 22", "33 33 33 33 33 33"),
        three_d=Golden(2, (128, 128, 128), "111 222 222 222 222 222", "333 333 333 333 333 333"),
        small_2d=(26, (192, 160)),
        small_3d=(2, (80, 96, 80)),
        residual_batches=(32, 2),
    ),
}

CT_STATISTICS = {
    "STS_CT": {"mean": 31.2596, "std": 44.1835, "percentile_00_5": -108.0, "median": 34.0, "percentile_99_5": 149.0},
    "STS_CT_respaced": {
        "mean": 30.4718,
        "std": 39.5634,
        "percentile_00_5": -92.0,
        "median": 33.0,
        "percentile_99_5": 124.0,
    },
}


@functools.cache
def measured(folder: Path) -> tuple[DatasetSpec, Fingerprint]:
    spec = read_dataset(folder)
    return spec, make_fingerprint(spec, orientation="stored")


@pytest.mark.parametrize("name", GOLDEN)
def test_plans_equal_those_of_nnunet(real_data, name):
    spec, fingerprint = measured(real_data(name))
    golden = GOLDEN[name]
    for dims, expected in ((2, golden.two_d), (3, golden.three_d)):
        plan = make_plan(spec, fingerprint, dims=dims, options=PlanOptions(orientation="stored"))
        assert plan.axis_order == golden.axis_order
        assert plan.target_spacing[-dims:] == pytest.approx(golden.spacing[-dims:], rel=1e-6)
        assert plan.patch_size == expected.patch
        assert plan.batch_size == expected.batch
        assert digits(plan.network.strides) == expected.strides
        assert digits(plan.network.kernels) == expected.kernels
        assert getattr(plan.normalization[0], "nonzero_only", False) == golden.nonzero_only  # CT has no such choice


@pytest.mark.parametrize("name", GOLDEN)
def test_plans_for_less_memory_and_residual_encoders_equal_those_of_nnunet(real_data, name):
    spec, fingerprint = measured(real_data(name))
    golden = GOLDEN[name]
    for dims, (batch, patch) in ((2, golden.small_2d), (3, golden.small_3d)):
        small = make_plan(spec, fingerprint, dims=dims, options=PlanOptions(memory_gb=2, orientation="stored"))
        assert (small.batch_size, small.patch_size) == (batch, patch)
    for dims, batch, same in (
        (2, golden.residual_batches[0], golden.two_d),
        (3, golden.residual_batches[1], golden.three_d),
    ):
        residual = make_plan(spec, fingerprint, dims=dims, options=PlanOptions(block="residual", orientation="stored"))
        assert (residual.batch_size, residual.patch_size) == (batch, same.patch)


@pytest.mark.parametrize("name", CT_STATISTICS)
def test_foreground_statistics_agree_with_nnunets(real_data, name):
    _, fingerprint = measured(real_data(name))
    for field, expected in CT_STATISTICS[name].items():
        assert getattr(fingerprint.intensity[0], field) == pytest.approx(expected, abs=1.5), field


def test_the_hippocampus_is_planned_alike_in_canonical_orientation(real_data):
    spec = read_dataset(real_data("Task04_Hippocampus"))
    fingerprint = make_fingerprint(spec)
    assert make_plan(spec, fingerprint, dims=3).patch_size == (40, 56, 40)
    assert make_plan(spec, fingerprint, dims=3).network.n_stages == 4
    assert make_plan(spec, fingerprint, dims=2).patch_size == (56, 40)


def digits(stages: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("".join(map(str, stage)) for stage in stages)
