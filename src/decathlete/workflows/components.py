"""All kinds of components, and what each component is and can be set to."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pydantic import JsonValue

from decathlete.core.registry import Component, Registry, registries
from decathlete.core.schema import Schema
from decathlete.errors import OptionError

REGISTRIES = (
    "decathlete.augmentation.transforms",
    "decathlete.evaluation.metrics",
    "decathlete.export.exporters",
    "decathlete.inference.engines",
    "decathlete.inference.output.postprocessing",
    "decathlete.io.formats",
    "decathlete.loading.loaders",
    "decathlete.loading.samplers",
    "decathlete.planning.architectures",
    "decathlete.planning.normalizations",
    "decathlete.training.objective.losses",
    "decathlete.training.objective.optimizers",
    "decathlete.training.objective.schedules",
    "decathlete.training.reporting.loggers",
)
"""The modules that hold a registry: one for each kind."""


class SettingInfo(Schema):
    """One setting of a component.

    Attributes:
        allowed: values or range that are accepted, in words; empty: any of its type.
    """

    name: str
    type: str
    default: JsonValue = None
    allowed: str = ""
    description: str = ""


class ComponentInfo(Schema):
    """One component, as ``decathlete components`` shows it."""

    kind: str
    name: str
    summary: str
    distribution: str | None
    version: str | None
    settings: tuple[SettingInfo, ...]


def all_registries() -> dict[str, Registry[Any]]:
    """Every registry of Decathlete, by kind."""
    for module in REGISTRIES:
        import_module(module)
    known = set(REGISTRIES)
    return {kind: r for kind, r in registries().items() if r.home in known}


def components(kind: str | None = None) -> tuple[ComponentInfo, ...]:
    """Every component, or those of one kind; built-ins and plug-ins are imported.

    Raises:
        OptionError: there is no such kind.
    """
    by_kind = all_registries()
    wanted = kind and kind.replace("_", " ").replace("-", " ")
    if wanted is not None and wanted not in by_kind:
        raise OptionError(f"there is no kind of component called {kind}", remedy=f"choose among {', '.join(by_kind)}")
    chosen = by_kind if wanted is None else {wanted: by_kind[wanted]}
    return tuple(describe(component) for registry in chosen.values() for component in registry)


def describe(component: Component[Any]) -> ComponentInfo:
    """What a component is and can be set to."""
    schema = component.settings.model_json_schema()
    properties: dict[str, Any] = schema.get("properties", {})
    return ComponentInfo(
        kind=component.kind,
        name=component.name,
        summary=component.summary,
        distribution=component.origin.distribution,
        version=component.origin.version,
        settings=tuple(_setting(name, entry, schema.get("$defs", {})) for name, entry in properties.items()),
    )


def _setting(name: str, entry: dict[str, Any], definitions: dict[str, Any]) -> SettingInfo:
    return SettingInfo(
        name=name,
        type=_type(entry, definitions),
        default=entry.get("default"),
        allowed=", ".join(_allowed(entry, definitions)),
        description=" ".join(str(entry.get("description", "")).split()),
    )


def _resolve_reference(entry: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    return definitions.get(entry["$ref"].rpartition("/")[2], {}) if "$ref" in entry else entry


def _type(entry: dict[str, Any], definitions: dict[str, Any]) -> str:
    entry = _resolve_reference(entry, definitions)
    if "anyOf" in entry:
        kinds = [_type(part, definitions) for part in entry["anyOf"]]
        return " or ".join("none" if kind == "null" else kind for kind in kinds)
    return "list" if entry.get("type") == "array" else str(entry.get("type", "any"))


def _allowed(entry: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    entry = _resolve_reference(entry, definitions)
    if "enum" in entry:
        return [str(value) for value in entry["enum"]]
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    own = [f"{sign} {entry[key]:g}" for key, sign in signs.items() if key in entry]
    return own + [text for part in entry.get("anyOf", ()) for text in _allowed(part, definitions)]
