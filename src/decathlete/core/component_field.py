"""Fields of schemas that hold a component's settings."""

from __future__ import annotations

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
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
