"""How much memory the sums of a prediction may fill before they wait on disk."""

from __future__ import annotations

import logging
from math import prod

import psutil
import torch

from decathlete.core.sizes import say_bytes
from decathlete.inference.output.restore import restoring_bytes
from decathlete.inference.windows.tiles import CHUNK_BYTES, FLOAT_BYTES
from decathlete.networks.outputs import file_dtype
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepared import Restoration

log = logging.getLogger(__name__)

DEFAULT_SUMS_BYTES = 2 * 10**9
"""Unless ``--memory`` says otherwise: more than models of some ten classes ever need."""
SLACK_BYTES = 3 * 10**8
"""For what is not counted: small tensors, and memory that the allocator keeps."""
_FEATURE_MAPS = 7
"""Maps as wide as the finest stage that a network has at one time, those that its convolutions work with included."""


def sums_limit(
    memory_bytes: int | None,
    plan: Plan,
    restoration: Restoration,
    *,
    batch_size: int,
    n_engines: int,
    kept_windows: int,
    tta: bool,
    device: torch.device,
) -> int | None:
    """Bytes for the sums of one sweep, so that the whole process stays within ``memory_bytes``; ``None``: no limit.

    What the process holds already (models, images) counts, and so does what comes and goes beside the sums: a batch of
    windows in the network, or a slab on its way to the file's grid. On accelerators sums have no limit: they lie there.

    Args:
        kept_windows: of all engines together.
    """
    if device.type != "cpu":
        return None
    if memory_bytes is None:
        return DEFAULT_SUMS_BYTES
    window_bytes = FLOAT_BYTES * plan.labels.n_outputs * prod(plan.patch_size)
    held_bytes: int = psutil.Process().memory_info().rss
    beside_bytes = max(
        _predicting_bytes(plan, window_bytes, batch_size=batch_size, n_engines=n_engines, tta=tta),
        CHUNK_BYTES + restoring_bytes(restoration, plan.labels),
    )
    label_bytes = 2 * file_dtype(plan.labels).itemsize * prod(restoration.geometry.shape_ZYX)
    held_bytes += kept_windows * window_bytes
    least_bytes = held_bytes + SLACK_BYTES + beside_bytes + label_bytes + window_bytes  # the last: one window's sums
    if memory_bytes < least_bytes:
        log.warning(
            "%s of memory are less than a prediction of this image takes at least, about %s: it will take so much",
            say_bytes(memory_bytes),
            say_bytes(least_bytes),
        )
    return max(0, memory_bytes - least_bytes + window_bytes)


def _predicting_bytes(plan: Plan, window_bytes: int, *, batch_size: int, n_engines: int, tta: bool) -> int:
    """What the networks need: logits of a batch, once more if a mean is taken of them, and feature maps."""
    logits_bytes = (1 + (tta or n_engines > 1)) * batch_size * window_bytes
    widest_bytes = FLOAT_BYTES * plan.network.features[0] * prod(plan.patch_size)
    return logits_bytes + window_bytes + _FEATURE_MAPS * batch_size * widest_bytes
