"""Ensembles: logits are averaged over the models of one plan (in the sweep), probabilities over plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from decathlete.core.labels import LabelSet
from decathlete.errors import ModelError
from decathlete.inference.engine_selection import EngineBuilder
from decathlete.inference.engines import Engine
from decathlete.inference.exported_program import ExportedFolder, is_program
from decathlete.inference.output.provenance import ModelUse
from decathlete.models.bundle import BundleMember, ModelBundle
from decathlete.models.combine import PredictionSettings, check_same_settings
from decathlete.models.record import PostprocessingStep
from decathlete.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PlanEnsemble:
    """Models of one plan (folds), which share the prepared image and its windows.

    Attributes:
        engines: on one device.
        mirror_axes: spatial axes of the network's input that the training of *all* models mirrored.
        models: how each is described in the record of a prediction.
        weight: of the plan's probabilities in the mean over plans.
        temperature: its logits are divided by it before they become probabilities.
        postprocessing: steps that change the finished label map; the same for all plans that are used together.
        previous: of a cascade: the models whose prediction is an input of these.
    """

    plan: Plan
    engines: tuple[Engine, ...]
    mirror_axes: tuple[int, ...]
    models: tuple[ModelUse, ...]
    weight: float = 1.0
    temperature: float = 1.0
    postprocessing: tuple[PostprocessingStep, ...] = ()
    previous: PlanEnsemble | None = None


def load_ensembles(
    folders: Sequence[Path], builder: EngineBuilder, *, fold: int | None = None
) -> tuple[PlanEnsemble, ...]:
    """Load models and exported programs, and group them by plan, in the order given.

    Args:
        builder: builds the engines of models; a program has an engine of its own.
        fold: load only networks that were trained on this fold, to predict its held-out cases; ``None``: all.

    Raises:
        ModelError: missing or damaged; or they segment different classes, take different channels or have different
            settings of prediction.
        OptionError: the engine does not have this precision here, or a program's runtime is missing.
    """
    models = [member for folder in folders for member in _open(folder, builder, fold)]
    if not models:
        raise ModelError(f"has no network of fold {fold}", where=folders[0], remedy="choose a fold of the model")
    _check_agreement(models)
    groups: dict[str, list[_Model]] = {}
    for model in models:
        groups.setdefault(model.plan.digest, []).append(model)
    return tuple(_load_group(group, builder) for group in groups.values())


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A member of a bundle, or an exported program, whose networks are not loaded yet."""

    folder: Path
    digest: str
    plan: Plan
    mirror_axes: tuple[int, ...]
    weights: str
    settings: PredictionSettings
    weight: float
    load: Callable[[], Sequence[Engine]]
    previous: _Model | None = None


def _open(folder: Path, builder: EngineBuilder, fold: int | None) -> list[_Model]:
    if is_program(folder):
        program = ExportedFolder(folder)
        return [
            _Model(
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
                load=lambda: [program.load(settings=builder.settings_of(program.engine))],
                previous=_open(program.previous, builder, None)[0] if program.previous is not None else None,
            )
        ]
    bundle = ModelBundle.load(folder)
    weights = bundle.record.combination.weights or (1.0,) * len(bundle.members)
    by_name = dict(zip((member.record.name for member in bundle.members), weights, strict=True))
    return [
        _member_model(bundle, member, by_name, builder, fold) for member in bundle.outputs if _networks_of(member, fold)
    ]


def _member_model(
    bundle: ModelBundle, member: BundleMember, weights: Mapping[str, float], builder: EngineBuilder, fold: int | None
) -> _Model:
    previous = bundle.previous_stage_of(member)
    return _Model(
        folder=bundle.folder,
        digest=bundle.digest,
        plan=member.plan,
        mirror_axes=member.record.mirror_axes,
        weights=member.record.weights,
        settings=PredictionSettings.of(bundle),
        weight=weights[member.record.name],
        load=partial(_build, builder, member, _networks_of(member, fold)),
        previous=None if previous is None else _member_model(bundle, previous, weights, builder, fold),
    )


def _networks_of(member: BundleMember, fold: int | None) -> list[int]:
    """Return the numbers of a member's networks that were trained on ``fold``; ``None``: of all."""
    networks = enumerate(member.record.networks)
    return [number for number, network in networks if fold is None or network.fold == str(fold)]


def _build(builder: EngineBuilder, member: BundleMember, numbers: Sequence[int]) -> Sequence[Engine]:
    return builder.build([member.build(number=number) for number in numbers], member.plan)


def _load_group(models: Sequence[_Model], builder: EngineBuilder) -> PlanEnsemble:
    engines = [model.load() for model in models]
    mirrored = set.intersection(*(set(model.mirror_axes) for model in models))
    previous = [model.previous for model in models if model.previous is not None]
    return PlanEnsemble(
        plan=models[0].plan,
        engines=tuple(engine for of_model in engines for engine in of_model),
        mirror_axes=tuple(sorted(mirrored)),
        models=tuple(_use(model, of_model[0], builder) for model, of_model in zip(models, engines, strict=True)),
        weight=models[0].weight,
        temperature=models[0].settings.temperature,
        postprocessing=models[0].settings.postprocessing,
        previous=_load_group(_same_plan(previous), builder) if previous else None,
    )


def _same_plan(stages: Sequence[_Model]) -> Sequence[_Model]:
    """Return the first stages of cascades, whose prediction is one input: they need one plan.

    Raises:
        ModelError: they have several.
    """
    for stage in stages[1:]:
        if stage.plan.digest != stages[0].plan.digest:
            raise ModelError(
                f"its first stage has another plan than that of {stages[0].folder}",
                where=stage.folder,
                remedy="predict with cascades whose first stages were trained by one plan",
                code="E-MODEL-STAGE",
            )
    return stages


def _use(model: _Model, engine: Engine, builder: EngineBuilder) -> ModelUse:
    settings = builder.settings_of(type(engine))
    return ModelUse(
        digest=model.digest,
        dataset=model.plan.dataset,
        dims=model.plan.dims,
        weights=model.weights,
        engine=engine.name,
        engine_settings=settings.model_dump(mode="json", exclude_defaults=True),
        precision=engine.precision,
    )


def _check_agreement(models: Sequence[_Model]) -> None:
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
                f"uses other channels ({', '.join(plan.channels)}) than {models[0].folder} "
                f"({', '.join(first.channels)})",
                where=model.folder,
                remedy="put only models of one dataset into an ensemble",
            )


def _names(labels: LabelSet) -> str:
    return ", ".join(f"{c.value} {c.name}" for c in labels.foreground)
