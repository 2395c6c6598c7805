"""Trained models: our own folders, nnU-Net's exported zip, and a checkpoint of NVIDIA's recipe."""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan
from robustness.byte_mutations import BYTE_MUTATIONS, near_start
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_any_file, on_file
from robustness.json_mutations import mutate_json, mutate_json_text

_GOLDEN = Path(__file__).parents[2] / "reference" / "golden"
_BUNDLE, _ZIP, _CHECKPOINT = "mutant", "mutant.zip", "mutant.ckpt"
_BAD_NUMBERS = (float("nan"), float("inf"), float("-inf"), 3e38, -3.5e35, 1e7)


def read_folder(folder: Path, prefix: str) -> Files:
    """Return the files of a folder, below ``prefix``."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {f"{prefix}/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in files}


def save_bundle(folder: Path) -> None:
    """Save an untrained model of one small network."""
    plan = make_test_plan()
    ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))


def _bundle() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(Path(folder) / _BUNDLE)
        return read_folder(Path(folder) / _BUNDLE, _BUNDLE)


def _weights_name(files: Files) -> str:
    return next(name for name in files if name.endswith(".safetensors"))


def change_weights(files: Files, random: Random) -> Files:
    """Set values of a tensor to numbers that no training leaves."""
    name = _weights_name(files)
    data = files[name]
    (length,) = struct.unpack_from("<Q", data)
    values = np.frombuffer(data[8 + length :], "<f4").copy()
    values[random.randrange(len(values)) :][: random.choice((1, 100))] = random.choice(_BAD_NUMBERS)
    return files | {name: data[: 8 + length] + values.tobytes()}


def change_weights_header(files: Files, random: Random) -> Files:
    """Change the JSON header of the weights: types, shapes, offsets, its length."""
    name = _weights_name(files)
    data = files[name]
    (length,) = struct.unpack_from("<Q", data)
    text = mutate_json(data[8 : 8 + length], random)
    declared = random.choice((len(text),) * 6 + (0, 2**63, 2**32, len(text) + 1))
    return files | {name: struct.pack("<Q", declared) + text + data[8 + length :]}


def lose_file(files: Files, random: Random) -> Files:
    """Remove or empty one file."""
    name = random.choice(sorted(files))
    kept = {other: content for other, content in files.items() if other != name}
    return kept | ({name: b""} if random.random() < 0.5 else {})


def _in_weights(kind: str) -> FileMutation:
    return lambda files, random: on_file(_weights_name(files), BYTE_MUTATIONS[kind])(files, random)


_RECORD = f"{_BUNDLE}/model.json"
_IN_BUNDLE: dict[str, FileMutation] = {
    **{f"weights_{kind}": _in_weights(kind) for kind in BYTE_MUTATIONS},
    "weights_values": change_weights,
    "weights_header": change_weights_header,
    "record": on_file(_RECORD, mutate_json),
    "record_text": on_file(_RECORD, mutate_json_text),
    "files": lose_file,
}


def pack_zip(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack files into a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as packed:
        for name, content in sorted(files.items()):
            packed.writestr(zipfile.ZipInfo(name), content, compression)
    return stream.getvalue()


def unpack_zip(data: bytes) -> Files:
    """Return the files of a zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def make_nnunet_zip() -> bytes:
    """Return a trained model as nnU-Net exports it."""
    (folder,) = (_GOLDEN / "nnunet" / "plain_3d").glob("Dataset*")
    return pack_zip(read_folder(folder, folder.name))


def _nnunet_zip() -> Files:
    return {_ZIP: make_nnunet_zip()}


def make_dynunet_checkpoint() -> bytes:
    """Return a checkpoint of NVIDIA's recipe."""
    return (_GOLDEN / "dynunet" / "plain_3d.ckpt").read_bytes()


def _dynunet_checkpoint() -> Files:
    return {_CHECKPOINT: make_dynunet_checkpoint()}


def _inside(change: FileMutation) -> FileMutation:
    """Apply a mutation to the files in the zip, and pack them again."""
    return lambda files, random: {_ZIP: pack_zip(change(unpack_zip(files[_ZIP]), random))}


def change_checkpoint_tensors(files: Files, random: Random, *, name: str = _CHECKPOINT) -> Files:
    """Make one tensor of a checkpoint not finite, sparse, expanded, of another type or shape, or no tensor."""
    content = _load(files[name])
    state = _state(content)
    key = random.choice(sorted(k for k, v in state.items() if isinstance(v, torch.Tensor) and v.is_floating_point()))
    tensor = state[key]
    changes: tuple[Any, ...] = (
        lambda: torch.full_like(tensor, random.choice(_BAD_NUMBERS)),
        lambda: tensor.to_sparse(),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.to(torch.bool),
        lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda: torch.zeros(1).expand(2**20, 2**14),
        lambda: tensor.reshape(-1),
        lambda: torch.empty(0),
        lambda: torch.empty(tensor.shape, device="meta"),
        lambda: "x",
        lambda: None,
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    )
    state[key] = random.choice(changes)()
    return files | {name: _dump(content)}


def change_checkpoint_content(files: Files, random: Random, *, name: str = _CHECKPOINT) -> Files:
    """Remove or replace one entry of a checkpoint."""
    content = _load(files[name])
    key = random.choice(sorted(content))
    if random.random() < 0.4:
        del content[key]
    else:
        content[key] = random.choice((None, 0, -1, "x", [], {}, float("nan"), torch.zeros(2), {1: {2: 3}}, [[]] * 3))
    return files | {name: _dump(content)}


def _load(data: bytes) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    return content


def _state(content: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = next(v for k, v in content.items() if k in ("state_dict", "network_weights"))
    return state


def _dump(content: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _in_pth(change: Any) -> FileMutation:
    def mutate(files: Files, random: Random) -> Files:
        name = next(n for n in sorted(files) if n.endswith(".pth"))
        changed: Files = change(files, random, name=name)
        return changed

    return _inside(mutate)


_IN_ZIP: dict[str, FileMutation] = {
    **byte_mutations(_ZIP),
    "json": _inside(on_any_file(mutate_json, suffix=".json")),
    "json_text": _inside(on_any_file(mutate_json_text, suffix=".json")),
    "files": _inside(lose_file),
    "tensors": _in_pth(change_checkpoint_tensors),
    "content": _in_pth(change_checkpoint_content),
    **{f"pth_{kind}": _inside(on_any_file(m, suffix=".pth")) for kind, m in BYTE_MUTATIONS.items()},
}
_IN_CHECKPOINT: dict[str, FileMutation] = {
    **byte_mutations(_CHECKPOINT),
    "flip_bits_at_start": on_file(_CHECKPOINT, near_start(BYTE_MUTATIONS["flip_bits"], 2000)),
    "tensors": change_checkpoint_tensors,
    "content": change_checkpoint_content,
}

FORMATS = (
    Format(name="model", make=_bundle, entry=_BUNDLE, mutations=_IN_BUNDLE, actions=("predict_with",)),
    Format(name="nnunet_zip", make=_nnunet_zip, entry=_ZIP, mutations=_IN_ZIP, actions=("import_nnunet",)),
    Format(
        name="dynunet_ckpt",
        make=_dynunet_checkpoint,
        entry=_CHECKPOINT,
        mutations=_IN_CHECKPOINT,
        actions=("import_dynunet",),
    ),
)
