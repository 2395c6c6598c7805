"""Origins of the components that a plan names: architecture and normalisations."""

from __future__ import annotations

from typing import Any

from decathlete.core.registry import Component
from decathlete.models.record import ComponentOrigin
from decathlete.planning.architectures import ARCHITECTURES
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan


def component_origins(plan: Plan) -> tuple[ComponentOrigin, ...]:
    """List where the architecture and the normalisations of ``plan`` come from, each once."""
    used: list[Component[Any]] = [ARCHITECTURES.resolve(plan.network.architecture)]
    used += [NORMALIZATIONS.resolve(name) for name in sorted({n.component for n in plan.normalization})]
    return tuple(
        ComponentOrigin(kind=c.kind, name=c.name, distribution=c.origin.distribution, version=c.origin.version)
        for c in used
    )
