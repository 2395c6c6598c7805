"""Memory that sums of a prediction may fill, and what comes of too little."""

import logging

import psutil
import pytest
import torch

from decathlete.errors import OptionError
from decathlete.inference.limits import DEFAULT_SUMS_BYTES, SLACK_BYTES, sums_limit
from decathlete.inference.predict import Predictor
from factories import make_test_plan

CPU = torch.device("cpu")


def test_what_the_process_holds_already_counts(monkeypatch):
    plan = make_test_plan(3)  # 3 outputs, patch of 16 voxels a side
    window = 4 * 3 * 16**3
    held = psutil.Process().memory_info().rss
    limit = sums_limit(held + SLACK_BYTES + 10 * window, plan, tta=False, device=CPU)
    assert limit == pytest.approx(9 * window, abs=50 * 2**20)
    flipped = sums_limit(held + SLACK_BYTES + 10**9, plan, tta=True, device=CPU)
    plain = sums_limit(held + SLACK_BYTES + 10**9, plan, tta=False, device=CPU)
    assert plain - flipped == pytest.approx(window, abs=50 * 2**20)


def test_too_little_is_said_and_sums_wait_on_disk(caplog):
    with caplog.at_level(logging.WARNING):
        assert sums_limit(10**8, make_test_plan(3), tta=False, device=CPU) == 0
    assert "less than a prediction of this image takes at least" in caplog.text


def test_without_a_limit_sums_have_two_gigabytes_on_a_cpu_and_none_elsewhere():
    assert sums_limit(None, make_test_plan(3), tta=False, device=CPU) == DEFAULT_SUMS_BYTES == 2 * 10**9
    assert sums_limit(None, make_test_plan(3), tta=False, device=torch.device("cuda")) is None


def test_a_limit_is_refused_where_it_does_nothing():
    with pytest.raises(OptionError, match=r"on a CPU, this one is on cuda[^\n]*\n\s+→ leave --memory out"):
        Predictor((), device=torch.device("cuda"), memory_bytes=10**10)
