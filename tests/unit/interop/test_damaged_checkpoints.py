"""Damaged checkpoints of other programs: equal weights or an error, never a changed weight."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from decathlete.errors import DecathleteError, ModelError
from decathlete.interop.dynunet import import_dynunet
from decathlete.interop.nnunet import import_nnunet
from decathlete.interop.safe_checkpoint import load_untrusted_checkpoint
from decathlete.models.bundle import ModelBundle
from dynunet_support import GOLDEN, changed, golden_content

NNUNET = Path(__file__).parents[2] / "reference" / "golden" / "nnunet"
SHARED_FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
"""Each example writes the whole checkpoint, so that the folder may be shared."""


def nnunet_model(tmp_path: Path) -> Path:
    (source,) = (NNUNET / "plain_3d").glob("Dataset*/*")
    shutil.copytree(source, tmp_path / source.name, dirs_exist_ok=True)
    return tmp_path / source.name


def import_one_fold(model: Path, output: Path) -> ModelBundle:
    return import_nnunet(model, output, folds=[0], overwrite=True).bundle


def import_checkpoint(path: Path, output: Path) -> ModelBundle:
    return import_dynunet(path, output, overwrite=True).bundle


Importer = Callable[[Path, Path], ModelBundle]


@pytest.fixture(params=["nnunet", "dynunet"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Importer, Path, Path]:
    """An importer, its argument, and the checkpoint inside."""
    if request.param == "nnunet":
        model = nnunet_model(tmp_path)
        return import_one_fold, model, model / "fold_0" / "checkpoint_final.pth"
    shutil.copy(GOLDEN / "plain_3d.ckpt", tmp_path / "plain.ckpt")
    return import_checkpoint, tmp_path / "plain.ckpt", tmp_path / "plain.ckpt"


def weights_of(bundle: ModelBundle) -> dict[str, Tensor]:
    return bundle.build().state_dict()


@SHARED_FILES
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_bit_gives_equal_weights_or_an_error(
    checkpoint: tuple[Importer, Path, Path], tmp_path: Path, place: float, bit: int
) -> None:
    run, argument, path = checkpoint
    whole = path.read_bytes()
    expected = weights_of(run(argument, tmp_path / "whole"))
    damaged = bytearray(whole)
    damaged[int(place * len(whole))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        found = weights_of(run(argument, tmp_path / "damaged"))
    except DecathleteError:
        return
    finally:
        path.write_bytes(whole)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_changed_weight_is_named(checkpoint: tuple[Importer, Path, Path], tmp_path: Path) -> None:
    run, argument, path = checkpoint
    whole = path.read_bytes()
    content = torch.load(path, weights_only=False)
    state = content["network_weights"] if "network_weights" in content else content["state_dict"]
    raw = next(value for value in state.values() if value.numel() > 20).numpy().tobytes()[:64]
    place = whole.index(raw) + 3
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
    with pytest.raises(ModelError, match=r"the content of 'data/\d+' does not match its checksum") as caught:
        run(argument, tmp_path / "model")
    assert caught.value.code == "E-MODEL-DAMAGED"
    assert not (tmp_path / "model").exists()


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(4.0)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_untrusted_checkpoint(tmp_path / "a.pt")["a"].tolist() == [0, 1, 2, 3]


UNUSUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "not dense (sparse_coo)": Tensor.to_sparse,
    "not dense (sparse_csr)": lambda value: value.flatten(1).to_sparse_csr(),
    "without values (device meta)": lambda value: value.to("meta"),
    "of type float8_e4m3fn": lambda value: value.to(torch.float8_e4m3fn),
    "of type complex64": lambda value: value.to(torch.complex64),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("program", ["nnunet", "dynunet"])
def test_tensors_that_no_network_has(tmp_path: Path, program: str, kind: str) -> None:
    convert = UNUSUAL[kind]
    with pytest.raises(ModelError) as caught:
        import_changed(tmp_path, program, convert)
    assert kind in str(caught.value)
    assert caught.value.code == "E-MODEL-UNSUPPORTED"
    assert not (tmp_path / "model").exists()


VALUES: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda value: value * float("nan"), "contains NaN or infinit"),
    (lambda value: torch.full_like(value, -torch.inf), "contains NaN or infinit"),
    (lambda value: value * 0 - 3.5e35, "contains a weight of 3.5e+35"),
    (lambda value: value * 0 + 1e7, "contains a weight of 1e+07"),
    (lambda value: value.long(), "has type int64, not float32"),
    (lambda value: value.bool(), "has type bool, not float32"),
]


@pytest.mark.parametrize(("convert", "message"), VALUES)
@pytest.mark.parametrize("program", ["nnunet", "dynunet"])
def test_values_and_types_that_no_trained_network_has(
    tmp_path: Path, program: str, convert: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ModelError, match=r"checkpoint|changed\.ckpt") as caught:
        import_changed(tmp_path, program, convert)
    assert message in str(caught.value)
    assert not (tmp_path / "model").exists()


def import_changed(tmp_path: Path, program: str, convert: Callable[[Tensor], Tensor]) -> None:
    """Import a checkpoint whose first convolution has been converted."""
    if program == "nnunet":
        model = nnunet_model(tmp_path)
        path = model / "fold_0" / "checkpoint_final.pth"
        content: dict[str, Any] = torch.load(path, weights_only=False)
        content["network_weights"] = converted(content["network_weights"], convert)
        torch.save(content, path)
        import_one_fold(model, tmp_path / "model")
    else:
        state = converted(golden_content("plain_3d")["state_dict"], convert)
        import_checkpoint(changed("plain_3d", tmp_path, state_dict=state), tmp_path / "model")


def converted(state: dict[str, Tensor], convert: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Convert the first convolution's weight, under all of its names."""
    first = next(value for value in state.values() if value.ndim > 3)
    new = convert(first)
    return {name: new if value.data_ptr() == first.data_ptr() else value for name, value in state.items()}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated")
def test_quantized_tensors(tmp_path: Path) -> None:
    torch.save({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, tmp_path / "a.pt")
    with pytest.raises(ModelError):
        load_untrusted_checkpoint(tmp_path / "a.pt")


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.ones(3)}, path)
    real = Path.open

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("zipfile.ZipFile.__init__", lambda *_, **__: refuse(path))
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\)") as caught:
        load_untrusted_checkpoint(path)
    assert caught.value.code == "E-FILE"
    assert "damaged" not in str(caught.value)
