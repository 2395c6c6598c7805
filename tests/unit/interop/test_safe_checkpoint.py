"""Checkpoints whose numbers are not all in them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from decathlete.errors import ModelError
from decathlete.interop.safe_checkpoint import is_hollow, load_from_outside


def declared(path: Path, numel: int) -> Path:
    """A checkpoint whose tensor claims ``numel`` numbers, while its record holds 4."""
    torch.save({"a": torch.arange(4, dtype=torch.float32)}, path)
    with zipfile.ZipFile(path) as honest:
        members = {name: honest.read(name) for name in honest.namelist()}
    (pickled,) = (name for name in members if name.endswith("data.pkl"))
    claimed = b"J" + numel.to_bytes(4, "little", signed=True)
    changed = members[pickled].replace(b"K\x04t", claimed + b"t").replace(b"K\x04\x85", claimed + b"\x85")
    assert changed.count(claimed) == 2
    members[pickled] = changed
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_storage_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    """torch would read on, in memory that holds other things than this file."""
    with pytest.raises(ModelError, match="is not a checkpoint, or is damaged"):
        load_from_outside(declared(tmp_path / "a.pt", 10**6))


def test_what_is_declared_too_large_but_fits_is_of_the_file(tmp_path: Path) -> None:
    path = declared(tmp_path / "a.pt", 8)
    found = load_from_outside(path)["a"].numpy().tobytes()
    assert found in path.read_bytes()


def test_an_honest_checkpoint_is_read(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save({"a": torch.arange(4.0)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        assert load_from_outside(tmp_path / "a.pt")["a"].tolist() == [0, 1, 2, 3]


def test_storages_that_overlap_are_counted_once() -> None:
    numbers = torch.arange(16.0)
    whole = numbers.untyped_storage()
    halves = [torch.tensor([]).set_(whole[i * 16 : 64]) for i in range(3)]
    assert is_hollow(halves)
    assert not is_hollow([numbers, torch.zeros(3)])
