"""Memory that sums of a prediction may fill, and what comes of too little."""

import logging
from types import SimpleNamespace

import psutil
import pytest
import torch

from decathlete.core.geometry import AxisTransform, Box, Geometry
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OptionError
from decathlete.inference.predict import Predictor
from decathlete.inference.windows.memory import DEFAULT_SUMS_BYTES, sums_limit
from decathlete.preprocessing.prepared import Restoration
from factories import make_test_plan

CPU = torch.device("cpu")


def limit(memory_bytes, plan=None, *, device=CPU, shape=(20, 20, 20), **changes):
    way = Restoration(
        geometry=Geometry.plain(shape), axes=AxisTransform(), crop=Box(start=(0, 0, 0), stop=shape), shape=shape
    )
    options = {"batch_size": 1, "n_engines": 1, "n_buffered_windows": 0, "tta": False} | changes
    window = SlidingWindow(
        memory_gb=memory_bytes and memory_bytes / 1e9, batch_size=options["batch_size"], tta=options["tta"]
    )
    engines = [SimpleNamespace(n_buffered_windows=options["n_buffered_windows"])] * options["n_engines"]
    plan = plan or make_test_plan(3)
    return sums_limit(window, plan=plan, restoration=way, engines=engines, device=device)


@pytest.fixture(autouse=True)
def held(monkeypatch):
    """Stands in for the system's count of what this process holds: ``held.rss`` bytes."""
    memory = SimpleNamespace(rss=2 * 10**8)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: memory))
    return memory


def test_what_the_process_holds_already_counts(held):
    before = limit(10**10)
    held.rss += 3 * 10**8
    assert before - limit(10**10) == 3 * 10**8


def test_what_comes_and_goes_beside_the_sums_counts():
    plan = make_test_plan(3, n_foreground=59, patch_size=(96, 96, 96))
    window, maps = 4 * 60 * 96**3, 7 * 4 * 4 * 96**3
    plain = limit(10**11, plan)
    assert plain - limit(10**11, plan, tta=True) == window
    assert plain - limit(10**11, plan, n_engines=3) == window
    assert plain - limit(10**11, plan, n_engines=3, tta=True) == window
    assert plain - limit(10**11, plan, n_buffered_windows=2) == 2 * window
    assert plain - limit(10**11, plan, batch_size=3) == 2 * (window + maps)
    wide = limit(10**11, plan, shape=(1, 2000, 2000))  # a plane of all classes is more than a window
    labels = 2 * (2000**2 - 20**3)
    assert plain - wide == 2 * 4 * 60 * 2000**2 + 128 * 2**20 + labels - 2 * window - maps


def test_too_little_is_said_and_sums_wait_on_disk(caplog):
    with caplog.at_level(logging.WARNING):
        assert limit(10**8) == 0
    assert "too little for this image: its prediction needs about" in caplog.text


def test_without_a_limit_sums_have_two_gigabytes_on_a_cpu_and_none_elsewhere():
    assert limit(None) == DEFAULT_SUMS_BYTES == 2 * 10**9
    assert limit(None, device=torch.device("cuda")) is None


def test_a_limit_is_refused_where_it_does_nothing():
    with pytest.raises(OptionError, match=r"on a CPU, and this one is on cuda[^\n]*\n\s+→ leave --memory out"):
        Predictor((), device=torch.device("cuda"), window=SlidingWindow(memory_gb=10))
