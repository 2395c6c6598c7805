"""The budget of a training on this machine."""

from __future__ import annotations

import torch

from decathlete.planning.compute_budget import usable_threads
from decathlete.training.config import TrainConfig
from decathlete.workflows.budget import compute_budget
from factories import make_test_network


def test_it_counts_the_threads_that_torch_may_use(monkeypatch):
    """Fewer than the processors where OMP_NUM_THREADS says so, as in the process of a fold on a cluster."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert compute_budget(TrainConfig(max_time_s=60, device="cpu"), make_test_network()).threads == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    assert compute_budget(TrainConfig(max_time_s=60, device="cpu"), make_test_network()).threads == usable_threads()
