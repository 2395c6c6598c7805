"""``--set field=value``: set any decision of the plan, validated; fields that depend on it are planned again.

:mod:`decathlete.core.assignments` describes the values. Dots address nested fields (``normalization.0.name=zscore``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from decathlete.core.assignments import parse_value
from decathlete.core.choices import Configuration, PresetName
from decathlete.core.digits import parse_digits
from decathlete.core.schema import describe
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import OptionError, PlanError
from decathlete.planning.architectures import architecture_of
from decathlete.planning.assignment import Assignment, assignment_flag, conflict_error, split_assignment
from decathlete.planning.coarse_start_options import checked_share, ignore_distance_of_slices
from decathlete.planning.explain import set_by
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.grid import AxisOrder, Spacing
from decathlete.planning.network_spec import Dims
from decathlete.planning.normalizations import NORMALIZATIONS, ChannelStatistics
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import CoarseStart, Plan
from decathlete.planning.plan_versions import renamed_path
from decathlete.planning.planner import make_plan
from decathlete.planning.presets import load_preset
from decathlete.planning.topology import Topology, make_topology

READ_ONLY_FIELDS: dict[str, str] = {
    "version": "it is the version of the file's schema",
    "dataset": "it is the dataset's name",
    "dims": "choose it with --dim",
    "configuration": "choose it with --configuration",
    "previous_stage": "it follows from the configuration; choose it with --configuration",
    "channels": "they are the dataset's; change its dataset.json",
    "labels": "they are the dataset's; change its dataset.json, or choose regions with --regions or --brats",
    "foreground_channel": "the network depends on it; choose it with --foreground-channel",
    "orientation": "the fingerprint depends on it; choose it with --orientation",
    "fingerprint_digest": "it identifies the fingerprint that the plan was made from",
    "training_ranges": "they are measured on the training images",
    "structure_codes": "declare them as dicom_codes in dataset.json",
    "mirror_pairs": "choose them with --mirror-pairs",
    "median_shape": "it is measured; set target_spacing instead",
    "spacing_unit": "it follows from the format of the images; use --spacing for images without a spacing",
    "reasons": "they are written by the planner",
    "user_set": "it lists what the user set",
    "requires": "it follows from the components of the plan",
    "network.architecture": "choose it with --architecture",
}
"""Fields that the user cannot set, and what to do instead."""
_WHOLE_FIELDS = frozenset({"target_spacing", "patch_size"})
"""Lists that the user sets as a whole: with them, the network is planned again."""
_NORMALIZATION_NAME = re.compile(r"normalization\.([0-9]{1,9})\.name")


def plan_with(
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    *,
    dims: Dims,
    options: PlanOptions = PlanOptions(),
    configuration: Configuration | None = None,
) -> Plan:
    """Plan one model by the rules, then apply the preset's and the user's assignments (``options.overrides``).

    Unlike :func:`override` this accepts ``axis_order``, which everything else depends on. For a ``target_spacing`` that
    the user sets, it plans patch, batch and network. The share of a coarse start that the planner is to choose is not
    applied: see :func:`~decathlete.planning.coarse_start_options.share_of_planned_start`.

    Args:
        configuration: its name. The grid of a low resolution is not planned here: see
            :func:`~decathlete.planning.configurations.plan_configuration`.

    Raises:
        OptionError: an assignment that is malformed, names an unknown field, or contradicts the rest of the plan.
        PlanError: see :func:`~decathlete.planning.planner.make_plan`.
    """
    fixed = load_preset(options.preset).assignments(spec.name, dims) if options.preset else ()
    origins = {split_assignment(text)[0]: f"--preset {options.preset}" for text in fixed}
    early = [text for text in (*fixed, *options.overrides) if split_assignment(text)[0] == "axis_order"]
    if early and early[-1] in options.overrides:
        origins["axis_order"] = f"--set {early[-1]}"
    plan = make_plan(
        spec,
        fingerprint,
        dims=dims,
        options=options,
        axes=_axes(early[-1]) if early else None,
        spacing=_assigned_spacing(options.overrides, dims),
        configuration=configuration,
    )
    plan = override(plan, [text for text in fixed if text not in early], options=options, fingerprint=fingerprint)
    later = (*early, *checked_share(options.overrides))
    late = [text for text in options.overrides if text not in later]
    return override(_mark(plan, origins), late, options=options, fingerprint=fingerprint)


def plan_at(
    spacing: Spacing,
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    *,
    dims: Dims,
    options: PlanOptions = PlanOptions(),
    configuration: Configuration | None = None,
) -> Plan:
    """Plan one model as :func:`plan_with`, at another target spacing (working order, mm) that the planner chose."""
    text = ",".join("none" if s is None else repr(s) for s in spacing)
    at = replace(options, overrides=(*options.overrides, f"target_spacing={text}"))
    planned = plan_with(spec, fingerprint, dims=dims, options=at, configuration=configuration)
    user_set = {field: option for field, option in planned.user_set.items() if field != "target_spacing"}
    return planned.revised(user_set=user_set)


def preset_options(preset: PresetName, **options: Any) -> PlanOptions:
    """Return options for the plan, with a preset's defaults for those that are not given."""
    return PlanOptions(**(load_preset(preset).plan | {"preset": preset} | options))


