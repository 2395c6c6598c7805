"""The specification of a network: everything that is needed to build it, and nothing about how it is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from decathlete.core.registry import ComponentSettings

Dims = Literal[2, 3]
Axes = tuple[int, ...]


class NetworkSpec(ComponentSettings):
    """The part of a network's specification that every architecture has; each architecture adds its own fields.

    In a file, ``architecture`` holds the registered name of the architecture that the specification belongs to.
    """

    dims: Dims
    """Number of spatial axes."""
    in_channels: int = Field(ge=1)
    """Channels of the input."""
    out_channels: int = Field(ge=1)
    """Channels of the logits."""
    heads: int = Field(default=1, ge=1)
    """Number of outputs that training compares with the truth, the full resolution included; 1 disables deep
    supervision."""

    @property
    def architecture(self) -> str:
        """Registered name of the architecture."""
        return self.component

    @property
    def divisor(self) -> Axes:
        """The size of a patch must be a multiple of this along each axis, voxels."""
        return (1,) * self.dims

    @model_validator(mode="before")
    @classmethod
    def _check_architecture(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "architecture" not in data:
            return data
        if data["architecture"] != cls.component:
            raise ValueError(f"these are settings of the architecture {data['architecture']!r}, not {cls.component!r}")
        return {name: value for name, value in data.items() if name != "architecture"}

    @model_serializer(mode="wrap")
    def _with_architecture(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"architecture": self.component, **handler(self)}
