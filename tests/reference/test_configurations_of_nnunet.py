"""Our plans beside those of nnU-Net v2's own planners, on made-up fingerprints.

``golden/nnunet_plans.json`` was made by nnunetv2 2.8.1 (``peers/plan_nnunet.py``): ``ExperimentPlanner`` and the
planners of ResEnc M, L and XL. Every deliberate difference is listed in :data:`DIFFERENCES`; the names of networks that
are not in it are planned alike, to the last number.
"""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

import pytest
from plan_nnunet import CROP_RATIOS, FINGERPRINTS, NETWORKS, cases_of

from decathlete.planning.configurations import offered_configurations
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from made_up import made_up_fingerprint, made_up_spec

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "nnunet_plans.json"
NAMES = {"2d": "2d", "3d": "3d_fullres", "3d_lowres": "3d_lowres"}
"""Our configuration -> nnU-Net's. The cascade has the plan of full resolution in both."""
SCHEMES = {"ct": "CTNormalization", "zscore": "ZScoreNormalization"}
"""Our normalisation -> nnU-Net's."""
DIFFERENCES: dict[str, str] = {
    "too_small_to_pool": "nnU-Net plans a network of one stage, without pooling; ours pads the images to 12 voxels, so "
    "that there is a U-Net",
    "flat_thin": "nnU-Net looks for the coarsest axis alone, so that single slices thinner than their pixels are cut "
    "into lines; ours puts the axis of the single slice first, and has no 3D plan",
}
"""Fingerprint -> why all its plans differ from nnU-Net's."""
WITHOUT_COUNTERPART = {
    "batch_dice": "nnU-Net computes the Dice of whole batches only at full resolution with a low resolution beside it, "
    "and in 2D; ours does so always: --set loss.batch_dice=false changes it",
}
"""Entries of nnU-Net's plan that are no part of ours."""


@functools.cache
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


def our_plans(name: str, network: str) -> dict[str, Plan]:
    shapes, spacings, channels = cases_of(name)
    ratio = CROP_RATIOS.get(name, 1.0)
    fingerprint = made_up_fingerprint(shapes, spacings, n_channels=len(channels), crop_ratio=ratio)
    spec = made_up_spec(channels)
    offers = offered_configurations(spec, fingerprint, options=PlanOptions(network=network))
    return {offer.name: offer.plan for offer in offers if offer.offered}


def entries(plan: Plan) -> dict:
    network = plan.network
    return {
        "spacing": pytest.approx(list(plan.target_spacing[-plan.dims :]), rel=1e-6),
        "patch": list(plan.patch_size),
        "batch": plan.batch_size,
        "strides": digits(network.strides),
        "kernels": digits(network.kernels),
        "features": list(network.features),
        "encoder": list(network.encoder_convs),
        "decoder": list(network.decoder_convs),
        "normalization": [SCHEMES[channel.component] for channel in plan.normalization],
        "masks": [NORMALIZATIONS.build(channel).needs_mask for channel in plan.normalization],
        "resampling": resampling_entry(plan),
    }


def resampling_entry(plan: Plan) -> list:
    """Orders of the interpolation in general and along a separated axis, and whether one is separated (None: auto).

    Labels and logits are resampled linearly, and along a separated axis by nearest neighbour, in every plan.
    """
    separated = {"auto": None, "always": True, "never": False}[plan.resampling.separate_axis]
    return [[order, 0, separated] for order in (plan.resampling.image_order, 1, 1)]


