"""All kinds of components, and what each component is and can be set to."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from pydantic import JsonValue

from decathlete.core.component_names import builtin_names
from decathlete.core.component_sources import find_source, read_summary
from decathlete.core.registry import Component, Registry, entry_points_of, registries
from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError, OptionError

PACKAGES = {
    "architecture": "decathlete.networks.architectures",
    "engine": "decathlete.inference.engines",
    "exporter": "decathlete.export.exporters",
    "image format": "decathlete.io.formats",
    "loader": "decathlete.loading.loaders",
    "logger": "decathlete.training.reporting.loggers",
    "loss": "decathlete.training.objective.losses",
    "metric": "decathlete.evaluation.metrics",
    "normalization": "decathlete.preprocessing.normalizations",
    "optimizer": "decathlete.training.objective.optimizers",
    "postprocessing": "decathlete.inference.output.postprocessing",
    "sampler": "decathlete.loading.samplers",
    "schedule": "decathlete.training.objective.schedules",
    "transform": "decathlete.augmentation.transforms",
}
"""Every kind of component, and the package of the built-in ones. It holds the registry, too, unless ``HOMES`` names
another module."""

HOMES = {
    "architecture": "decathlete.planning.architectures",
    "normalization": "decathlete.planning.normalizations",
}
"""Kinds whose registry does not need the packages of the components, and the module that holds it."""


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


class ComponentEntry(Schema):
    """One component in a list of names.

    Attributes:
        distribution: installed package that has it; ``None`` for a loose module.
    """

    kind: str
    name: str
    summary: str
    distribution: str | None


def all_registries() -> dict[str, Registry[Any]]:
    """Return every registry of Decathlete, by kind."""
    for kind, package in PACKAGES.items():
        import_module(HOMES.get(kind, package))
    return {kind: registries()[kind] for kind in PACKAGES}


def components(*, kind: str | None = None) -> tuple[ComponentInfo, ...]:
    """Describe every component, or those of one kind; built-ins and plug-ins are imported.

    Raises:
        OptionError: there is no such kind.
    """
    if kind is None:
        return tuple(describe(component) for registry in all_registries().values() for component in registry)
    wanted = kind.replace("_", " ").replace("-", " ")
    if wanted not in PACKAGES:
        raise OptionError(f"there is no kind of component called {kind}", remedy=f"choose among {', '.join(PACKAGES)}")
    import_module(HOMES.get(wanted, PACKAGES[wanted]))
    return tuple(describe(component) for component in registries()[wanted])


def list_components() -> tuple[ComponentEntry, ...]:
    """List the names of all components with their summaries; no component is imported."""
    return tuple(entry for kind in PACKAGES for entry in sorted(_list_kind(kind), key=lambda entry: entry.name))


def _list_kind(kind: str) -> Iterator[ComponentEntry]:
    package = PACKAGES[kind]
    builtin, installed = builtin_names(package), entry_points_of(kind)
    for name in builtin:
        summary = _summary_in(f"{package}.{name}", name)
        yield ComponentEntry(kind=kind, name=name, summary=summary, distribution="decathlete")
    for name, entry_point in installed.items():
        if name in builtin:
            continue  # it cannot be chosen
        distribution = entry_point.dist.name if entry_point.dist else None
        summary = _summary_in(entry_point.module, name)
        yield ComponentEntry(kind=kind, name=name, summary=summary, distribution=distribution)
    registry = registries().get(kind)
    if registry is None:
        return  # no module of --plugin has registered components
    for name in registry.registered_names:
        if name not in (*builtin, *installed):
            component = registry.resolve(name)
            distribution = component.origin.distribution
            yield ComponentEntry(kind=kind, name=name, summary=component.summary, distribution=distribution)


def _summary_in(module: str, name: str) -> str:
    """Return the summary of a component; empty: its source cannot be read, which is an error where it is used."""
    try:
        source = find_source(module)
        return "" if source is None else read_summary(source, name)
    except (SyntaxError, ValueError, RecursionError, MemoryError, DecathleteError):  # the parser's own, and read_text's
        return ""


def describe(component: Component[Any]) -> ComponentInfo:
    """Describe a component and its settings."""
    schema = component.settings.model_json_schema()
    properties: dict[str, Any] = schema.get("properties", {})
    definitions: dict[str, Any] = schema.get("$defs", {})
    texts = component.settings.descriptions()
    return ComponentInfo(
        kind=component.kind,
        name=component.name,
        summary=component.summary,
        distribution=component.origin.distribution,
        version=component.origin.version,
        settings=tuple(_setting(name, entry, definitions, texts.get(name, "")) for name, entry in properties.items()),
    )


def _setting(name: str, entry: dict[str, Any], definitions: dict[str, Any], description: str) -> SettingInfo:
    return SettingInfo(
        name=name,
        type=_type(entry, definitions),
        default=entry.get("default"),
        allowed=", ".join(_allowed(entry, definitions)),
        description=" ".join(description.split()),
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
