"""Names of built-in components, listed without importing them: the module of a component has its registered name."""

from __future__ import annotations

from pathlib import Path
from pkgutil import iter_modules

PACKAGE = Path(__file__).parents[1]


def builtin_names(package: str) -> tuple[str, ...]:
    """Return the sorted names of the components in a package; modules that begin with ``_`` are not components.

    >>> builtin_names("decathlete.training.objective.optimizers")
    ('adam', 'adamw', 'sgd')
    """
    folder = PACKAGE.joinpath(*package.split(".")[1:])
    return tuple(sorted(m.name for m in iter_modules([str(folder)]) if not m.name.startswith("_")))
