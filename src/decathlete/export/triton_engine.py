"""The inference engine and the precision of a pipeline, as its configuration names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decathlete.core.documents import parse_json
from decathlete.errors import OptionError
from decathlete.inference.engines import ENGINES
from decathlete.inference.options import AUTO, EngineChoice
from decathlete.planning.architectures import architecture_of
from decathlete.planning.plan import Plan

FALLBACK_PRECISION = "fp32"
"""Precision of a pipeline that cannot compute in the requested one."""


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


def explain_precision(precision: str, *, engine: str, on_cpu: bool, plans: Sequence[Plan] = ()) -> str:
    """Return why a pipeline cannot compute in a precision; empty if it can, as far as is known here.

    Args:
        engine: name of the inference engine; one that is not installed here may have any precision.
        on_cpu: whether it computes on a CPU.
        plans: of the model; none: its architectures are not asked.
    """
    if precision == "fp16" and on_cpu:
        return "fp16 is not for CPUs"
    if engine in ENGINES.names() and precision not in (AUTO, *ENGINES.resolve(engine).cls.precisions):
        return f"the engine {engine} does not compute in {precision}"
    for plan in plans:
        if precision not in (AUTO, *architecture_of(plan.network).precisions):
            return f"the architecture {plan.network.architecture} does not compute in {precision}"
    return ""
