"""Origins of the components that a plan names: architecture and normalisations."""

from __future__ import annotations

from decathlete.models.record import ComponentOrigin
from decathlete.planning.plan import Plan
from decathlete.version import __version__


def component_origins(plan: Plan) -> tuple[ComponentOrigin, ...]:
    """Where the architecture and the normalisations of ``plan`` come from, each once."""
    names = [("architecture", "unet"), *(("normalization", scheme) for scheme in _schemes(plan))]
    return tuple(
        ComponentOrigin(kind=kind, name=name, distribution="decathlete", version=__version__) for kind, name in names
    )


def _schemes(plan: Plan) -> list[str]:
    return sorted({normalization.scheme for normalization in plan.normalization})
