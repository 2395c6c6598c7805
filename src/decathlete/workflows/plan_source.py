"""The plan of a trained model, as the source of another dataset's plan."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.choices import Configuration
from decathlete.errors import ModelError
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import Plan


def read_source_plan(model: Path, configuration: Configuration) -> Plan:
    """Return the plan of a model's first member with this configuration.

    Raises:
        ModelError: there is no model, or it has no such member.
    """
    plans = [member.plan for member in ModelBundle.load(model).members]
    for plan in plans:
        if plan.configuration_name == configuration:
            return plan
    found = ", ".join(dict.fromkeys(plan.configuration_name for plan in plans))
    raise ModelError(
        f"has no plan of the configuration {configuration} (it has: {found})",
        where=model,
        remedy=f"use --configuration {plans[0].configuration_name}, or another model",
        code="E-MODEL-UNSUPPORTED",
    )
