"""Plans of version 1 are read as version 2, with the same decisions and the same digest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decathlete.core.files import value_digest
from decathlete.errors import OptionError
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override, plan_with
from decathlete.planning.plan import Plan
from decathlete.preprocessing.write import preparation_digest
from made_up import made_up_fingerprint, made_up_plan, made_up_spec

RANGE = {"low": 1.0, "high": 2.0}
CT: dict[str, Any] = {"nonzero_only": False, "clip_low": -120.0, "clip_high": 160.0, "mean": 50.0, "std": 20.0}
VERSION_1: dict[str, Any] = {
    "version": 1,
    "dataset": "Made",
    "dims": 3,
    "channels": ["CT", "T1"],
    "labels": {
        "classes": [{"name": "background", "value": 0}, {"name": "c1", "value": 1}],
        "regions": [],
        "region_order": [],
        "ignore": None,
    },
    "orientation": "canonical",
    "axis_order": [0, 1, 2],
    "order": "recipe",
    "target_spacing": [2.5, 1.0, 1.0],
    "median_shape": [10, 24, 22],
    "patch_size": [8, 24, 24],
    "batch_size": 2,
    "normalization": [
        {"scheme": "ct", **CT},
        {"scheme": "zscore", "nonzero_only": True, "clip_low": 0.0, "clip_high": 0.0, "mean": 0.0, "std": 1.0},
    ],
    "foreground_channel": False,
    "foreground_rule": "object",
    "resampling": {"image_order": 3, "separate_axis": "auto", "separate_ratio": 3.0},
    "network": {
        "dims": 3,
        "in_channels": 2,
        "out_channels": 2,
        "kernels": [[1, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2]],
        "features": [4, 8],
        "encoder_convs": [2, 2],
        "decoder_convs": [2],
        "block": "plain",
        "norm": "instance",
        "negative_slope": 0.01,
        "heads": 1,
        "norm_groups": 16,
        "decoder_kernels": [],
        "stem": True,
        "shortcut": "pooled",
    },
    "mirror_axes": None,
    "trained_on": {"spacing": [RANGE] * 3, "size": [RANGE] * 3, "intensity": [RANGE] * 2},
    "fingerprint_digest": "56b08a60d31714db",
    "reasons": {
        "order": "set by hand (--set order=recipe)",
        "axis_order": "set by hand",
        "batch_size": "as many as fit into 8 GB",
        "normalization.1.scheme": "set by hand (--set normalization.1.scheme=zscore)",
    },
}


def test_version_1_becomes_version_2():
    plan = Plan.model_validate_json(json.dumps(VERSION_1))
    assert plan.version == 2
    assert plan.preprocessing_order == "recipe"
    assert plan.training_ranges.intensity[1].high == 2
    assert [settings.to_config() for settings in plan.normalization] == [
        {"name": "ct", "clip_low": -120.0, "clip_high": 160.0, "mean": 50.0, "std": 20.0},
        {"name": "zscore", "nonzero_only": True},
    ]
    assert plan.network.architecture == "unet"
    assert plan.user_set == {
        "preprocessing_order": "--set order=recipe",
        "axis_order": "",
        "normalization.1.name": "--set normalization.1.scheme=zscore",
    }
    assert plan.reasons["batch_size"] == "as many as fit into 8 GB"
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_digests_of_version_1_are_kept():
    plan = Plan.model_validate(VERSION_1)
    assert plan.digest == value_digest({name: value for name, value in VERSION_1.items() if name != "reasons"})
    names = (
        "dims", "channels", "labels", "orientation", "axis_order", "order", "target_spacing", "normalization",
        "foreground_channel", "foreground_rule", "resampling",
    )  # fmt: skip
    assert preparation_digest(plan) == value_digest([1, {name: VERSION_1[name] for name in names}])


def test_digests_count_decisions_alone():
    plan = Plan.model_validate(VERSION_1)
    assert plan.revised(reasons={}, user_set={}).digest == plan.digest
    assert plan.revised(batch_size=3).digest != plan.digest
    assert plan.revised(normalization=(NORMALIZATIONS.settings("none"), plan.normalization[1])).digest != plan.digest
    assert plan.revised(network=plan.network.revised(features=(4, 16))).digest != plan.digest


@pytest.mark.parametrize("version", [0, 3])
def test_other_versions_are_rejected(version):
    with pytest.raises(ValueError, match=f"version {version} is unknown"):
        Plan.model_validate(made_up_plan().model_dump() | {"version": version})


def test_misspelt_fields_of_version_1_are_rejected():
    with pytest.raises(ValueError, match=r"clip_lo\b"):
        Plan.model_validate(VERSION_1 | {"normalization": [{"scheme": "ct", **CT, "clip_lo": 1}] * 2})
    with pytest.raises(ValueError, match="oder"):
        Plan.model_validate(VERSION_1 | {"oder": "recipe"})


def test_fields_of_the_network_are_named_in_problems():
    network = VERSION_1["network"] | {"negative_slope": 2, "featurs": [1]}
    with pytest.raises(ValueError, match=r"network\.featurs") as caught:
        Plan.model_validate(VERSION_1 | {"network": network})
    assert "network.negative_slope" in str(caught.value)


def test_a_component_that_is_not_installed_is_named_with_its_distribution():
    plan = made_up_plan().model_dump(mode="json")
    plan["network"]["architecture"] = "swin"
    with pytest.raises(OptionError, match="there is no architecture called 'swin'") as caught:
        Plan.model_validate(plan)
    assert caught.value.code == "E-COMPONENT-UNKNOWN"
    with pytest.raises(OptionError, match=r"'swin' of swin-nets 1\.2, which is not installed") as caught:
        Plan.model_validate(plan | {"requires": {"architecture.swin": "swin-nets 1.2"}})
    assert caught.value.code == "E-COMPONENT-UNKNOWN"
    assert "install the package swin-nets" in str(caught.value)


def test_a_path_in_a_file_is_not_imported():
    plan = made_up_plan().model_dump(mode="json")
    plan["network"]["architecture"] = "decathlete.networks.architectures.unet:UNetArchitecture"
    with pytest.raises(OptionError, match="there is no architecture"):
        Plan.model_validate(plan)


def test_a_preset_is_marked_as_set_by_the_user():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 200, [(1, 1, 1)] * 200)
    options = PlanOptions(preset="recipe", overrides=("axis_order=1,0,2",))
    plan = plan_with(made_up_spec(), fingerprint, dims=3, options=options)
    assert plan.user_set == {"axis_order": "--set axis_order=1,0,2", "batch_size": "--preset recipe"}
    assert override(plan, ["batch_size=3"]).user_set["batch_size"] == "--set batch_size=3"
