"""Several models as one: logits are averaged within a plan (in the sweep), probabilities between plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from decathlete.core.choices import Layout
from decathlete.core.labels import LabelSet
from decathlete.errors import ModelError
from decathlete.inference.engines.program_record import ExportedFolder, is_program
from decathlete.inference.engines.selection import EngineMaker, EngineName
from decathlete.inference.engines.torch_engine import Engine
from decathlete.inference.output.provenance import ModelUse
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PlanEnsemble:
    """Models of one plan (folds): they see the same prepared image and the same windows.

    Attributes:
        engines: on one device.
        mirror_axes: spatial axes of the network's input that the training of *all* of them mirrored.
        models: what the record says of each.
    """

    plan: Plan
    engines: tuple[Engine, ...]
    mirror_axes: tuple[int, ...]
    models: tuple[ModelUse, ...]


def load_ensembles(
    folders: Sequence[Path],
    *,
    device: torch.device,
    precision: str,
    layout: Layout = "auto",
    engine: EngineName = "torch",
    or_torch: bool = False,
) -> tuple[PlanEnsemble, ...]:
    """Load models and exported programs, and group them by plan, in the order given.

    Args:
        device, precision, layout, engine: of the models; a program has its own.
        or_torch: see :class:`EngineMaker`.

    Raises:
        ModelError: missing or damaged; or they segment different classes or take different channels.
        OptionError: the engine has not this precision here, or a program's runtime is missing.
    """

    in_bundle = EngineMaker(engine, device=device, precision=precision, layout=layout, or_torch=or_torch)
    models = [_opened(folder, in_bundle) for folder in folders]
    _check_agreement(models)
    groups: dict[str, list[_Opened]] = {}
    for model in models:
        groups.setdefault(model.plan.digest, []).append(model)
    return tuple(_load_group(group) for group in groups.values())


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A model whose networks are not loaded yet: a bundle, or an exported program."""

    folder: Path
    digest: str
    plan: Plan
    mirror_axes: tuple[int, ...]
    weights: str
    load: Callable[[], Sequence[Engine]]


def _opened(folder: Path, in_bundle: Callable[[ModelBundle], Sequence[Engine]]) -> _Opened:
    load: Callable[[], Sequence[Engine]]
    found: ExportedFolder | ModelBundle
    if is_program(folder):
        found = program = ExportedFolder(folder)
        load = lambda: [program.load()]  # noqa: E731
    else:
        found = bundle = ModelBundle.load(folder)
        load = lambda: in_bundle(bundle)  # noqa: E731
    return _Opened(
        folder=found.folder,
        digest=found.digest,
        plan=found.record.plan,
        mirror_axes=found.record.mirror_axes,
        weights=found.record.weights,
        load=load,
    )


def _load_group(models: Sequence[_Opened]) -> PlanEnsemble:
    engines = [model.load() for model in models]
    mirrored = set.intersection(*(set(model.mirror_axes) for model in models))
    return PlanEnsemble(
        plan=models[0].plan,
        engines=tuple(engine for ours in engines for engine in ours),
        mirror_axes=tuple(sorted(mirrored)),
        models=tuple(_use(model, ours[0]) for model, ours in zip(models, engines, strict=True)),
    )


def _use(model: _Opened, engine: Engine) -> ModelUse:
    return ModelUse(
        digest=model.digest,
        dataset=model.plan.dataset,
        dims=model.plan.dims,
        weights=model.weights,
        engine=engine.name,
        precision=engine.precision,
    )


def _check_agreement(models: Sequence[_Opened]) -> None:
    first = models[0].plan
    for model in models[1:]:
        plan = model.plan
        if plan.labels != first.labels:
            raise ModelError(
                f"segments other classes ({_names(plan.labels)}) than {models[0].folder} ({_names(first.labels)})",
                where=model.folder,
                remedy="put only models of one dataset into an ensemble",
            )
        if plan.channels != first.channels:
            raise ModelError(
                f"takes other channels ({', '.join(plan.channels)}) than {models[0].folder} "
                f"({', '.join(first.channels)})",
                where=model.folder,
                remedy="put only models of one dataset into an ensemble",
            )


def _names(labels: LabelSet) -> str:
    return ", ".join(f"{c.value} {c.name}" for c in labels.foreground)
