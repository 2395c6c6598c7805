"""The configurations of a dataset: which of them its images justify, and the plan of each.

The rules are nnU-Net's: slices always; volumes unless the images are single slices; a low resolution where the patch at
full resolution covers less than a quarter of the median image; and with it a cascade, whose second stage sees full
resolution and the prediction of the first.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from decathlete.core.choices import Configuration
from decathlete.core.log_once import log_once
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import OptionError, PlanError
from decathlete.planning.coarse_start_options import is_coarse_grid
from decathlete.planning.explain import format_spacing
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.grid import Spacing, is_flat
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import plan_at, plan_with
from decathlete.planning.plan import Plan
from decathlete.planning.resolution import LEAST_COVERAGE, image_coverage, plan_low_resolution

log = logging.getLogger(__name__)

CONFIGURATIONS: tuple[Configuration, ...] = get_args(Configuration)
"""All configurations, in the order in which they are trained."""
LEAST_STEP = 1.25
"""By how many times full resolution must be finer than the low resolution, as the geometric mean over the axes. By
nnU-Net's rule a low resolution has at most half of the voxels, and is 1.26 times coarser."""


@dataclass(frozen=True, kw_only=True)
class ConfigurationOffer:
    """Whether the images justify a configuration.

    Attributes:
        offered: whether they do.
        reason: why, or why not, in one sentence.
        plan: by the rules, before any adaptation to a training time; ``None`` where there is none.
    """

    name: Configuration
    offered: bool
    reason: str
    plan: Plan | None = None


def dims_of(configuration: Configuration) -> Dims:
    """Return the dimensions of a configuration's network.

    >>> [dims_of(configuration) for configuration in CONFIGURATIONS]
    [2, 3, 3, 3]
    """
    return 2 if configuration == "2d" else 3


def offered_configurations(
    spec: DatasetSpec, fingerprint: Fingerprint, *, options: PlanOptions = PlanOptions()
) -> tuple[ConfigurationOffer, ...]:
    """Return an offer for each configuration, in the order of :data:`CONFIGURATIONS`.

    Raises:
        OptionError: as of :func:`~decathlete.planning.overrides.plan_with`.
        PlanError: a memory target that no patch fits into; a fingerprint of another dataset.
    """
    slices = ConfigurationOffer(
        name="2d",
        offered=True,
        reason="slices can always be learned",
        plan=plan_with(spec, fingerprint, dims=2, options=options, configuration="2d"),
    )
    if is_flat(fingerprint):
        reason = "the images are single slices"
        return (slices, *(ConfigurationOffer(name=name, offered=False, reason=reason) for name in CONFIGURATIONS[1:]))
    full = plan_with(spec, fingerprint, dims=3, options=options, configuration="3d")
    volumes = ConfigurationOffer(name="3d", offered=True, reason="the images are volumes", plan=full)
    return (slices, volumes, *_low_resolution_offers(spec, fingerprint, full, options))


def _low_resolution_offers(
    spec: DatasetSpec, fingerprint: Fingerprint, full: Plan, options: PlanOptions
) -> tuple[ConfigurationOffer, ConfigurationOffer]:
    covered = f"a patch at full resolution covers {min(image_coverage(full), 1):.0%} of the median image"
    enough = image_coverage(full) >= LEAST_COVERAGE
    reason = f"{covered}, which is enough" if enough else f"{covered}, but the images would hardly become smaller"
    if (option := full.user_set.get("target_spacing")) is not None:
        reason = f"the target spacing was set ({option}), so there is one grid"
    try:
        low = _plan_low(spec, fingerprint, full, options)
    except OptionError as problem:
        low, reason = None, f"the network that was set does not fit it ({problem.problem})"
    if low is None:
        return (
            ConfigurationOffer(name="3d_lowres", offered=False, reason=reason),
            ConfigurationOffer(name="3d_cascade", offered=False, reason="there is no low resolution for a first stage"),
        )
    cascade = plan_with(spec, fingerprint, dims=3, options=options, configuration="3d_cascade")
    at = f"at {format_spacing(low.target_spacing, low.spacing_unit)} it covers {image_coverage(low):.0%}"
    return (
        ConfigurationOffer(name="3d_lowres", offered=True, reason=f"{covered}; {at}", plan=low),
        ConfigurationOffer(
            name="3d_cascade",
            offered=True,
            reason="the low resolution shows more of the image, the second stage more of the details",
            plan=cascade,
        ),
    )