def override(
    plan: Plan,
    assignments: Sequence[str],
    *,
    options: PlanOptions | None = None,
    fingerprint: Fingerprint | None = None,
) -> Plan:
    """Return ``plan`` with fields set by the user, each given as ``field=value``.

    With a new patch size or target spacing the parts of the network that depend on the topology are planned again,
    unless the user sets them, too; with a new target spacing the patch size is also rounded up to what the new strides
    divide.

    Args:
        options: that ``plan`` was made with. Without them a network that such options changed stays as it is.
        fingerprint: to fit a new normalisation to.

    Raises:
        OptionError: an assignment that is malformed, names an unknown field, or contradicts the rest of the plan.
    """
    pairs = [split_assignment(text) for text in assignments]
    if not pairs:
        return plan
    data = plan.model_dump()
    for path, text in sorted(pairs, key=_place_in_order):
        _check_path(path)
        value = parse_value(text)
        if path == "coarse_start" and isinstance(value, list):
            value = {"target_spacing": value, "share": CoarseStart.model_fields["share"].default}
        _assign(data, path, value, flag=assignment_flag(path, text))
        if match := _NORMALIZATION_NAME.fullmatch(path):
            data["normalization"][int(match[1])] = _fit_normalization(text, int(match[1]), fingerprint)
    if plan.dims == 2:
        ignore_distance_of_slices(data)
    set_fields = {path: assignment_flag(path, text) for path, text in pairs}
    data["user_set"] |= set_fields
    data["reasons"] |= {path: set_by(option) for path, option in set_fields.items()}
    if set_fields.keys() & {"patch_size", "target_spacing"}:
        _replan(plan, data, set_fields, options=options)
    try:
        return Plan.model_validate(data)
    except ValidationError as problem:
        raise conflict_error(describe(problem), pairs) from None


def with_batch_size(plan: Plan, batch_size: int | None) -> Plan:
    """Return ``plan`` with the batch size of ``--batch-size``, if it is given."""
    if batch_size is None:
        return plan
    return _mark(plan.revised(batch_size=batch_size), {"batch_size": f"--batch-size {batch_size}"})


def _place_in_order(pair: Assignment) -> tuple[int, bool]:
    """Return the sort key of an assignment: fields come before the fields in them, names before other settings."""
    return pair[0].count("."), _NORMALIZATION_NAME.fullmatch(pair[0]) is None


def _mark(plan: Plan, options: dict[str, str]) -> Plan:
    """Return ``plan`` with fields marked as set by the user: field -> option."""
    reasons = {field: set_by(option) for field, option in options.items()}
    return plan.revised(user_set=plan.user_set | options, reasons=plan.reasons | reasons)


def _fit_normalization(name: str, channel: int, fingerprint: Fingerprint | None) -> dict[str, Any]:
    """Return the settings of the normalisation that the user chose for a channel, fitted to the data if possible."""
    component = NORMALIZATIONS.load(name)
    if fingerprint is None:
        return {"name": component.name}
    config: dict[str, Any] = component.cls.fit(ChannelStatistics.of(fingerprint, channel)).to_config()
    return config


def _check_path(path: str) -> None:
    if (new := renamed_path(path)) != path:
        raise OptionError(f"--set {path}: the field was renamed", remedy=f"use {new}")
    field = path if path in READ_ONLY_FIELDS else path.partition(".")[0]
    if field in READ_ONLY_FIELDS:
        raise OptionError(f"--set {path}: the field cannot be set", remedy=READ_ONLY_FIELDS[field])
    if field in _WHOLE_FIELDS and field != path:
        raise OptionError(
            f"--set {path}: the numbers of {field} are set together, because other fields follow from them",
            remedy=f"give all of them, separated by commas: --set {field}=...",
        )
    if field == "axis_order":
        raise OptionError(
            "--set axis_order: everything else depends on it",
            remedy="set it when the plan is made: `decathlete preprocess --set axis_order=...`, or `plan_with`",
        )


