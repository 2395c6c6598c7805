"""A trained model on disk: a self-contained folder of JSON and safetensors, without pickle.

===========================  ===========================================================================
``model.json``               :class:`~decathlete.models.record.ModelRecord`, version 2
``weights/NAME.safetensors``  weights of one network; of the network ``i`` of several ``NAME.i.safetensors``
``MODEL_CARD.md``            text for readers; optional, not part of the model's identity
===========================  ===========================================================================

Other files in the folder are ignored. Version 1 (``model.json`` and one ``weights.safetensors``) is read, not written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue, ValidationError
from torch import Tensor, nn

from decathlete.core.choices import Weights
from decathlete.core.estimates import weights_bytes
from decathlete.core.files import file_digest, read_text, replace_folder, write_text
from decathlete.core.locks import locked_output
from decathlete.core.schema import describe
from decathlete.core.sizes import require_disk_space
from decathlete.errors import ModelError, OptionError, OutputError, printable, problems_found
from decathlete.models.card import CARD_FILE, model_card
from decathlete.models.components import component_origins, merge_origins, step_origins
from decathlete.models.record import (
    RECORD_FILE,
    WEIGHTS_FOLDER,
    Combination,
    ComponentOrigin,
    MemberRecord,
    ModelRecord,
    NetworkRecord,
    PostprocessingStep,
)
from decathlete.models.weights import REMEDY, NetworkTensors, StoredNetworks, check_file, save_weights, state_of
from decathlete.networks.build import build_network
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.plan import Plan

_REMEDY = "free disk space, or choose an output folder on another disk"
RUN_MODEL = "model"
"""Folder of the model inside a run's folder."""


@dataclass(frozen=True, kw_only=True)
class TrainedMember:
    """A member that is about to be saved: a plan and the networks that were trained by it.

    Attributes:
        networks: modules or their state dicts, each used once, in order.
        name: unique in the bundle; ``None``: ``2d`` or ``3d``.
        folds: fold of each network; empty: unknown.
        previous_stage: of a cascade: name of the member whose prediction is an additional input.
        mirror_axes, weights, provenance: see :class:`~decathlete.models.record.MemberRecord`.
        components: origins of components beside those of the plan.
    """

    plan: Plan
    networks: Sequence[nn.Module | Mapping[str, Tensor]]
    name: str | None = None
    folds: Sequence[str] = ()
    mirror_axes: tuple[int, ...] = ()
    weights: Weights = "final"
    provenance: Mapping[str, JsonValue] = field(default_factory=dict)
    previous_stage: str | None = None
    components: Sequence[ComponentOrigin] = ()

    def __post_init__(self) -> None:
        if self.folds and len(self.folds) != len(self.networks):
            raise ValueError(f"{len(self.networks)} networks and {len(self.folds)} folds")


@dataclass(frozen=True, kw_only=True)
class BundleMember:
    """One member of a saved model.

    Attributes:
        folder: of the bundle.
    """

    folder: Path
    record: MemberRecord

    @property
    def plan(self) -> Plan:
        """Plan of all networks of this member."""
        return self.record.plan

    def build(self, *, number: int = 0) -> nn.Module:
        """Build network ``number`` with its weights, on the CPU, in evaluation mode, in float32.

        Raises:
            ModelError: the weights cannot be read any more.
        """
        with torch.device("meta"):
            network = build_network(self.plan.network)
        state = StoredNetworks(self.folder, self.record.networks)[number]
        try:
            network.load_state_dict(dict(state), assign=True)
        except RuntimeError as problem:
            where = self.folder / self.record.networks[number].file
            raise ModelError(f"cannot be read ({problem})", where=where, remedy=REMEDY) from problem
        return network.float().eval()

    def build_all(self) -> list[nn.Module]:
        """Build all networks of this member, in order."""
        return [self.build(number=number) for number in range(len(self.record.networks))]


