"""Markdown pieces that several generated pages share."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from decathlete.core.registry import ComponentSettings


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def code(text: object) -> str:
    """Format text as inline code; return an empty string for an empty one."""
    return f"`{text}`" if str(text) else ""


def summary(documented: object) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


def type_name(annotation: Any) -> str:
    """Return a short name of a field's type, e.g. ``int or None``."""
    if annotation is None or annotation is type(None):
        return "None"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(argument) for argument in arguments)
    if origin is Literal:
        return ", ".join(map(repr, arguments))
    if hasattr(annotation, "__metadata__"):  # Annotated
        return type_name(arguments[0])
    if origin is not None:
        inner = ", ".join("..." if argument is ... else type_name(argument) for argument in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def field_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of every field of a pydantic model, empty where there is none."""
    if issubclass(model, ComponentSettings):
        return model.descriptions()
    return {name: field.description or "" for name, field in model.model_fields.items()}


def fields_table(schema: type[BaseModel]) -> str:
    """Describe the fields of a pydantic model: type, default, range and description."""
    rows, descriptions = [], field_descriptions(schema)
    for name, field in schema.model_fields.items():
        default = "required" if field.is_required() else code(repr(field.get_default(call_default_factory=True)))
        limits = ", ".join(limit for bound in field.metadata if (limit := _limit(bound)))
        rows.append((code(name), code(type_name(field.annotation)), default, limits, descriptions[name]))
    return table(("field", "type", "default", "range", "meaning"), rows)


def _limit(bound: object) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥", "max_length": "length ≤"}
    return ", ".join(
        f"{sign} {value:g}" for name, sign in signs.items() if (value := getattr(bound, name, None)) is not None
    )
