"""The machine and the time of a training, as the budget that its plan is made for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from decathlete.core.parallel import TaskNeeds, Workers
from decathlete.errors import ClusterError
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
        threads=max(1, min(usable_threads(), torch.get_num_threads()) // n_sharing),
        arithmetic=cpu_arithmetic(precision),
        steps=config.total_steps,
        processes=config.devices,
    )


def budget_of_folds(
    config: TrainConfig,
    network: NetworkSpec,
    *,
    workers: Workers,
    fold_resources: Mapping[str, float] | None = None,
) -> ComputeBudget:
    """Return the budget of a training where folds are trained: on this machine, or on a worker of an executor.

    Raises:
        DecathleteError: a worker cannot train so, e.g. because it has no such device.
    """
    if isinstance(workers, int):
        return compute_budget(config, network)
    needs = fold_needs(config, fold_resources)
    (outcome,) = workers.map(partial(compute_budget, network=network), {"the training": config}, needs=needs)
    if outcome.value is None:
        raise outcome.cause or ClusterError(outcome.error or "failed")
    return outcome.value


def fold_needs(config: TrainConfig, fold_resources: Mapping[str, float] | None) -> TaskNeeds:
    """Return what a fold needs of a worker, for which it is a process of its own."""
    return TaskNeeds(
        at_once=1,
        device=config.device,
        n_devices=config.devices,
        resources=fold_resources or {},
        own_process=True,
    )
