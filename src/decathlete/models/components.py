"""Origins of the components that a model needs or was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from decathlete.core.registry import Component
from decathlete.errors import OptionError
from decathlete.models.postprocessing import POSTPROCESSING
from decathlete.models.record import ComponentOrigin, PostprocessingStep
from decathlete.planning.architectures import ARCHITECTURES
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan


def origin_of(component: Component[Any]) -> ComponentOrigin:
    """Return the name, distribution and version of a component, as a model records them."""
    origin = component.origin
    return ComponentOrigin(
        kind=component.kind, name=component.name, distribution=origin.distribution, version=origin.version
    )


def component_origins(plan: Plan) -> tuple[ComponentOrigin, ...]:
    """List where the architecture and the normalisations of ``plan`` come from, each once."""
    used: list[Component[Any]] = [ARCHITECTURES.resolve(plan.network.architecture)]
    used += [NORMALIZATIONS.resolve(name) for name in sorted({n.component for n in plan.normalization})]
    return tuple(origin_of(component) for component in used)


def step_origins(
    steps: Sequence[PostprocessingStep], recorded: Sequence[ComponentOrigin] = ()
) -> tuple[ComponentOrigin, ...]:
    """List where the steps of post-processing come from, each once.

    Args:
        recorded: origins that a model has recorded for its steps; they stay as they are. A step that is neither there
            nor installed here has a name alone: the model may be for another machine, and predicting with it fails.
    """
    known = {origin.name: origin for origin in recorded if origin.kind == POSTPROCESSING.kind}
    names = dict.fromkeys(step.name for step in steps)
    return tuple(known[name] if name in known else _origin_of_step(name) for name in names)


def _origin_of_step(name: str) -> ComponentOrigin:
    try:
        return origin_of(POSTPROCESSING.resolve(name))
    except OptionError:
        return ComponentOrigin(kind=POSTPROCESSING.kind, name=name)


def merge_origins(*origins: ComponentOrigin) -> tuple[ComponentOrigin, ...]:
    """Return each component once; of several records of one component, the last."""
    return tuple({(origin.kind, origin.name): origin for origin in origins}.values())
