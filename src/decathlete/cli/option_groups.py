"""Groups of options: a dataclass of annotated fields, spread out among a command's own options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

from decathlete.cli.options import Config, Plugin
from decathlete.core.signatures import field_parameters


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, with each parameter that is a dataclass replaced by the dataclass's fields.

    typer reads options from a function's signature; so the function that it is given has the fields' names, types and
    defaults in its signature, and gathers their values before it calls ``command``. Every
    command also gets ``--config`` and ``--plugin``.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    own = inspect.signature(command).parameters.values()
    options = [option for parameter in own for option in _spread(parameter, hints[parameter.name])]
    for name, annotation in (("config", Config), ("plugin", Plugin)):
        options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    @wraps(command)
    def gathering(**values: Any) -> None:
        values.pop("config")  # its values have come as the other options'
        values.pop("plugin")  # its modules have been imported by its callback
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(hints[name])})
        command(**values)

    gathering.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    gathering.__annotations__ = {option.name: option.annotation for option in options}
    return gathering


def _spread(parameter: inspect.Parameter, hint: Any) -> Iterator[inspect.Parameter]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield from field_parameters(hint)
    else:
        yield parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