@dataclass(frozen=True, kw_only=True)
class ModelBundle:
    """A saved model, checked.

    Attributes:
        digest: SHA-256 of the record and the weights, hexadecimal: the identity of the model.
    """

    folder: Path
    record: ModelRecord
    digest: str

    @classmethod
    def save(
        cls,
        folder: Path,
        members: TrainedMember | Sequence[TrainedMember],
        *,
        combination: Combination = Combination(),
        postprocessing: Sequence[PostprocessingStep] = (),
        temperature: float = 1.0,
        components: Sequence[ComponentOrigin] = (),
        provenance: Mapping[str, JsonValue] | None = None,
        overwrite: bool = False,
    ) -> ModelBundle:
        """Write a model of one or more members; the folder appears whole or not at all.

        Args:
            combination, postprocessing, temperature, provenance: see
                :class:`~decathlete.models.record.ModelRecord`.
            components: recorded origins of steps that come from another model; those of other steps are added.

        Raises:
            ModelError: weights do not fit their plan or are not finite, or the members do not fit each other.
            OutputError: see :func:`check_place`; or the folder cannot be written, or its disk has too little free
                space.
        """
        given = [members] if isinstance(members, TrainedMember) else list(members)
        if not given:
            raise ValueError("a model has at least one member")
        with locked_output(folder):
            check_place(folder, overwrite=overwrite)
            n_bytes = sum(map(_weights_bytes, given))
            require_disk_space(folder.parent, n_bytes, needed_for="for the model", remedy=_REMEDY)
            cls._write(
                folder,
                given,
                combination=combination,
                postprocessing=tuple(postprocessing),
                temperature=temperature,
                components=step_origins(postprocessing, components),
                provenance=dict(provenance or {}),
            )
            return cls.load(folder)

    @staticmethod
    def _write(folder: Path, members: Sequence[TrainedMember], **fields: Any) -> None:
        """Write a model; ``fields`` are those of its record."""
        with replace_folder(folder) as partial:
            try:
                record = ModelRecord(
                    labels=members[0].plan.labels,
                    members=tuple(_write_member(partial, member, where=folder) for member in members),
                    **fields,
                )
            except ValidationError as problem:
                remedy = "combine only models of one dataset, under different names"
                raise problems_found(describe(problem), where=folder, remedy=remedy, kind=ModelError) from None
            record.save(partial / RECORD_FILE)
            write_text(partial / CARD_FILE, printable(model_card(record)))

    @classmethod
    def load(cls, path: Path) -> ModelBundle:
        """Open and check the bundle at ``path``: a bundle's folder, or a run's folder (its final model).

        Every weights file is checked: its digest, and each tensor's name, shape, type and that its values are finite.

        Raises:
            ModelError: no model there, a damaged one, or weights that do not fit the plan's network.
            OptionError: a component that the model needs is not installed.
        """
        folder = _find(path)
        try:
            record = ModelRecord.load(folder / RECORD_FILE, error=ModelError, remedy=REMEDY)
        except OptionError as problem:
            raise OptionError(problem.problem, where=folder, remedy=problem.remedy, code=problem.code) from None
        digests = [file_digest(folder / RECORD_FILE)]
        for networks, specs in _by_file(record):
            digests.append(check_file(folder, networks, specs))
        return cls(folder=folder, record=record, digest=hashlib.sha256("".join(digests).encode()).hexdigest())

    @property
    def members(self) -> tuple[BundleMember, ...]:
        """The members, which can be built."""
        return tuple(BundleMember(folder=self.folder, record=member) for member in self.record.members)

    @property
    def outputs(self) -> tuple[BundleMember, ...]:
        """The members whose outputs are combined: all but the first stages of cascades."""
        return tuple(BundleMember(folder=self.folder, record=member) for member in self.record.outputs)

    def previous_stage_of(self, member: BundleMember) -> BundleMember | None:
        """Return the member whose prediction is an input of ``member``, if there is one."""
        name = member.record.previous_stage
        return next((m for m in self.members if m.record.name == name), None)

    @property
    def n_weights_bytes(self) -> int:
        """Size of the files with the weights of all networks."""
        files = (self.folder / network.file for member in self.record.members for network in member.networks)
        return sum(file.stat().st_size for file in files)

    @property
    def model_card(self) -> str | None:
        """Text of the model card; ``None`` if there is none.

        Raises:
            ModelError: it cannot be read.
        """
        path = self.folder / CARD_FILE
        if not path.is_file():
            return None
        return read_text(path, error=ModelError, remedy="remove or replace the file")

    def build(self, *, number: int = 0) -> nn.Module:
        """Build network ``number`` of all members' networks; see :meth:`BundleMember.build`."""
        places = [(member, i) for member in self.members for i in range(len(member.record.networks))]
        member, own_number = places[number]
        return member.build(number=own_number)


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Reject a folder where a model may not be saved, before work that would be lost.

    Args:
        overwrite: a model may be replaced. Anything else never is: it might be a dataset, or a run.

    Raises:
        OutputError: something is there that may not be replaced.
    """
    if not folder.exists():
        return
    if not (folder / RECORD_FILE).is_file():
        raise OutputError(
            f"exists and is not a model: it has no {RECORD_FILE}", where=folder, remedy="choose another folder"
        )
    if not overwrite:
        raise OutputError(
            "already exists", where=folder, remedy="use --overwrite, or choose another folder", code="E-OUTPUT-EXISTS"
        )


def _weights_bytes(member: TrainedMember) -> int:
    if isinstance(member.networks, StoredNetworks):
        return member.networks.n_bytes
    return weights_bytes(NetworkTensors.of(member.plan.network).n_parameters, n_networks=len(member.networks))


def _write_member(folder: Path, member: TrainedMember, *, where: Path) -> MemberRecord:
    """Write the weights of ``member`` below ``folder``; the record of it."""
    name = f"{member.plan.dims}d" if member.name is None else member.name
    expected, several = NetworkTensors.of(member.plan.network), len(member.networks) > 1
    networks = []
    for number, network in enumerate(member.networks):
        # Validated before anything is written to the path that its name becomes.
        file = f"{WEIGHTS_FOLDER}/{name}.{number}.safetensors" if several else f"{WEIGHTS_FOLDER}/{name}.safetensors"
        record = NetworkRecord(
            file=file,
            sha256="0" * 64,
            n_parameters=expected.n_parameters,
            fold=member.folds[number] if member.folds else None,
        )
        if (folder / file).exists():
            raise ModelError(
                f"two members are called {name!r}", where=where, remedy="use a different name for each member"
            )
        dtype = save_weights(folder / file, state_of(network), expected, where=where)
        networks.append(record.revised(sha256=file_digest(folder / file), dtype=dtype))
    return MemberRecord(
        name=name,
        plan=member.plan,
        mirror_axes=member.mirror_axes,
        networks=tuple(networks),
        weights=member.weights,
        previous_stage=member.previous_stage,
        components=merge_origins(*component_origins(member.plan), *member.components),
        provenance=dict(member.provenance),
    )


def _by_file(record: ModelRecord) -> Iterator[tuple[list[NetworkRecord], list[NetworkSpec]]]:
    """Networks and specs by weights file, in the order of the record."""
    files: dict[str, list[tuple[NetworkRecord, NetworkSpec]]] = {}
    for member in record.members:
        for network in member.networks:
            files.setdefault(network.file, []).append((network, member.plan.network))
    for pairs in files.values():
        yield [network for network, _ in pairs], [spec for _, spec in pairs]


def _find(path: Path) -> Path:
    """Return the bundle's folder: ``path`` or ``path/model``."""
    if not path.exists():
        raise ModelError(
            "does not exist", where=path, remedy="name the folder of a run or of a model", code="E-MODEL-NOT-FOUND"
        )
    for folder in (path, path / RUN_MODEL):
        if (folder / RECORD_FILE).is_file():
            return folder
    problem, remedy = _what_it_is(path)
    raise ModelError(problem, where=path, remedy=remedy, code="E-MODEL-NOT-FOUND")


def _what_it_is(path: Path) -> tuple[str, str]:
    """Return what a path is instead of a model, and what to do."""
    if (path / "run.json").is_file():
        return "is a run that has no model yet", "finish its training with --resume"
    files = [path, *path.glob("*"), *path.glob("fold_*/*")] if path.is_dir() else [path]
    suffixes = {file.suffix.lower() for file in files}
    if (path / "plans.json").is_file() or (path.parent / "plans.json").is_file() or path.suffix.lower() == ".zip":
        return "is a model of nnU-Net, or an archive", "import it first: `decathlete import nnunet`"
    if {".pth", ".pt", ".ckpt"} & suffixes:
        return (
            "holds checkpoints of another program",
            "import them first: `decathlete import nnunet` or `import dynunet`",
        )
    if path.is_file():
        return "is a file, not the folder of a model", "name the folder of a run, of a model or of an exported program"
    return f"is not a model: it has no {RECORD_FILE}", "name the folder of a run or of a model"
