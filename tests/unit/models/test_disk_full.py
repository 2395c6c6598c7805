"""A disk that is full at any moment of saving a model: a clear error, and the old model or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from decathlete.core import files, sizes
from decathlete.core.locks import LOCK_NAME
from decathlete.errors import OutputError
from decathlete.models import weights as module
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.training.loop.checkpoint import load_checkpoint, save_checkpoint
from factories import make_test_plan

PLAN = make_test_plan()
MEMBER = TrainedMember(plan=PLAN, networks=[build_network(PLAN.network)])


class FullDisk:
    """Fails at the write with this number, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_writes, self.fails_at = 0, -1
        monkeypatch.setattr(Path, "write_text", self.wrap(Path.write_text))
        monkeypatch.setattr(Path, "mkdir", self.wrap(Path.mkdir))
        monkeypatch.setattr(Path, "touch", self.wrap(Path.touch))
        monkeypatch.setattr(os, "fsync", self.wrap(os.fsync))
        monkeypatch.setattr(os, "replace", self.wrap(os.replace))
        monkeypatch.setattr(module, "save_file", self.wrap(module.save_file, native=True))
        monkeypatch.setattr(torch, "save", self.wrap(torch.save, native=True))

    def wrap(self, write, *, native: bool = False):
        def write_or_fail(*args, **options):
            if LOCK_NAME in str(args[0]):  # a lock holds without its content
                return write(*args, **options)
            self.n_writes += 1
            if self.n_writes == self.fails_at:
                if native:  # as safetensors says it
                    raise RuntimeError("I/O error: No space left on device (os error 28)")
                raise OSError(28, "No space left on device", str(args[0]))
            return write(*args, **options)

        return write_or_fail


@pytest.fixture
def disk(monkeypatch) -> FullDisk:
    return FullDisk(monkeypatch)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("replaces", [False, True])
def test_every_write_of_a_model(tmp_path, disk, replaces):
    folder = tmp_path / "results" / "model"
    ModelBundle.save(folder, MEMBER)
    n_writes, new = disk.n_writes, content(folder)
    assert n_writes > 8
    for number in range(1, n_writes + 1):
        case = tmp_path / str(number)
        folder, disk.fails_at = case / "model", -1
        if replaces:
            ModelBundle.save(folder, TrainedMember(plan=PLAN, networks=[build_network(PLAN.network, seed=7)]))
        else:
            case.mkdir()
        old = content(case)
        disk.n_writes, disk.fails_at = 0, number
        try:
            ModelBundle.save(folder, MEMBER, overwrite=True)
        except OutputError as problem:
            assert problem.code == "E-DISK-FULL", problem  # noqa: PT017
            assert "No space left on device" in str(problem)  # noqa: PT017
        else:
            assert disk.n_writes < number  # there were fewer writes than in the first folder
        disk.fails_at = -1
        assert content(case) in (old, {f"model/{name}": data for name, data in new.items()})


def test_every_write_of_a_checkpoint(tmp_path, disk):
    path = tmp_path / "checkpoints" / "last.ckpt"
    save_checkpoint(path, {"step": 1})
    n_writes = disk.n_writes
    for number in range(1, n_writes + 1):
        disk.n_writes, disk.fails_at = 0, number
        with pytest.raises(OutputError, match="No space left on device") as caught:
            save_checkpoint(path, {"step": 2})
        assert caught.value.code == "E-DISK-FULL"
        disk.fails_at = -1
        assert load_checkpoint(path)["step"] in ((1, 2) if number == n_writes else (1,))
        assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_disk_that_is_really_full(small_disk, monkeypatch):
    """What fills it may come after the check of its space."""
    monkeypatch.setattr(sizes, "free_disk_bytes", lambda _: 10**9)
    network = build_network(PLAN.network.revised(features=(32, 64)))
    large = TrainedMember(plan=PLAN.revised(network=PLAN.network.revised(features=(32, 64))), networks=[network])
    ModelBundle.save(small_disk / "model", MEMBER)
    whole = content(small_disk)
    for write in (
        lambda: ModelBundle.save(small_disk / "model", large, overwrite=True),
        lambda: save_checkpoint(small_disk / "last.ckpt", {"network": network.state_dict()}),
    ):
        with pytest.raises(OutputError, match="No space left on device") as caught:
            write()
        assert caught.value.code == "E-DISK-FULL"
        assert content(small_disk) == whole


def test_other_errors_of_writers_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="too large") as caught, files.translate_native_write_error(tmp_path / "x"):
        raise RuntimeError("I/O error: too large a file (os error 27)")
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(RuntimeError, match="a bug"), files.translate_native_write_error(tmp_path / "x"):
        raise RuntimeError("a bug")