def _assign(data: dict[str, Any], path: str, value: Any, *, flag: str) -> None:
    """Set ``data`` at a dotted path, in place; a plain list for a list of lists becomes its only entry."""
    *parents, last = path.split(".")
    place: Any = data
    for key in parents:
        place = _entry(place, key, flag)
        if place is None:
            raise OptionError(f"{flag}: this plan has no {key}", remedy=f"set {key}, too")
        if not isinstance(place, dict | list):
            raise OptionError(f"{flag}: {key} has no fields", remedy="set the field itself")
    before = _entry(place, last, flag)
    if isinstance(before, list | tuple) or (value is not None and not parents and _is_list_field(last)):
        value = value if isinstance(value, list) else [value]
        if before and isinstance(before[0], list | tuple) and value and not isinstance(value[0], list):
            value = [value]
    place[int(last) if isinstance(place, list) else last] = value


def _is_list_field(field: str) -> bool:
    """Return whether a field of the plan is a list or none."""
    return any(get_origin(choice) is tuple for choice in get_args(Plan.model_fields[field].annotation))


def _entry(place: Any, key: str, flag: str) -> Any:
    """Return ``place[key]``; a tuple is replaced by a list, so that it can be changed."""
    if isinstance(place, dict) and key in place:
        if isinstance(place[key], tuple):
            place[key] = list(place[key])
        return place[key]
    number = parse_digits(key)
    if isinstance(place, list) and number is not None and number < len(place):
        return place[number]
    names = [*place] if isinstance(place, dict) else [str(i) for i in range(len(place))]
    names = [name for name in names if name not in READ_ONLY_FIELDS]
    close = difflib.get_close_matches(key, names, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"choose one of: {', '.join(names)}"
    raise OptionError(f"{flag}: there is no field {key}", remedy=remedy)


def _replan(plan: Plan, data: dict[str, Any], set_fields: dict[str, str], *, options: PlanOptions | None) -> None:
    """Plan the median shape and the network again for a new patch size or target spacing, in place."""
    spacing, patch = data["target_spacing"], data["patch_size"]
    numbers = [*spacing[3 - plan.dims :], *patch]
    if len(spacing) != 3 or len(patch) != plan.dims or not all(_positive(number) for number in numbers):
        return  # validation reports what is wrong
    data["median_shape"] = [
        size if old is None or not _positive(new) else max(round(size * old / new), 1)
        for size, old, new in zip(plan.median_shape, plan.target_spacing, spacing, strict=True)
    ]
    architecture = architecture_of(plan.network)
    by_topology = {"network", *(f"network.{name}" for name in architecture.topology_fields)}
    if by_topology & set_fields.keys():
        return
    if options is None and by_topology & plan.user_set.keys():
        return  # set by options that are unknown here
    flags = " ".join(set_fields.values())
    topology = make_topology(spacing[3 - plan.dims :], patch, pooling=architecture.pooling(options))
    if "patch_size" in set_fields:
        _must_divide(patch, topology, flags)
    try:
        network = architecture.replanned(topology, options)
    except PlanError as problem:
        raise OptionError(f"{flags}: {problem.problem}", remedy=problem.remedy) from None
    data["patch_size"] = list(topology.patch_size)
    before = plan.network.model_dump()
    data["network"] |= {
        name: value
        for name, value in network.model_dump().items()
        if value != before[name] and f"network.{name}" not in set_fields
    }
    reasons = architecture_of(network).reasons(topology.patch_size)
    data["reasons"] |= {field: why for field, why in reasons.items() if field not in data["user_set"]}


def _positive(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and number > 0


def _must_divide(patch: Sequence[int], topology: Topology, flag: str) -> None:
    if tuple(patch) == topology.patch_size:
        return
    lower = [max(p // d, 1) * d for p, d in zip(patch, topology.divisor, strict=True)]
    raise OptionError(
        f"{flag}: the patch size must be a multiple of {','.join(map(str, topology.divisor))}, the product of the "
        "network's strides",
        remedy=f"use patch_size={','.join(map(str, lower))} or {','.join(map(str, topology.patch_size))}, "
        "or set network.strides too",
    )


def _assigned_spacing(assignments: Sequence[str], dims: Dims) -> Spacing:
    """Return the target spacing that the user set for the axes that the network sees.

    Patch, batch and network are then planned for this grid. A value that is not valid is left to :func:`override`.
    """
    pairs = [split_assignment(text) for text in assignments]
    values = [parse_value(value) for path, value in pairs if path == "target_spacing"]
    if not values or not isinstance(values[-1], list) or len(values[-1]) != 3:
        return (None, None, None)
    first, second, third = (float(value) if _positive(value) else None for value in values[-1])
    return (first if dims == 3 else None, second, third)


def _axes(text: str) -> AxisOrder:
    value = parse_value(split_assignment(text)[1])
    if not isinstance(value, list) or sorted(map(str, value)) != ["0", "1", "2"]:
        raise OptionError(f"--set {text}: it must order the axes 0, 1, 2", remedy="e.g. axis_order=2,0,1")
    return (value[0], value[1], value[2])
