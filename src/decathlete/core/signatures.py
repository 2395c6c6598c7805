"""Signatures of functions whose keyword arguments are the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

Function = TypeVar("Function", bound=Callable[..., Any])


@cache  # several commands have the same groups of options
def field_parameters(group: type) -> tuple[inspect.Parameter, ...]:
    """Return a keyword parameter for each field of the dataclass ``group``, with its type and default."""
    types = get_type_hints(group, include_extras=True)
    return tuple(
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=types[field.name],
        )
        for field in fields(group)
    )


def accepts_fields_of(group: type) -> Callable[[Function], Function]:
    """Return a decorator that shows the fields of ``group`` in place of a function's ``**options``.

    Fields that are parameters of the function itself are left out. Only ``help`` and ``inspect.signature`` change.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        explicit = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {parameter.name for parameter in explicit}
        others = [parameter for parameter in field_parameters(group) if parameter.name not in names]
        function.__signature__ = signature.replace(parameters=[*explicit, *others])  # type: ignore[attr-defined]
        return function

    return decorate
