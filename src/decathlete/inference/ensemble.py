"""Several models as one: logits are averaged within a plan (in the sweep), probabilities between plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from decathlete.core.choices import Layout
from decathlete.core.labels import LabelSet
from decathlete.errors import ModelError
from decathlete.inference.engine_choice import EngineName, engines_of
from decathlete.inference.engines import Engine
from decathlete.inference.provenance import ModelUse
from decathlete.networks.bundle import ModelBundle
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
) -> tuple[PlanEnsemble, ...]:
    """Load models and group them by plan, in the order given.

    Raises:
        ModelError: missing or damaged; or they segment different classes or take different channels.
        OptionError: the engine has not this precision here.
    """
    bundles = [ModelBundle.load(folder) for folder in folders]
    _check_agreement(bundles)
    groups: dict[str, list[ModelBundle]] = {}
    for bundle in bundles:
        groups.setdefault(_essence(bundle.record.plan), []).append(bundle)

    def load(bundle: ModelBundle) -> Sequence[Engine]:
        return engines_of(bundle, engine, device=device, precision=precision, layout=layout)

    return tuple(_load_group(group, load) for group in groups.values())


def _essence(plan: Plan) -> str:
    """The plan without the words about it."""
    return plan.revised(reasons={}).model_dump_json()


def _load_group(bundles: Sequence[ModelBundle], load: Callable[[ModelBundle], Sequence[Engine]]) -> PlanEnsemble:
    engines = [load(bundle) for bundle in bundles]
    mirrored = set.intersection(*(set(bundle.record.mirror_axes) for bundle in bundles))
    return PlanEnsemble(
        plan=bundles[0].record.plan,
        engines=tuple(engine for ours in engines for engine in ours),
        mirror_axes=tuple(sorted(mirrored)),
        models=tuple(_use(bundle, ours[0]) for bundle, ours in zip(bundles, engines, strict=True)),
    )


def _use(bundle: ModelBundle, engine: Engine) -> ModelUse:
    plan = bundle.record.plan
    return ModelUse(
        digest=bundle.digest,
        dataset=plan.dataset,
        dims=plan.dims,
        weights=bundle.record.weights,
        engine=engine.name,
        precision=engine.precision,
    )


def _check_agreement(bundles: Sequence[ModelBundle]) -> None:
    first = bundles[0].record.plan
    for bundle in bundles[1:]:
        plan = bundle.record.plan
        if plan.labels != first.labels:
            raise ModelError(
                f"segments other classes ({_names(plan.labels)}) than {bundles[0].folder} ({_names(first.labels)})",
                where=bundle.folder,
                remedy="put only models of one dataset into an ensemble",
            )
        if plan.channels != first.channels:
            raise ModelError(
                f"takes other channels ({', '.join(plan.channels)}) than {bundles[0].folder} "
                f"({', '.join(first.channels)})",
                where=bundle.folder,
                remedy="put only models of one dataset into an ensemble",
            )


def _names(labels: LabelSet) -> str:
    return ", ".join(f"{c.value} {c.name}" for c in labels.foreground)
