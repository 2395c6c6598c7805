"""How much memory the sums of a prediction may fill before they are spilled to disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod

import psutil
import torch

from decathlete.core.sizes import format_bytes
from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.engines import Engine
from decathlete.inference.output.restore import restoring_bytes
from decathlete.inference.windows.sweep import windows_per_batch
from decathlete.inference.windows.tiles import CHUNK_BYTES, FLOAT_BYTES
from decathlete.networks.outputs import file_dtype
from decathlete.planning.architectures import architecture_of
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepared import Restoration

log = logging.getLogger(__name__)

DEFAULT_SUMS_BYTES = 2 * 10**9
"""Without ``--memory``: more than models of about ten classes need."""
SLACK_BYTES = 3 * 10**8
"""For all that is not counted: small tensors, and memory that the allocator keeps."""
_FEATURE_MAPS = 7
"""Feature maps of the finest stage that exist at one time, work buffers of convolutions included."""


def default_sums_bytes(device: torch.device) -> int | None:
    """Return the bytes that the sums of one sweep may fill unless a limit is set; ``None``: no limit.

    On accelerators sums have no limit: they lie there.
    """
    return DEFAULT_SUMS_BYTES if device.type == "cpu" else None


def sums_limit(
    window: SlidingWindow,
    *,
    plan: Plan,
    restoration: Restoration,
    engines: Sequence[Engine],
    device: torch.device,
) -> int | None:
    """Return the bytes that the sums of one sweep may fill; ``None``: no limit.

    With ``window.memory_gb`` the whole process stays within this memory. So what the process holds already (models,
    images) counts, and what is needed beside the sums: a batch of windows in the network, or a slab that is restored to
    the file's grid.
    """
    memory_bytes = window.memory_bytes
    if device.type != "cpu" or memory_bytes is None:
        return default_sums_bytes(device)
    window_bytes = FLOAT_BYTES * plan.labels.n_outputs * prod(plan.patch_size)
    held_bytes: int = psutil.Process().memory_info().rss
    beside_bytes = max(
        network_bytes(window, plan=plan, n_networks=len(engines), device=device),
        CHUNK_BYTES + restoring_bytes(restoration, plan.labels),
    )
    label_bytes = 2 * file_dtype(plan.labels).itemsize * prod(restoration.geometry.shape_ZYX)
    held_bytes += sum(engine.n_buffered_windows for engine in engines) * window_bytes
    least_bytes = held_bytes + SLACK_BYTES + beside_bytes + label_bytes + window_bytes  # the last: one window's sums
    if memory_bytes < least_bytes:
        log.warning(
            "--memory %s is too little for this image: its prediction needs about %s, and will use that much",
            format_bytes(memory_bytes),
            format_bytes(least_bytes),
        )
    return max(0, memory_bytes - least_bytes + window_bytes)


def network_bytes(window: SlidingWindow, *, plan: Plan, n_networks: int, device: torch.device) -> int:
    """Return the memory of a batch of windows in the networks of a plan, bytes, without that of the weights.

    These are the logits, once more if a mean is taken of them, and the feature maps.
    """
    window_bytes = FLOAT_BYTES * plan.labels.n_outputs * prod(plan.patch_size)
    batch_size = windows_per_batch(window, plan=plan, device=device)
    averages = window.tta or n_networks > 1
    logits_bytes = (1 + averages) * batch_size * window_bytes
    widest_bytes = FLOAT_BYTES * architecture_of(plan.network).width * prod(plan.patch_size)
    return logits_bytes + window_bytes + _FEATURE_MAPS * batch_size * widest_bytes
