"""How a model predicts: the options of every command and function that predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypedDict, Unpack

from pydantic import JsonValue, ValidationError, field_serializer, field_validator

from decathlete.core.choices import Blend, Layout
from decathlete.core.registry import ComponentSettings
from decathlete.core.schema import Schema, describe
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OptionError, problems_found
from decathlete.inference.engines import ENGINES

AUTO = "auto"
"""Device, precision, layout or engine that Decathlete chooses."""

EngineChoice = str | Mapping[str, Any] | ComponentSettings
"""An engine as users choose it: name, ``module:Class``, ``{"name": ..., **settings}``, or its settings."""


class PredictFields(TypedDict, total=False):
    """The fields of :class:`PredictOptions`, and as short forms those of its ``window``."""

    window: SlidingWindow
    device: str
    precision: str
    layout: Layout
    engine: EngineChoice
    overlap: float
    blend: Blend
    tta: bool
    batch_size: int | None
    memory_gb: float | None


class PredictOptions(Schema):
    """How a model predicts.

    The fields of ``window`` may be given by themselves: ``PredictOptions(tta=True)`` is
    ``PredictOptions(window=SlidingWindow(tta=True))``.

    Attributes:
        window: how the network is moved over an image.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``auto`` (the fastest that the engine has on the device), ``fp32``, ``bf16`` or ``fp16``.
        layout: order of feature maps in memory; it changes speed, and results by rounding only.
        engine: inference engine: its name, ``{"name": "openvino", "threads": 2}``, or its settings; ``auto``: the
            fastest one that is installed.

    Raises:
        OptionError: an unknown option, or a value out of range; all problems together.
    """

    window: SlidingWindow = SlidingWindow()
    device: str = "auto"
    precision: str = "auto"
    layout: Layout = "auto"
    engine: str | ComponentSettings = AUTO

    def __init__(self, **fields: Unpack[PredictFields]) -> None:
        given: dict[str, Any] = dict(fields)
        try:
            in_window = {name: given.pop(name) for name in SlidingWindow.model_fields if name in given}
            if in_window:
                given["window"] = given.get("window", SlidingWindow()).revised(**in_window)
            super().__init__(**given)
        except ValidationError as problem:
            raise problems_found(
                describe(problem), where="prediction options", remedy="fix these options", kind=OptionError
            ) from None

    def updated(self, **changes: Unpack[PredictFields]) -> Self:
        """Return a copy with some options, or options of the window, replaced."""
        return type(self)(**{**dict(self), **changes})

    @field_serializer("engine")
    def _with_settings(self, engine: str | ComponentSettings) -> JsonValue:
        return engine if isinstance(engine, str) else engine.to_config()

    @field_validator("engine", mode="before")
    @classmethod
    def _find_engine(cls, engine: Any) -> Any:
        """Find an engine, or a setting of it, that does not exist now, not after a training."""
        if isinstance(engine, Mapping):
            return _find_settings(dict(engine))
        if isinstance(engine, str) and engine not in (AUTO, *ENGINES.builtin_names):
            ENGINES.load(engine)  # looks for plug-ins in all installed packages, which takes time
        return engine


def _find_settings(engine: dict[str, Any]) -> str | ComponentSettings:
    """Return the settings of ``{"name": ..., **settings}``; a ``module:Class`` is imported.

    Raises:
        OptionError: an unknown engine, settings that it does not have, or settings of ``auto``.
    """
    name = engine.get("name", AUTO)
    if name == AUTO:
        settings = ", ".join(sorted(engine.keys() - {"name"}))
        if not settings:
            return AUTO
        raise OptionError(
            f"the engine auto has no settings ({settings}): it may be any of several engines",
            remedy="choose an engine by its name: --engine NAME",
            code="E-OPTION-CONFLICT",
        )
    return ENGINES.settings({**engine, "name": ENGINES.load(name).name if isinstance(name, str) else name})
