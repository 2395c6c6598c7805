"""A trained model on disk: a folder with ``model.json`` and ``weights.safetensors``, self-contained, no pickle.

A model may be several networks of one plan (folds), whose logits are averaged. The tensors of network ``i`` are then
called ``i.NAME``; those of a single network have their plain names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, JsonValue, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from decathlete.core.choices import Weights
from decathlete.core.files import atomic_path, file_digest, replace_folder, writable_folder
from decathlete.core.schema import Schema
from decathlete.errors import ModelError, OutputError
from decathlete.networks.build import build_network
from decathlete.networks.unet import UNet
from decathlete.planning.plan import Plan

MODEL_VERSION = 1
RECORD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
RUN_MODEL = "model"
"""Folder of the model inside a run's folder."""

_NAMED = 3
_RETRAIN = "copy the model again from where it was trained, or train it again"


class ModelRecord(Schema):
    """All about a model but its weights.

    Attributes:
        mirror_axes: spatial axes (0-based, working order) that training mirrored: those that test-time augmentation
            may flip.
        networks: how many; prediction averages their logits.
        weights: the averaged weights of the end of training, or those of the best validation.
        provenance: what it was made from and by.
        weights_sha256: of the weights file; set when the model is saved.
    """

    version: int = MODEL_VERSION
    plan: Plan
    mirror_axes: tuple[int, ...] = ()
    networks: int = Field(default=1, ge=1)
    weights: Weights = "final"
    provenance: dict[str, JsonValue] = {}
    weights_sha256: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.version != MODEL_VERSION:
            raise ValueError(f"version {self.version} is not {MODEL_VERSION}, the one this release reads")
        if sorted(set(self.mirror_axes)) != list(self.mirror_axes) or not set(self.mirror_axes) <= set(
            range(self.plan.dims)
        ):
            raise ValueError(f"mirror_axes {self.mirror_axes} are not ascending axes of a {self.plan.dims}D model")
        return self


