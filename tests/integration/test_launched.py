"""Training in processes that torchrun or SLURM would start: one folder, and the first one says what becomes of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.errors import OptionError
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import choose_hardware
from decathlete.training.run import train
from guards import HANG_S
from training_support import make_store, tiny_config

Tells = Callable[[int, int, int], dict[str, str]]
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


def slurm_tells(rank: int, world: int, port: int) -> dict[str, str]:
    """What ``srun`` sets for a job of one node; the port would follow from the job's number."""
    return {
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(world),
        "SLURM_NTASKS_PER_NODE": str(world),
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "MASTER_PORT": str(port),
    }


def launch(
    store: PreparedStore, folder: Path, config: TrainConfig, *, slow_s: float, tells: Tells = torchrun_tells
) -> list[tuple[int, str, str]]:
    """Exit code and words of each of two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    script = Path(__file__).parents[1] / "training_support.py"
    command = [sys.executable, str(script), "launched", str(store.folder), str(folder), config.model_dump_json()]
    processes = [
        subprocess.Popen(
            [*command, str(slow_s if rank == 0 else 0)],
            env=os.environ | tells(rank, 2, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [p.communicate(timeout=HANG_S) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, said, strict=True)]


@pytest.mark.full
def test_no_process_goes_by_a_checkpoint_that_the_first_is_about_to_remove(store, tmp_path):
    train(store, 0, tmp_path / "run", CONFIG.revised(devices=1, steps_per_epoch=1))
    ended = launch(store, tmp_path / "run", CONFIG, slow_s=3.0)
    assert [(code, out) for code, out, _ in ended] == [(0, "2 steps, True")] * 2, ended


@pytest.mark.full
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


def test_processes_that_srun_started_train_together(store, tmp_path):
    ended = launch(store, tmp_path / "run", CONFIG, slow_s=0.0, tells=slurm_tells)
    assert [(code, out) for code, out, _ in ended] == [(0, "2 steps, True")] * 2, ended


def in_slurm(monkeypatch, **changes: str | None) -> None:
    monkeypatch.setenv("MASTER_ADDR", "")  # Lightning sets it; so it is gone again afterwards
    monkeypatch.delenv("MASTER_ADDR")
    for name, value in (slurm_tells(1, 4, 1) | changes).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def test_slurms_tasks_are_devices_times_nodes(monkeypatch):
    in_slurm(monkeypatch, SLURM_NTASKS_PER_NODE="2", SLURM_NNODES="2", SLURM_NODELIST="gpu[07-08]")
    hardware = choose_hardware(CONFIG.revised(nodes=2))
    assert (hardware.world, hardware.spawned) == (4, False)
    environment = hardware.strategy().cluster_environment
    assert (environment.main_address, environment.global_rank()) == ("gpu07", 1)
    assert not environment.auto_requeue
    for wrong in ({"devices": 4}, {"devices": 2}, {"devices": 8, "nodes": 2}):
        with pytest.raises(OptionError, match="set --devices to the number of"):
            choose_hardware(CONFIG.revised(**wrong))


def test_slurm_must_say_how_many_tasks_a_node_has(monkeypatch):
    in_slurm(monkeypatch, SLURM_NTASKS_PER_NODE=None)
    with pytest.raises(OptionError, match="--ntasks-per-node"):
        choose_hardware(CONFIG)


def test_one_process_of_a_slurm_job_with_several_tasks_trains_by_itself(store, tmp_path, monkeypatch):
    in_slurm(monkeypatch, SLURM_PROCID="0", SLURM_LOCALID="0")
    assert train(store, 0, tmp_path / "run", CONFIG.revised(devices=1)).steps == 2


@pytest.mark.parametrize("tells", [torchrun_tells, slurm_tells])
@pytest.mark.parametrize("folds", ["", "--folds 0-1"])
def test_run_is_not_for_launchers(tells, folds, tmp_path, monkeypatch):
    for name, value in tells(1, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"started 2 processes\n.*`decathlete preprocess`, then `train`"):
        CliRunner().invoke(app, ["run", "01", *folds.split()], catch_exceptions=False)
    assert not (tmp_path / "prepared").exists()
