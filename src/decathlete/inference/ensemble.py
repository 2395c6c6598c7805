"""Several models as one: logits are averaged within a plan (in the sweep), probabilities between plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from decathlete.core.choices import Layout
from decathlete.core.labels import LabelSet
from decathlete.errors import ModelError
from decathlete.inference.engines.program_record import ExportedFolder, is_program
from decathlete.inference.engines.selection import EngineMaker, EngineName
from decathlete.inference.engines.torch_engine import Engine
from decathlete.inference.output.provenance import ModelUse
from decathlete.models.bundle import BundleMember, ModelBundle
from decathlete.models.combine import PredictionSettings, check_same_settings
from decathlete.models.record import PostprocessingStep
from decathlete.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PlanEnsemble:
    """Models of one plan (folds): they see the same prepared image and the same windows.

    Attributes:
        engines: on one device.
        mirror_axes: spatial axes of the network's input that the training of *all* of them mirrored.
        models: what the record says of each.
        weight: of the plan's probabilities in the mean over plans.
        temperature: its logits are divided by it before they become probabilities.
        postprocessing: steps that change the finished label map; the same for all plans that are used together.
    """

    plan: Plan
    engines: tuple[Engine, ...]
    mirror_axes: tuple[int, ...]
    models: tuple[ModelUse, ...]
    weight: float = 1.0
    temperature: float = 1.0
    postprocessing: tuple[PostprocessingStep, ...] = ()


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
        ModelError: missing or damaged; or they segment different classes, take different channels or have different
            settings of prediction.
        OptionError: the engine has not this precision here, or a program's runtime is missing.
    """

    in_bundle = EngineMaker(engine, device=device, precision=precision, layout=layout, or_torch=or_torch)
    models = [member for folder in folders for member in _opened(folder, in_bundle)]
    _check_agreement(models)
    groups: dict[str, list[_Opened]] = {}
    for model in models:
        groups.setdefault(model.plan.digest, []).append(model)
    return tuple(_load_group(group) for group in groups.values())


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A member of a bundle, or an exported program, whose networks are not loaded yet."""

    folder: Path
    digest: str
    plan: Plan
    mirror_axes: tuple[int, ...]
    weights: str
    settings: PredictionSettings
    weight: float
    load: Callable[[], Sequence[Engine]]


def _opened(folder: Path, in_bundle: Callable[[BundleMember], Sequence[Engine]]) -> list[_Opened]:
    if is_program(folder):
        program = ExportedFolder(folder)
        return [
            _Opened(
                folder=program.folder,
                digest=program.digest,
                plan=program.record.plan,
                mirror_axes=program.record.mirror_axes,
                weights=program.record.weights,
                settings=PredictionSettings(
                    folder=program.folder,
                    temperature=program.record.temperature,
                    postprocessing=program.record.postprocessing,
                ),
                weight=1.0,
                load=lambda: [program.load()],
            )
        ]
    bundle = ModelBundle.load(folder)
    weights = bundle.record.combination.weights or (1.0,) * len(bundle.members)
    return [
        _Opened(
            folder=bundle.folder,
            digest=bundle.digest,
            plan=member.plan,
            mirror_axes=member.record.mirror_axes,
            weights=member.record.weights,
            settings=PredictionSettings.of(bundle),
            weight=weight,
            load=partial(in_bundle, member),
        )
        for member, weight in zip(bundle.members, weights, strict=True)
    ]


def _load_group(models: Sequence[_Opened]) -> PlanEnsemble:
    engines = [model.load() for model in models]
    mirrored = set.intersection(*(set(model.mirror_axes) for model in models))
    return PlanEnsemble(
        plan=models[0].plan,
        engines=tuple(engine for ours in engines for engine in ours),
        mirror_axes=tuple(sorted(mirrored)),
        models=tuple(_use(model, ours[0]) for model, ours in zip(models, engines, strict=True)),
        weight=models[0].weight,
        temperature=models[0].settings.temperature,
        postprocessing=models[0].settings.postprocessing,
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
    check_same_settings([model.settings for model in models])
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
