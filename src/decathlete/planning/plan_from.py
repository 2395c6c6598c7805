"""Plan a dataset with the decisions of another dataset's plan: grid, patch, network, and normalisation by channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from decathlete.core.choices import Configuration
from decathlete.core.registry import ComponentSettings
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import OptionError, PlanError
from decathlete.planning.architectures import NETWORK_OPTIONS, option_flag
from decathlete.planning.explain import format_grids, set_by, times
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override
from decathlete.planning.plan import Plan
from decathlete.planning.planner import make_plan

REUSED_FIELDS = ("axis_order", "target_spacing", "patch_size", "batch_size", "network", "resampling")
"""Fields of the plan that are reused; only the network's inputs and outputs are those of the dataset."""
_DEFAULTS = PlanOptions()


@dataclass(frozen=True, kw_only=True)
class DerivedPlan:
    """A plan with another dataset's decisions.

    Attributes:
        lines: what was reused and what not, for the user.
    """

    plan: Plan
    lines: tuple[str, ...]


def options_with(source: Plan, options: PlanOptions) -> PlanOptions:
    """Return ``options`` with those that follow from another dataset's plan: orientation, order, foreground channel.

    Raises:
        OptionError: options that contradict the plan.
    """
    problems = list(_contradictions(source, options))
    if problems:
        raise OptionError(
            f"--plan-from reuses the plan of a model, which excludes {', '.join(problems)}",
            remedy="leave them out; use --set to change single fields of the plan",
            code="E-OPTION-CONFLICT",
        )
    return replace(
        options,
        orientation=source.orientation,
        preprocessing_order=source.preprocessing_order,
        foreground_channel=source.foreground_channel,
    )


def plan_from(
    source: Plan,
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    *,
    configuration: Configuration,
    options: PlanOptions,
    origin: str,
) -> DerivedPlan:
    """Plan a dataset by the rules, then reuse the decisions of ``source``, then apply ``options.overrides``.

    Args:
        source: plan of a model for other data, of the same configuration.
        options: as :func:`options_with` returns them.
        origin: of the source, for the reasons and messages.

    Raises:
        OptionError: an override that does not match the plan.
        PlanError: the spacings have another unit; or as of :func:`~decathlete.planning.planner.make_plan`.
    """
    if source.spacing_unit != fingerprint.unit:
        raise PlanError(
            f"the plan of {origin} has spacings in {source.spacing_unit}, the images of {spec.name} in "
            f"{fingerprint.unit}",
            remedy="use --spacing for images without a spacing, or plan without --plan-from",
        )
    own = make_plan(
        spec,
        fingerprint,
        dims=source.dims,
        options=options,
        axes=source.axis_order,
        spacing=source.target_spacing,
        configuration=configuration,
    )
    plan = override(_with_decisions(own, source, f"--plan-from {origin}"), options.overrides, fingerprint=fingerprint)
    return DerivedPlan(plan=plan, lines=tuple(_describe(plan, own, source, origin)))


def _with_decisions(own: Plan, source: Plan, option: str) -> Plan:
    network = source.network.revised(in_channels=own.network.in_channels, out_channels=own.network.out_channels)
    known = _known_channels(own, source)
    fields = {*REUSED_FIELDS, *(["coarse_start"] if source.coarse_start else [])}
    reused = {*fields, *(f"normalization.{own.channels.index(name)}" for name in known)}
    reasons = {field: why for field, why in own.reasons.items() if field.partition(".")[0] != "network"}
    explained = {*fields, "orientation", "preprocessing_order", "network.strides"} - {"network"}
    reasons |= {field: set_by(option) for field in sorted(explained)}
    if known:
        planned = f"; {reasons['normalization']}" if len(known) < len(own.channels) else ""
        reasons["normalization"] = f"{', '.join(known)} {set_by(option)}{planned}"
    return own.revised(
        axis_order=source.axis_order,
        target_spacing=source.target_spacing,
        coarse_start=source.coarse_start,
        patch_size=source.patch_size,
        batch_size=source.batch_size,
        network=network,
        resampling=source.resampling,
        foreground_rule=source.foreground_rule,
        fill_slice_holes=source.fill_slice_holes,
        normalization=tuple(_normalizations(own, source)),
        reasons=reasons,
        user_set=own.user_set | dict.fromkeys(sorted(reused), option),
    )


def _normalizations(own: Plan, source: Plan) -> Iterator[ComponentSettings]:
    settings = dict(zip(source.channels, source.normalization, strict=True))
    for name, planned in zip(own.channels, own.normalization, strict=True):
        yield settings.get(name, planned)


def _known_channels(own: Plan, source: Plan) -> list[str]:
    return [name for name in own.channels if name in source.channels]


def _describe(plan: Plan, own: Plan, source: Plan, origin: str) -> Iterator[str]:
    """Yield what of ``source`` is in the plan, what is not, and why."""
    by_hand = [field for field, option in plan.user_set.items() if option.startswith("--set ")]
    decisions = {
        "network": f"network ({plan.network.architecture})",
        "patch_size": f"patch {times(plan.patch_size)}",
        "batch_size": f"batch {plan.batch_size}",
        "target_spacing": f"spacing {format_grids(plan)}",
        "axis_order": f"order of the axes {', '.join(map(str, plan.axis_order))}",
        "resampling": "resampling",
    }
    reused = [text for field, text in decisions.items() if not _changed(field, by_hand)]
    reused += [f"orientation {plan.orientation}", f"preprocessing order {plan.preprocessing_order}"]
    yield f"plan of {source.dataset} ({source.configuration_name}) from {origin}: {', '.join(reused)} reused"
    yield _describe_channels(own, source)
    yield (
        f"planned for this dataset: inputs and outputs of the network ({plan.network.in_channels} and "
        f"{plan.network.out_channels}), classes and mirroring"
        + (f"; {', '.join(by_hand)} set by --set" * bool(by_hand))
    )


def _changed(field: str, by_hand: Iterable[str]) -> bool:
    return any(name.partition(".")[0] == field for name in by_hand)


def _describe_channels(own: Plan, source: Plan) -> str:
    known = _known_channels(own, source)
    parts = [f"{', '.join(known)} reused"] if known else []
    if new := [name for name in own.channels if name not in known]:
        parts.append(f"{', '.join(new)} planned for these images (the model has no channel of this name)")
    if unused := [name for name in source.channels if name not in known]:
        parts.append(f"{', '.join(unused)} of the model not used")
    return f"normalisation: {'; '.join(parts)}"


def _contradictions(source: Plan, options: PlanOptions) -> Iterator[str]:
    for name in (*NETWORK_OPTIONS, "network", "architecture"):
        if getattr(options, name) != getattr(_DEFAULTS, name):
            yield option_flag(name, getattr(options, name))
    for name in ("memory_gb", "preset"):
        if getattr(options, name) is not None:
            yield f"--{name.removesuffix('_gb')}"
    if options.orientation not in (_DEFAULTS.orientation, source.orientation):
        yield f"--orientation {options.orientation}"
    if options.preprocessing_order not in (_DEFAULTS.preprocessing_order, source.preprocessing_order):
        yield f"--preprocessing-order {options.preprocessing_order}"
    if options.foreground_channel and not source.foreground_channel:
        yield "--foreground-channel"
    if any(text.replace("-", "_").startswith("axis_order") for text in options.overrides):
        yield "--set axis_order"
