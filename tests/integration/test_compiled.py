"""Training with a compiled network; slow, for the compiler is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from decathlete.benchmarking.options import BenchmarkOptions
from decathlete.benchmarking.run import benchmark
from decathlete.errors import Interrupted
from decathlete.models.bundle import ModelBundle
from decathlete.planning.options import PlanOptions
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.loop.checkpoint import load_checkpoint
from decathlete.training.reporting.records import Logs
from decathlete.training.run import train
from decathlete.workflows.workspace import Workspace
from training_support import KillAt, make_store, tiny_config

pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's compiler, about torch
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """What an earlier run, or test, has compiled must not stand in for a compiler."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch.compiler.reset()
    return tmp_path / "inductor"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PreparedStore:
    return make_store(tmp_path_factory.mktemp("store"))


def programs(cache: Path) -> list[Path]:
    """What the compiler has written."""
    return list(cache.rglob("*.cpp"))


def test_a_compiled_training_is_the_same_but_for_rounding_and_goes_on(store, tmp_path, cache):
    config = tiny_config(optimizer="sgd", epochs=2, steps_per_epoch=3, val_cases=1)
    plain = train(store, 0, tmp_path / "plain", config)
    assert programs(cache) == []
    config = config.revised(compile=True)
    with pytest.raises(Interrupted):
        train(store, 0, tmp_path / "compiled", config, progress=KillAt(2, signal.SIGTERM))
    assert programs(cache), "nothing was compiled"
    compiled = train(store, 0, tmp_path / "compiled", config, resume=True)
    for ours, others in (
        (ModelBundle.load(compiled.model).build().state_dict(), ModelBundle.load(plain.model).build().state_dict()),
        *(
            (load_checkpoint(compiled.folder / last)[part], load_checkpoint(plain.folder / last)[part])
            for last in ("checkpoints/last.ckpt",)
            for part in ("network", "ema")
        ),
    ):
        assert ours.keys() == others.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], others[name], rtol=0, atol=1e-4)
    losses = [[epoch.val_loss for epoch in Logs.load(r.folder / "logs.json").epochs] for r in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_benchmark_says_whether_it_was_compiled(tmp_path, cache):
    options = BenchmarkOptions(
        mode="train",
        task="04",
        patch=(8, 8, 8),
        plan=PlanOptions(filters=(2, 4)),
        warmup=1,
        steps=2,
        precision="fp32",
        device="cpu",
        compile=True,
    )
    assert programs(cache) == []
    record = benchmark(options, workspace=Workspace(results=tmp_path)).record
    assert record.settings.compiled
    assert programs(cache)
    assert "compiled" in record.lines()


def test_without_a_compiler_it_is_told_what_to_do(tmp_path: Path):
    code = (
        "import torch; from decathlete.training.loop.compiling import check_compiler\n"
        "from decathlete.errors import OptionError\n"
        "try: check_compiler(torch.device('cpu'))\n"
        "except OptionError as problem: print(problem)"
    )
    environment = os.environ | {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "fresh")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "nothing can be compiled for cpu here" in ended.stdout, ended
    assert "install a C++ compiler" in ended.stdout