@dataclass(frozen=True, kw_only=True)
class ModelBundle:
    """A saved model.

    Attributes:
        digest: SHA-256 over both files, hexadecimal: the identity of the model.
    """

    folder: Path
    record: ModelRecord
    digest: str

    @classmethod
    def save(
        cls,
        folder: Path,
        network: nn.Module | Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
        record: ModelRecord,
        *,
        overwrite: bool = False,
    ) -> ModelBundle:
        """Write ``network`` (or its state dict) and ``record``; the folder appears whole or not at all.

        Args:
            network: several state dicts become one model, and ``record.networks`` must be as many.

        Raises:
            ModelError: the weights are not those of the record's plan.
            OutputError: see :func:`check_place`; or it cannot be written.
        """
        weights = {name: value.detach().cpu().contiguous() for name, value in _states(network).items()}
        _check_fit({name: tuple(value.shape) for name, value in weights.items()}, record, where=folder)
        check_place(folder, overwrite=overwrite)
        writable_folder(folder.parent)
        with replace_folder(folder) as partial:
            with atomic_path(partial / WEIGHTS_FILE) as path:
                save_file(weights, path, metadata={"format": "pt"})
            digest = file_digest(partial / WEIGHTS_FILE)
            record.revised(weights_sha256=digest).save(partial / RECORD_FILE)
        return cls.load(folder)

    @classmethod
    def load(cls, path: Path) -> ModelBundle:
        """Open and check the bundle at ``path``, a bundle's folder or a run's (its final model is taken).

        Raises:
            ModelError: no model there, or a damaged one, or weights that do not fit the plan's network.
        """
        folder = _find(path)
        record = ModelRecord.load(folder / RECORD_FILE, error=ModelError, remedy=_RETRAIN)
        weights_file = folder / WEIGHTS_FILE
        _check_fit(_shapes(weights_file), record, where=weights_file)
        weights_sha256 = file_digest(weights_file)
        if record.weights_sha256 not in ("", weights_sha256):
            raise ModelError(
                f"is not the file that {RECORD_FILE} describes",
                where=weights_file,
                remedy=_RETRAIN,
                code="E-MODEL-DAMAGED",
            )
        both = file_digest(folder / RECORD_FILE) + weights_sha256
        return cls(folder=folder, record=record, digest=hashlib.sha256(both.encode()).hexdigest())

    def build(self, number: int = 0) -> UNet:
        """A network with its weights, on the CPU, in evaluation mode.

        Args:
            number: of the ``record.networks``.

        Raises:
            ModelError: the weights cannot be read any more.
        """
        with torch.device("meta"):
            network = build_network(self.record.plan.network)
        weights_file = self.folder / WEIGHTS_FILE
        try:
            network.load_state_dict(_read(weights_file, _prefix(self.record, number)), assign=True)
        except (OSError, SafetensorError, RuntimeError) as problem:
            raise ModelError(f"cannot be read ({problem})", where=weights_file, remedy=_RETRAIN) from problem
        return network.eval()


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder where a model may not be saved; before the work that would be lost.

    Args:
        overwrite: a model may be replaced. Anything else never is: it might be a dataset, or a run.

    Raises:
        OutputError: something is there that may not be replaced.
    """
    if not folder.exists():
        return
    if not (folder / RECORD_FILE).is_file():
        raise OutputError(
            f"is there, and no model: it has no {RECORD_FILE}",
            where=folder,
            remedy="choose another folder",
            code="E-OUTPUT-EXISTS",
        )
    if not overwrite:
        raise OutputError(
            "already exists", where=folder, remedy="give --overwrite, or choose another folder", code="E-OUTPUT-EXISTS"
        )


def _find(path: Path) -> Path:
    """The bundle's folder: ``path`` or ``path/model``."""
    if not path.exists():
        raise ModelError(
            "does not exist", where=path, remedy="give the folder of a run or of a model", code="E-MODEL-NOT-FOUND"
        )
    for folder in (path, path / RUN_MODEL):
        if (folder / RECORD_FILE).is_file():
            if not (folder / WEIGHTS_FILE).is_file():
                raise ModelError(f"has no {WEIGHTS_FILE}", where=folder, remedy=_RETRAIN)
            return folder
    unfinished = (path / "run.json").is_file()
    raise ModelError(
        "is a run that has no model yet" if unfinished else f"is not a model: it has no {RECORD_FILE}",
        where=path,
        remedy="finish its training with --resume" if unfinished else "give the folder of a run or of a model",
        code="E-MODEL-NOT-FOUND",
    )


def _shapes(weights_file: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, from the header alone (which also finds a truncated file)."""
    try:
        with safe_open(weights_file, framework="pt") as weights:
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as problem:
        raise ModelError(
            f"is damaged or not a safetensors file ({problem})",
            where=weights_file,
            remedy=_RETRAIN,
            code="E-MODEL-DAMAGED",
        ) from problem


def _states(network: nn.Module | Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    if isinstance(network, nn.Module):
        return network.state_dict()
    if isinstance(network, Mapping):
        return network
    if len(network) == 1:
        return network[0]
    return {f"{i}.{name}": value for i, state in enumerate(network) for name, value in state.items()}


def _prefix(record: ModelRecord, number: int) -> str:
    return f"{number}." if record.networks > 1 else ""


def _read(weights_file: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    with safe_open(weights_file, framework="pt") as weights:
        names = [name for name in weights.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): weights.get_tensor(name) for name in names}


def _check_fit(found: Mapping[str, tuple[int, ...]], record: ModelRecord, *, where: Path) -> None:
    with torch.device("meta"):
        one = {name: tuple(value.shape) for name, value in build_network(record.plan.network).state_dict().items()}
    prefixes = [_prefix(record, i) for i in range(record.networks)]
    expected = {prefix + name: shape for prefix in prefixes for name, shape in one.items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [
        f"{name} has shape {found[name]}, not {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise ModelError(
            "the weights do not fit the plan's network: " + "; ".join(problems[:_NAMED]) + more,
            where=where,
            remedy="keep model.json and weights.safetensors of one model together",
        )
