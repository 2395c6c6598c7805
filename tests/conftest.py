"""What all tests share: one thread for torch, real data where they are, and the programs that we compare with."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# xdist uses the cores already: neither these processes nor the commands that tests start gain from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_DATA = Path(os.environ.get("DECATHLETE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
PEERS = Path(os.environ.get("DECATHLETE_PEERS", Path(__file__).parents[1] / ".venv-peers"))

# Examples have no time limit: other work on the machine must not fail a test.
# The same examples in every run, so that no change fails by chance; `make test-full` draws new ones.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("random"), derandomize=True)
settings.load_profile("repeatable")


# Modules and tests are many objects that live until the end: looking through them as often as Python does by default
# takes a tenth of the processor time.
gc.set_threshold(10_000, 10, 10)


def pytest_collection_finish() -> None:
    """Never look through them again: a further twentieth."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small tensors gain nothing from many threads, and xdist already uses the cores."""
    import torch

    torch.set_num_threads(1)
    return


@pytest.fixture(autouse=True, scope="session")
def _auto_is_torch() -> Iterator[None]:
    """Where OpenVINO is installed, too: expected values are torch's, and tests of other engines name them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("decathlete.inference.engines.openvino.OpenVinoEngine.relative_speed", lambda device: 0.0)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, which needs rights to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # torch's failed writer still holds its file


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of a real dataset; the test is skipped where it is absent."""

    def folder(name: str) -> Path:
        path = REAL_DATA / name
        if not path.is_dir() and REAL_DATA.is_dir():
            pytest.fail(f"{REAL_DATA} is there, but holds no {name}")
        if not path.is_dir():
            pytest.skip(f"the real dataset {name} is not on this machine")
        return path

    return folder


@pytest.fixture(scope="session")
def peers() -> Path:
    """The Python of the environment with nnunetv2 (``make peers``); the test is skipped where it is absent."""
    python = PEERS / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"there is no {PEERS}: run `make peers`, or name its folder by DECATHLETE_PEERS")
    return python
