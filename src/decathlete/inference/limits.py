"""How much memory the sums of a prediction may fill before they wait on disk."""

from __future__ import annotations

from math import prod

import psutil
import torch

from decathlete.planning.plan import Plan

DEFAULT_SUMS_BYTES = 2 * 2**30
"""Unless ``--memory`` says otherwise: more than models of some ten classes ever need."""
SLACK_BYTES = 512 * 2**20
"""For what comes and goes beside the sums: the network's feature maps, planes on their way back to the file's grid."""


def sums_limit(memory_bytes: int | None, plan: Plan, *, tta: bool, device: torch.device) -> int | None:
    """Bytes for the sums of one sweep, so that the whole process stays within ``memory_bytes``; ``None``: no limit.

    What the process holds already (models, images) counts, and so do the logits of one window. On accelerators sums
    have no limit: they lie there.
    """
    if device.type != "cpu":
        return None
    if memory_bytes is None:
        return DEFAULT_SUMS_BYTES
    window_bytes = 4 * plan.labels.n_outputs * prod(plan.patch_size) * (2 if tta else 1)
    held_bytes: int = psutil.Process().memory_info().rss
    return max(0, memory_bytes - held_bytes - window_bytes - SLACK_BYTES)
