"""The machine and the time of a training, as the budget that its plan is made for."""

from __future__ import annotations

import torch

from decathlete.networks.precision import cpu_arithmetic, supported_precision
from decathlete.planning.compute_budget import ComputeBudget, usable_threads
from decathlete.planning.network_spec import NetworkSpec
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import choose_device, choose_precision


def compute_budget(config: TrainConfig, network: NetworkSpec) -> ComputeBudget:
    """Return the budget of a training of ``network`` on this machine."""
    device = choose_device(config.device)
    precision = choose_precision(config.precision, torch.device(device))
    precision = supported_precision(precision, network, requested=config.precision)
    n_sharing = config.devices if device == "cpu" else 1  # number of processes that share the processors
    return ComputeBudget(
        device=device,
        max_time_s=config.max_time_s,
        threads=max(1, usable_threads() // n_sharing),
        arithmetic=cpu_arithmetic(precision),
        steps=config.total_steps,
    )
