"""Versions of the plan's schema: the reader for version 1, and the form that digests are computed from.

Version 2 renames ``order``, ``trained_on`` and ``normalization[].scheme``, gives each normalisation only the settings
that it has, names the architecture of the network, and adds ``user_set`` and ``requires``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLAN_VERSION = 2
RENAMED_FIELDS = {"order": "preprocessing_order", "trained_on": "training_ranges"}
"""Field of version 1 -> field of version 2."""

_NORMALIZATION_1: dict[str, Any] = {"nonzero_only": False, "clip_low": 0.0, "clip_high": 0.0, "mean": 0.0, "std": 1.0}
"""Settings of every normalisation in version 1, with their defaults."""
_SETTINGS: dict[str, tuple[str, ...]] = {
    "ct": ("clip_low", "clip_high", "mean", "std"),
    "zscore": ("nonzero_only",),
    "rescale": (),
    "none": (),
}
"""Normalisation of version 1 -> the settings that it used."""
_SET_BY_HAND = re.compile(r"set by hand(?: \((.*)\))?", re.DOTALL)
"""How the reason of a field that the user had set began in version 1."""
WITHOUT_EFFECT = frozenset({"reasons", "user_set", "requires", "configuration", "structure_codes", "keep_largest"})
"""Fields that neither weights nor prepared data depend on."""


def is_version_1(data: Mapping[str, Any]) -> bool:
    """Return whether a plan read from a file has version 1."""
    version: object = data.get("version", 1 if RENAMED_FIELDS.keys() & data.keys() else PLAN_VERSION)
    return version == 1


def upgrade(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan of version 1 in version 2."""
    new = {RENAMED_FIELDS.get(name, name): value for name, value in data.items()}
    new["version"] = PLAN_VERSION
    if isinstance(schemes := new.get("normalization"), list | tuple):
        new["normalization"] = [_upgrade_normalization(scheme) for scheme in schemes]
    if isinstance(reasons := new.get("reasons"), Mapping):
        new["reasons"] = {renamed_path(field): reason for field, reason in reasons.items()}
        matches = {field: _SET_BY_HAND.match(reason) for field, reason in new["reasons"].items()}
        new["user_set"] = {field: match[1] or "" for field, match in matches.items() if match}
    return new


def _upgrade_normalization(value: Any) -> Any:
    if not isinstance(value, Mapping) or "scheme" not in value:
        return value
    filled = _NORMALIZATION_1 | dict(value)
    unknown = {name: setting for name, setting in value.items() if name not in (*_NORMALIZATION_1, "scheme")}
    used = _SETTINGS.get(str(value["scheme"]), ())
    return {"name": value["scheme"], **{name: filled[name] for name in used}, **unknown}


def renamed_path(path: str) -> str:
    """Return a dotted path to a field of version 1 as version 2 spells it."""
    head, dot, rest = path.partition(".")
    path = f"{RENAMED_FIELDS.get(head, head)}{dot}{rest}"
    return re.sub(r"^(normalization\.\d+)\.scheme$", r"\1.name", path)


def digest_form(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a plan of version 2 that its digest is computed from, in version 1 where that can express it.

    Such a plan keeps the digest of version 1, so that prepared data and runs of older releases still match it.

    Args:
        data: any fields of a plan, as JSON values.
    """
    data = {name: value for name, value in data.items() if name not in WITHOUT_EFFECT}
    if data.get("previous_stage", "") is None:  # the only value of older releases
        del data["previous_stage"]
    if data.get("coarse_start", "") is None:  # the only value of older releases
        del data["coarse_start"]
    if data.get("spacing_unit") == "mm":  # the only unit of older releases
        del data["spacing_unit"]
    names = [settings["name"] for settings in data.get("normalization", ())]
    network = data.get("network", {"architecture": "unet"})
    if network["architecture"] != "unet" or not _SETTINGS.keys() >= set(names):
        return data
    old_names = {new: old for old, new in RENAMED_FIELDS.items()}
    old = {old_names.get(name, name): value for name, value in data.items()}
    if "version" in old:
        old["version"] = 1
    if "network" in old:
        old["network"] = {name: value for name, value in network.items() if name != "architecture"}
    if "normalization" in old:
        old["normalization"] = [_downgrade_normalization(settings) for settings in data["normalization"]]
    return old


def _downgrade_normalization(settings: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in settings.items() if name != "name"}
    return {"scheme": settings["name"], **_NORMALIZATION_1, **own}