def why_low_resolution_adds_nothing(full: Plan, low: Plan) -> str | None:
    """Return why a low resolution adds nothing to full resolution as it is trained; ``None``: it may add something.

    A training time may move ``full`` to a coarser grid, with another patch. nnU-Net's rule is applied to these.

    Args:
        full: of the configuration 3d (or of the cascade, which has the same grid), as it is trained.
        low: the low resolution by nnU-Net's rule. A training time can make its grid coarser, but not finer.
    """
    name, at = full.configuration_name, format_spacing(full.target_spacing, full.spacing_unit)
    times_smaller = math.prod(low.network_spacing) / math.prod(full.network_spacing)
    if times_smaller < LEAST_STEP**3:
        hardly = "hardly" if times_smaller > 1 else "not"
        low_at = format_spacing(low.target_spacing, low.spacing_unit)
        return f"{name} is trained at {at}, {hardly} finer than the low resolution by the rule ({low_at})"
    if image_coverage(full) >= LEAST_COVERAGE:
        return f"{describe_coverage(full)}, which is enough"
    return None


def check_stages(low: Plan, full: Plan, *, where: Path | None = None) -> None:
    """Check that full resolution is finer than the low resolution.

    If a training time has made both grids equal, a warning is logged.

    Args:
        low: of the configuration 3d_lowres, the first stage of a cascade.
        full: of the second stage, or of the configuration 3d.
        where: folder of the first stage, for the error.

    Raises:
        PlanError: the user set a grid, and full resolution is not finer (``E-PLAN-CONFIGURATION``).
    """
    if math.prod(full.network_spacing) < math.prod(low.network_spacing):
        return
    at, low_at = (format_spacing(plan.target_spacing, plan.spacing_unit) for plan in (full, low))
    problem = f"{full.configuration_name} ({at}) is not finer than {low.configuration_name} ({low_at})"
    if "target_spacing" not in full.user_set.keys() | low.user_set.keys():
        log_once(log, f"{problem}, so that the low resolution probably adds nothing")
        return
    raise PlanError(
        problem,
        where=where,
        remedy="use --set target_spacing=Z,Y,X for 3d_lowres alone (--configuration 3d_lowres), with a coarser grid, "
        f"and train {full.configuration_name} without it; or leave out 3d_lowres and 3d_cascade",
        code="E-PLAN-CONFIGURATION",
    )


def describe_coverage(plan: Plan) -> str:
    """Return how much of the median image a patch covers, on the grid of the plan."""
    at = format_spacing(plan.target_spacing, plan.spacing_unit)
    covered = f"{min(image_coverage(plan), 1):.1%}".replace(".0%", "%")
    return f"a patch of {plan.configuration_name} covers {covered} of the median image at {at}"


def _plan_low(spec: DatasetSpec, fingerprint: Fingerprint, full: Plan, options: PlanOptions) -> Plan | None:
    if "target_spacing" in full.user_set or None in full.target_spacing:
        return None  # the user chose the one grid

    own = options_of_configuration("3d_lowres", options)

    def replan(spacing: Spacing) -> Plan:
        return plan_at(spacing, spec, fingerprint, dims=3, options=own, configuration="3d_lowres")

    return plan_low_resolution(full, replan=replan)


def options_of_configuration(configuration: Configuration, options: PlanOptions) -> PlanOptions:
    """Return the options for planning the grid of a configuration.

    The spacing of a coarse start that the user set is one for full resolution; a low resolution that is planned does
    without. That there is no coarse start holds for each configuration.
    """
    if configuration != "3d_lowres":
        return options
    return replace(options, overrides=tuple(text for text in options.overrides if not is_coarse_grid(text)))


def plan_configuration(
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    configuration: Configuration,
    *,
    options: PlanOptions = PlanOptions(),
) -> Plan:
    """Return the plan of one configuration.

    A target spacing that the user sets decides the grid of ``3d_lowres``.

    Raises:
        PlanError: the images do not justify the configuration (``E-PLAN-CONFIGURATION``); or as of
            :func:`~decathlete.planning.overrides.plan_with`.
        OptionError: as of the same.
    """
    if configuration != "3d_lowres" or is_flat(fingerprint):
        return plan_with(spec, fingerprint, dims=dims_of(configuration), options=options, configuration=configuration)
    full = plan_with(spec, fingerprint, dims=3, options=options, configuration="3d")
    if "target_spacing" in full.user_set:
        return full.revised(configuration=configuration)
    low, _ = _low_resolution_offers(spec, fingerprint, full, options)
    if low.plan is None:
        raise PlanError(
            f"{spec.name} needs no low resolution: {low.reason}",
            remedy="train the configuration 3d; or set a coarser grid yourself, for 3d_lowres alone, with --set "
            "target_spacing=Z,Y,X",
            code="E-PLAN-CONFIGURATION",
        )
    return low.plan
