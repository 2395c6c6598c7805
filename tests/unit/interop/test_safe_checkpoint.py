"""Checkpoints whose numbers are not all in them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from decathlete.errors import ModelError
from decathlete.interop.safe_checkpoint import load_untrusted_checkpoint


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


@pytest.mark.parametrize("numel", [8, 10**6])
def test_a_storage_larger_than_its_record_is_refused(numel: int, tmp_path: Path) -> None:
    """By torch itself: it would have to read on, in memory that holds other things than this file."""
    with pytest.raises(ModelError, match="is not a checkpoint, or is damaged"):
        load_untrusted_checkpoint(declared(tmp_path / "a.pt", numel))


def test_an_honest_checkpoint_is_read(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save({"a": torch.arange(4.0)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        assert load_untrusted_checkpoint(tmp_path / "a.pt")["a"].tolist() == [0, 1, 2, 3]


def test_containers_that_contain_each_other_are_looked_at_once(tmp_path: Path) -> None:
    endless: dict[str, object] = {"a": torch.arange(4.0)}
    endless["self"] = endless
    nested: list[object] = [torch.arange(4.0)]
    for _ in range(40):
        nested = [nested] * 10
    endless["nested"] = nested
    torch.save(endless, tmp_path / "a.pt")
    assert load_untrusted_checkpoint(tmp_path / "a.pt")["a"].tolist() == [0, 1, 2, 3]
    nested[0] = torch.arange(4.0).to_sparse()
    torch.save(endless, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="contains a tensor that is"):
        load_untrusted_checkpoint(tmp_path / "a.pt")
