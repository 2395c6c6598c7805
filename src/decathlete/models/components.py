"""Origins of the components that a model needs or was trained with."""

from __future__ import annotations

from typing import Any

from decathlete.core.registry import Component
from decathlete.models.record import ComponentOrigin
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


def merge_origins(*origins: ComponentOrigin) -> tuple[ComponentOrigin, ...]:
    """Return each component once; of several records of one component, the last."""
    return tuple({(origin.kind, origin.name): origin for origin in origins}.values())
