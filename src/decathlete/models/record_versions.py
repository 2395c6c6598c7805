"""The reader of ``model.json``, version 1.

Version 1 had one plan and one weights file, in which the tensors of several networks had the prefixes ``0.``, ``1.``,
... It is read as one member with as many networks, each with its prefix: prediction averages the logits of a plan's
networks in their order, so that it computes what it computed before. Members of one network each would give the same
label maps, but would repeat the plan for every fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from decathlete.planning.plan import Plan

MODEL_VERSION: Literal[2] = 2
VERSION_1_WEIGHTS_FILE = "weights.safetensors"
MAX_NETWORKS = 1000
"""Networks of a member; more are a damaged or hostile file."""
_VERSION_1_FIELDS = ("plan", "mirror_axes", "networks", "weights", "provenance", "weights_sha256")


def from_version_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a version 2 record; unknown fields stay and are rejected later."""
    unknown = {name: value for name, value in content.items() if name not in (*_VERSION_1_FIELDS, "version")}
    n_networks = content.get("networks", 1)
    if not isinstance(n_networks, int) or not 1 <= n_networks <= MAX_NETWORKS:
        raise ValueError(f"networks must be a number from 1 to {MAX_NETWORKS}, it is {n_networks!r}")
    provenance = content.get("provenance", {})
    folds = _version_1_folds(provenance, n_networks)
    member = {"name": "model", "networks": [
        {
            "file": VERSION_1_WEIGHTS_FILE,
            "prefix": f"{number}." if n_networks > 1 else "",
            "sha256": content.get("weights_sha256"),
            "fold": fold,
        }
        for number, fold in enumerate(folds)
    ]}  # fmt: skip
    for name in ("plan", "mirror_axes", "weights", "provenance"):
        if name in content:
            member[name] = content[name]
    plan = content.get("plan")
    labels = plan.labels if isinstance(plan, Plan) else plan.get("labels") if isinstance(plan, Mapping) else None
    return unknown | {"version": MODEL_VERSION, "labels": labels, "members": [member]}


def _version_1_folds(provenance: Any, n_networks: int) -> list[str | None]:
    """Return the fold of each network, if the provenance records it."""
    known = provenance if isinstance(provenance, Mapping) else {}
    folds = known.get("folds", [known["fold"]] if "fold" in known else [])
    if isinstance(folds, list) and len(folds) == n_networks:
        return [str(fold) for fold in folds]
    return [None] * n_networks
