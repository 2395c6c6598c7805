"""Checkpoints that would run code, or that are none: refused by name, and nothing of them is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from decathlete.errors import ModelError, OutputError
from decathlete.interop.dynunet import import_dynunet
from dynunet_support import GOLDEN, changed, golden_content


class Malicious:
    """Whose pickle would make a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder),))


def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    path = changed("plain_3d", tmp_path, callbacks={"x": Malicious(proof)})
    with pytest.raises(ModelError, match=r"code to be run.*posix\.mkdir|code to be run.*nt\.mkdir") as caught:
        import_dynunet(path, tmp_path / "model")
    assert "'state_dict', 'hyper_parameters'" in str(caught.value)
    assert not proof.exists()
    assert not (tmp_path / "model").exists()
    torch.load(path, weights_only=False)  # so the checkpoint is as hostile as it is meant to be
    assert proof.exists()


def test_code_in_torchs_old_format_is_not_run_either(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "old.ckpt"
    content = golden_content("plain_3d") | {"x": Malicious(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="mkdir"):
        import_dynunet(path, tmp_path / "model")
    assert not proof.exists()


def test_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "bare.ckpt"
    path.write_bytes(pickle.dumps(Malicious(proof)))
    with pytest.raises(ModelError):
        import_dynunet(path, tmp_path / "model")
    assert not proof.exists()


class Callback:
    """As old versions of Lightning pickle the classes of callbacks."""


def test_a_class_that_is_needed_is_named(tmp_path: Path) -> None:
    path = changed("plain_3d", tmp_path, callbacks={Callback: {}})
    with pytest.raises(ModelError, match=r"test_import_dynunet_refusals\.Callback; nothing was loaded"):
        import_dynunet(path, tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and so on"])
def test_what_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match="not a checkpoint"):
        import_dynunet(tmp_path / "x.ckpt", tmp_path / "model")


def test_a_checkpoint_cut_short(tmp_path: Path) -> None:
    whole = (GOLDEN / "plain_3d.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        import_dynunet(tmp_path / "x.ckpt", tmp_path / "model")


def test_places_that_are_not_there_or_not_free(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        import_dynunet(tmp_path / "none.ckpt", tmp_path / "model")
    with pytest.raises(ModelError, match="is a folder"):
        import_dynunet(tmp_path, tmp_path / "model")
    import_dynunet(GOLDEN / "plain_3d.ckpt", tmp_path / "model")
    with pytest.raises(OutputError, match="already exists"):
        import_dynunet(GOLDEN / "plain_3d.ckpt", tmp_path / "model")
    import_dynunet(GOLDEN / "plain_3d.ckpt", tmp_path / "model", overwrite=True)
    with pytest.raises(OutputError, match="no model"):  # before the checkpoint is looked for
        import_dynunet(tmp_path / "none.ckpt", tmp_path, overwrite=True)


def test_another_network_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    path = changed("plain_3d", tmp_path, state_dict={"model.filters.0.weight": torch.ones(2)})
    with pytest.raises(ModelError, match=r"model\.filters\.0\.weight.*it needs names like input_block"):
        import_dynunet(path, tmp_path / "model")


@pytest.mark.parametrize("state", [None, ["a"], {1: torch.ones(1)}])
def test_weights_without_names_are_refused(state: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"contains no (named weights|DynUNet)"):
        import_dynunet(changed("plain_3d", tmp_path, state_dict=state), tmp_path / "model")


def test_a_few_bytes_that_are_repeated_are_refused(tmp_path: Path) -> None:
    """Each tensor has the right shape; copied, they would have any number of bytes."""
    state = golden_content("plain_3d")["state_dict"]
    spread = {n: t.flatten()[:1].clone().reshape((1,) * t.ndim).expand(t.shape) for n, t in state.items()}
    with pytest.raises(ModelError, match="more numbers than the checkpoint stores"):
        import_dynunet(changed("plain_3d", tmp_path, state_dict=spread), tmp_path / "model")


def test_numbers_that_make_no_sense_are_not_the_checkpoints(tmp_path: Path) -> None:
    args = {"batch_size": -4, "min_fmap": 0, "depth": -1, "filters": ["many"]}
    assert import_dynunet(changed("plain_3d", tmp_path, args=args), tmp_path / "model").plan.batch_size == 2
