"""How much memory the sums of a prediction may fill before they wait on disk."""

from __future__ import annotations

import logging
from math import prod

import psutil
import torch

from decathlete.core.sizes import say_bytes
from decathlete.planning.plan import Plan

log = logging.getLogger(__name__)

DEFAULT_SUMS_BYTES = 2 * 10**9
"""Unless ``--memory`` says otherwise: more than models of some ten classes ever need."""
SLACK_BYTES = 5 * 10**8
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
    window_bytes = 4 * plan.labels.n_outputs * prod(plan.patch_size)
    held_bytes: int = psutil.Process().memory_info().rss
    least_bytes = held_bytes + SLACK_BYTES + window_bytes * (3 if tta else 2)  # one window's sums and its logits
    if memory_bytes < least_bytes:
        log.warning(
            "%s of memory are less than a prediction of this image takes at least, about %s: it will take so much",
            say_bytes(memory_bytes),
            say_bytes(least_bytes),
        )
    return max(0, memory_bytes - least_bytes + window_bytes)
