"""Checkpoints are whole or absent, and run no code when read."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decathlete.errors import ModelError, OutputError
from decathlete.training.loop.checkpoint import load_checkpoint, save_checkpoint


def test_round_trip(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    save_checkpoint(path, {"network": {"w": torch.arange(3.0)}, "state": {"step": 4, "best": None, "losses": [0.5]}})
    content = load_checkpoint(path)
    torch.testing.assert_close(content["network"]["w"], torch.arange(3.0))
    assert content["state"] == {"step": 4, "best": None, "losses": [0.5]}
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_failed_write_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(path, {"step": lambda: 2})
    assert load_checkpoint(path)["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_is_not_run(tmp_path, capsys):
    path = tmp_path / "evil.ckpt"
    torch.save({"version": 1, "x": _Evil()}, path)
    with pytest.raises(ModelError, match="not a checkpoint, or is damaged"):
        load_checkpoint(path)
    assert "code ran" not in capsys.readouterr().out


def test_missing_truncated_and_foreign_files_are_told(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_checkpoint(tmp_path / "none.ckpt")
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ModelError, match="damaged"):
        load_checkpoint(path)
    torch.save({"version": 99}, path)
    with pytest.raises(ModelError, match="version"):
        load_checkpoint(path)


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        save_checkpoint(tmp_path / "file" / "last.ckpt", {})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_a_changed_bit_gives_equal_content_or_an_error(tmp_path, place, bit):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"ema": {"w": torch.arange(500.0)}, "state": {"step": 4, "losses": [0.5]}})
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        content = load_checkpoint(path)
    except ModelError as problem:
        assert problem.code == "E-MODEL-DAMAGED"  # noqa: PT017
    else:
        assert torch.equal(content["ema"]["w"], torch.arange(500.0))
        assert content["state"] == {"step": 4, "losses": [0.5]}


def test_missing_parts_are_named(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"ema": {}, "network": {}})
    with pytest.raises(ModelError, match=r"damaged .*it has no state, optimizer") as caught:
        load_checkpoint(path, parts=("state", "ema", "optimizer"))
    assert caught.value.code == "E-MODEL-DAMAGED"


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"step": 1})

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zipfile.ZipFile.__init__", refuse)
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\)") as caught:
        load_checkpoint(path)
    assert caught.value.code == "E-FILE"
