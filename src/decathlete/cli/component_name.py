"""Parser of options whose value is the name of a component."""

from __future__ import annotations

import difflib
from importlib import import_module

import typer

from decathlete.core.component_names import builtin_names


class ComponentName:
    """Checks a component's registered name, or ``module:Class``, without importing anything for built-in names.

    Args:
        package: package that holds the registry and the built-in components.
    """

    __name__ = "name"

    def __init__(self, package: str) -> None:
        self.package = package
        self.builtin = builtin_names(package)

    def __call__(self, value: str) -> str:
        """Return the name if there is such a component.

        Raises:
            typer.BadParameter: there is no such component.
        """
        if value in self.builtin or ":" in value:
            return value
        known = self._all_names()
        if value not in known:
            close = difflib.get_close_matches(value, known, n=1)
            suggestion = f"; did you mean {close[0]}?" if close else ""
            raise typer.BadParameter(
                f"{value!r} is not known: use {', '.join(known)}, or the form module:Class{suggestion}"
            )
        return value

    def _all_names(self) -> tuple[str, ...]:
        from decathlete.core.registry import registries

        import_module(self.package)
        return next(registry.names() for registry in registries().values() if registry.home == self.package)
