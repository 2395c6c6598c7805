"""Ensembles: logits are averaged over the models of one plan (in the sweep), probabilities over plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.labels import LabelSet
from decathlete.errors import ModelError
from decathlete.inference.engine_selection import EngineBuilder
from decathlete.inference.engines import Engine
from decathlete.inference.exported_program import ExportedFolder, is_program
from decathlete.inference.output.provenance import ModelUse
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PlanEnsemble:
    """Models of one plan (folds), which share the prepared image and its windows.

    Attributes:
        engines: on one device.
        mirror_axes: spatial axes of the network's input that the training of *all* models mirrored.
        models: how each is described in the record of a prediction.
    """

    plan: Plan
    engines: tuple[Engine, ...]
    mirror_axes: tuple[int, ...]
    models: tuple[ModelUse, ...]


def load_ensembles(folders: Sequence[Path], builder: EngineBuilder) -> tuple[PlanEnsemble, ...]:
    """Load models and exported programs, and group them by plan, in the order given.

    Args:
        builder: builds the engines of models; a program has an engine of its own.

    Raises:
        ModelError: missing or damaged; or they segment different classes or take different channels.
        OptionError: the engine does not have this precision here, or a program's runtime is missing.
    """
    models = [_open(folder, builder) for folder in folders]
    _check_agreement(models)
    groups: dict[str, list[_Model]] = {}
    for model in models:
        groups.setdefault(_plan_key(model.plan), []).append(model)
    return tuple(_load_group(group) for group in groups.values())


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A bundle or an exported program whose networks are not loaded yet."""

    folder: Path
    digest: str
    plan: Plan
    mirror_axes: tuple[int, ...]
    weights: str
    load: Callable[[], Sequence[Engine]]


def _open(folder: Path, builder: EngineBuilder) -> _Model:
    source: ExportedFolder | ModelBundle
    if is_program(folder):
        source = program = ExportedFolder(folder)
        load: Callable[[], Sequence[Engine]] = lambda: [program.load()]  # noqa: E731
    else:
        source = bundle = ModelBundle.load(folder)
        load = lambda: builder.build([bundle.build(i) for i in range(bundle.record.networks)], bundle.record.plan)  # noqa: E731
    return _Model(
        folder=source.folder,
        digest=source.digest,
        plan=source.record.plan,
        mirror_axes=source.record.mirror_axes,
        weights=source.record.weights,
        load=load,
    )


def _plan_key(plan: Plan) -> str:
    """Return what two models of one plan have in common: the plan without its reasons."""
    return plan.revised(reasons={}).model_dump_json()


def _load_group(models: Sequence[_Model]) -> PlanEnsemble:
    engines = [model.load() for model in models]
    mirrored = set.intersection(*(set(model.mirror_axes) for model in models))
    return PlanEnsemble(
        plan=models[0].plan,
        engines=tuple(engine for of_model in engines for engine in of_model),
        mirror_axes=tuple(sorted(mirrored)),
        models=tuple(_use(model, of_model[0]) for model, of_model in zip(models, engines, strict=True)),
    )


def _use(model: _Model, engine: Engine) -> ModelUse:
    return ModelUse(
        digest=model.digest,
        dataset=model.plan.dataset,
        dims=model.plan.dims,
        weights=model.weights,
        engine=engine.name,
        precision=engine.precision,
    )


def _check_agreement(models: Sequence[_Model]) -> None:
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
