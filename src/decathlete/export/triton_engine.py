"""The inference engine of a pipeline, as its configuration names it."""

from __future__ import annotations

from collections.abc import Mapping

from decathlete.core.documents import parse_json
from decathlete.errors import OptionError
from decathlete.inference.options import AUTO, EngineChoice


def engine_of(parameters: Mapping[str, str]) -> EngineChoice:
    """Return the engine and its settings from the parameters of a pipeline's configuration.

    Raises:
        OptionError: the settings are damaged.
    """
    name, text = parameters.get("engine", AUTO), parameters.get("engine_settings")
    if text is None:
        return name
    try:
        settings = parse_json(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise OptionError(
            "the parameter engine_settings of the pipeline is no JSON object",
            remedy="export the model to Triton again",
        )
    return {**settings, "name": name}
