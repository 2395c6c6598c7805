"""Training in processes that torchrun would start: they share a folder, and the first one says what becomes of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from decathlete.errors import OptionError
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.devices import choose_hardware
from decathlete.training.run import train
from training_support import make_store, tiny_config

CONFIG = tiny_config(epochs=1, steps_per_epoch=2, val_cases=0, devices=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    return make_store(tmp_path_factory.mktemp("store"))


def torchrun_tells(rank: int, world: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }


def launch(store: PreparedStore, folder: Path, config: TrainConfig, *, slow_s: float) -> list[tuple[int, str, str]]:
    """Exit code and words of each of two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    script = Path(__file__).parents[1] / "training_support.py"
    command = [sys.executable, str(script), "launched", str(store.folder), str(folder), config.model_dump_json()]
    processes = [
        subprocess.Popen(
            [*command, str(slow_s if rank == 0 else 0)],
            env=os.environ | torchrun_tells(rank, 2, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [p.communicate(timeout=100) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, said, strict=True)]


def test_no_process_goes_by_a_checkpoint_that_the_first_is_about_to_remove(store, tmp_path):
    train(store, 0, tmp_path / "run", CONFIG.revised(devices=1, steps_per_epoch=1))
    ended = launch(store, tmp_path / "run", CONFIG, slow_s=3.0)
    assert [(code, out) for code, out, _ in ended] == [(0, "2 steps, True")] * 2, ended


def test_a_refusal_of_the_first_ends_all_with_its_words(store, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    ended = launch(store, tmp_path / "run", CONFIG, slow_s=0.0)
    assert [code for code, _, _ in ended] == [2, 2], ended
    assert all("cannot be written" in err for _, _, err in ended), ended


def test_processes_that_would_train_apart_are_refused(monkeypatch):
    for name, value in torchrun_tells(1, 2, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match="started 2 processes"):
        choose_hardware(CONFIG.revised(devices=1))
    assert choose_hardware(CONFIG).world == 2