def digits(stages: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("".join(map(str, stage)) for stage in stages)


def differing_entries(ours: dict[str, Plan], theirs: dict) -> list[str]:
    expected_names = {name for name in NAMES if NAMES[name] in theirs} | (
        {"3d_cascade"} if theirs["cascade"] else set()
    )
    if set(ours) != expected_names:
        return ["configurations"]
    differing = []
    for name in ours.keys() & NAMES.keys():
        expected = {key: value for key, value in theirs[NAMES[name]].items() if key not in WITHOUT_COUNTERPART}
        found = entries(ours[name])
        differing += [f"{name}.{key}" for key in expected if found[key] != expected[key]]
        if list(ours[name].axis_order) != theirs["axis_order"]:
            differing.append(f"{name}.axis_order")
    return differing


def test_there_are_plans_of_forty_fingerprints_and_more():
    assert len(FINGERPRINTS) >= 40
    assert {name: list(of) for name, of in golden().items()} == {key: list(NETWORKS) for key in FINGERPRINTS}


def test_the_fingerprints_have_each_normalisation_with_and_without_mask():
    seen = {
        (scheme, mask, name in CROP_RATIOS)
        for name in FINGERPRINTS
        for configuration in golden()[name]["plain"].values()
        if isinstance(configuration, dict)
        for scheme, mask in zip(configuration["normalization"], configuration["masks"], strict=True)
    }
    assert seen == {
        ("CTNormalization", False, False),
        ("CTNormalization", False, True),  # cropped, but CT has a fixed scale
        ("ZScoreNormalization", False, False),
        ("ZScoreNormalization", False, True),  # cropping keeps three quarters
        ("ZScoreNormalization", True, True),
    }


QUICK = ("thick_ct_3mm", "isotropic_cube_128", "flat_rgb", "two_channel_mri", "few_cases_2")
"""Fingerprints whose residual encoders are compared in every test run; the others take half a minute together."""
SAME = [name for name in FINGERPRINTS if name not in DIFFERENCES]


@pytest.mark.parametrize("name", SAME)
def test_plain_plans_equal_those_of_nnunet(name: str) -> None:
    assert differing_entries(our_plans(name, "plain"), golden()[name]["plain"]) == []


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in SAME])
def test_residual_plans_equal_those_of_nnunet(name: str) -> None:
    for network in NETWORKS.keys() - {"plain"}:
        assert differing_entries(our_plans(name, network), golden()[name][network]) == []


@pytest.mark.parametrize("name", DIFFERENCES)
def test_listed_differences_exist(name: str) -> None:
    theirs = golden()[name]["plain"]
    if "error" not in theirs:  # else nnU-Net's planner fails for this fingerprint
        assert differing_entries(our_plans(name, "plain"), theirs)


def test_the_cascade_has_the_plan_of_full_resolution_and_a_mask_for_each_structure():
    plans = our_plans("thin_ct_1mm", "plain")
    full, cascade = plans["3d"], plans["3d_cascade"]
    assert entries(cascade)["patch"] == list(full.patch_size)
    assert cascade.batch_size == full.batch_size
    assert cascade.network.in_channels == full.network.in_channels + len(full.labels.structures)


def test_networks_that_are_planned_for_more_memory_have_larger_patches():
    voxels = {network: _voxels(our_plans("thin_ct_1mm", network)["3d"]) for network in NETWORKS}
    assert voxels["resenc-m"] < voxels["resenc-l"] < voxels["resenc-xl"]
    # The memory of the user counts before that of the network.
    shapes, spacings, _ = cases_of("thin_ct_1mm")
    options = PlanOptions(network="resenc-xl", memory_gb=8)
    offers = offered_configurations(made_up_spec(), made_up_fingerprint(shapes, spacings), options=options)
    assert _voxels(offers[1].plan) < voxels["resenc-l"]


@pytest.mark.full
def test_the_recorded_plans_are_those_of_nnunet(tmp_path: Path, peers: Path) -> None:
    names = ["thick_ct_5mm", "hippocampus", "flat_rgb"]
    script = HERE / "peers" / "plan_nnunet.py"
    subprocess.run([peers, script, tmp_path / "plans.json", *names], check=True, capture_output=True)
    made = json.loads((tmp_path / "plans.json").read_text())
    assert made == {name: golden()[name] for name in names}


def _voxels(plan: Plan | None) -> int:
    assert plan is not None
    z, y, x = plan.patch_size
    return z * y * x
