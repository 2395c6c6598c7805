"""Fields of schemas that hold a component's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from decathlete.core.registry import ComponentSettings, Registry
from decathlete.errors import OptionError


class ComponentField:
    """Marks a field of a schema that holds a component's settings.

    For example ``loss: Annotated[ComponentSettings, ComponentField(LOSSES)]``.

    In a file it is the name alone, or ``{"name": ..., **settings}``; in Python also the settings themselves.
    """

    def __init__(self, registry: Registry[Any]) -> None:
        self._registry = registry

    def load(self, value: Any) -> Any:
        """Import the ``module:Class`` of a component and of those in its settings, and return it with registered names.

        Only for what the user of this process wrote: it runs the modules.

        Args:
            value: the component in any form; everything else in it stays as it is, and is not validated.

        Raises:
            OptionError: a ``module:Class`` cannot be imported, or is no component of this kind.
        """
        if isinstance(value, str):
            return self._registry.load(value).name if ":" in value else value
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            return value
        name = self.load(value["name"])
        try:
            settings = self._registry.resolve(name).settings
        except OptionError:  # an unknown component is reported where the value is validated
            return value
        return {**_load_fields(value, settings), "name": name}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(ComponentSettings.to_config),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, {"type": "object"}]}

    def _validated(self, value: Any) -> ComponentSettings:
        """Validate as :meth:`Registry.settings` does; its problems become those of the field."""
        try:
            return self._registry.settings(value)
        except OptionError as problem:
            raise ValueError(problem.problem) from None


def _load_fields(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return the values of a model's fields with each component in them loaded."""
    loaded = dict(values)
    for name, field in model.model_fields.items():
        if name in values:
            loaded[name] = _load(values[name], field.annotation, field.metadata)
    return loaded


def _load(value: Any, annotation: Any, marks: Sequence[Any] = ()) -> Any:
    """Return a value with each component in it loaded; its annotation and marks say where components are."""
    for mark in marks:
        if isinstance(mark, ComponentField):
            return mark.load(value)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _load(value, parts[0], parts[1:])
    if origin in (Union, UnionType):
        for part in parts:
            value = _load(value, part)
        return value
    if isinstance(value, Mapping):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return _load_fields(value, annotation)
        return {key: _load(item, parts[-1]) for key, item in value.items()} if parts else value
    if isinstance(value, list | tuple) and parts:
        return [_load(item, parts[0]) for item in value]
    return value
