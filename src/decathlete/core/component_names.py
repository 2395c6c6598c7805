"""The names of built-in components, without importing anything: a module of a component has its registered name."""

from __future__ import annotations

from pathlib import Path
from pkgutil import iter_modules

PACKAGE = Path(__file__).parents[1]


def builtin_names(package: str) -> tuple[str, ...]:
    """Sorted names of the components in a package of Decathlete; modules that begin with ``_`` are none.

    >>> builtin_names("decathlete.training.objective.losses")
    ('cross_entropy', 'focal')
    """
    folder = PACKAGE.joinpath(*package.split(".")[1:])
    return tuple(sorted(m.name for m in iter_modules([str(folder)]) if not m.name.startswith("_")))
