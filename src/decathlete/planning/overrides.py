"""``--set field=value``: any choice of the plan made by hand, validated, with what depends on it following.

Values: numbers, words, ``true``/``false``, ``none``; lists with commas (``patch_size=40,56,40``), lists of lists with
semicolons (``network.strides=1,1,1;2,2,2``), or JSON. Dots reach inside (``normalization.0.scheme=zscore``).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from decathlete.core.choices import PresetName
from decathlete.core.schema import describe
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import OptionError
from decathlete.planning.explain import BY_HAND, is_by_hand, why_network
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.grid import AxisOrder
from decathlete.planning.network_options import pooling_of, shaped
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.planning.planner import make_plan
from decathlete.planning.presets import load_preset
from decathlete.planning.topology import TOPOLOGY_FIELDS, Pooling, Topology, make_topology, rebuild_network_spec

READ_ONLY_FIELDS: dict[str, str] = {
    "version": "it says how the file is written",
    "dataset": "it is the dataset's name",
    "dims": "choose it with --dim",
    "channels": "they are the dataset's; change its dataset.json",
    "labels": "they are the dataset's; change its dataset.json, or choose regions with --regions or --brats",
    "foreground_channel": "the network follows from it; choose it with --foreground-channel",
    "orientation": "it is settled before the fingerprint is taken; choose it with --orientation",
    "fingerprint_digest": "it says what the plan was made from",
    "trained_on": "it says what the training images are like",
    "median_shape": "it is measured; set target_spacing instead",
    "reasons": "they are written by the planner",
}
"""What the plan records but does not choose."""
TOPOLOGY = ("network.strides", "network.kernels", "network.features", "network.encoder_convs", "network.decoder_convs")

Assignment = tuple[str, str]


def plan_with(spec: DatasetSpec, fingerprint: Fingerprint, *, dims: Dims, options: PlanOptions = PlanOptions()) -> Plan:
    """The whole way: plan, then what the user sets by hand (``options.overrides``), which has the last word.

    Unlike :func:`override` it can also take ``axis_order``, which everything else follows from.

    Raises:
        OptionError: an assignment that is malformed, unknown, or does not fit.
        PlanError: see :func:`make_plan`.
    """
    fixed = load_preset(options.preset).assignments(spec.name, dims) if options.preset else ()
    early = [text for text in (*fixed, *options.overrides) if _split(text)[0] == "axis_order"]
    late = [text for text in options.overrides if text not in early]
    plan = make_plan(spec, fingerprint, dims=dims, options=options, axes=_axes(early[-1]) if early else None)
    plan = override(plan, [text for text in fixed if text not in early], options=options)
    whence = {_split(text)[0]: f"{BY_HAND} (--preset {options.preset})" for text in fixed}
    plan = plan.revised(reasons=plan.reasons | whence)
    return override(plan, late, options=options)


def preset_options(preset: PresetName, **options: Any) -> PlanOptions:
    """The plan's options with a preset's defaults in place of ours, for those that are not given."""
    return PlanOptions(**(load_preset(preset).plan | {"preset": preset} | options))


def override(plan: Plan, assignments: Sequence[str], *, options: PlanOptions | None = None) -> Plan:
    """``plan`` with fields set by hand, each given as ``field=value``.

    A new patch size or target spacing makes the network's strides, kernels and depth anew by the planner's rules,
    unless these are set too; a new target spacing also rounds the patch up to what the new strides divide.

    Args:
        options: that ``plan`` was made with; without them a network that they shaped stays as it is.

    Raises:
        OptionError: an assignment that is malformed, names no field, or makes a plan that contradicts itself.
    """
    pairs = [_split(text) for text in assignments]
    if not pairs:
        return plan
    data = plan.model_dump()
    for path, text in pairs:
        _check_path(path)
        _assign(data, path, parse_value(text), flag=_flag(path, text))
    keys = {path for path, _ in pairs}
    data["reasons"] |= {path: f"{BY_HAND} ({_flag(path, text)})" for path, text in pairs}
    if keys & {"patch_size", "target_spacing"}:
        _follow(plan, data, keys, flags=[_flag(path, text) for path, text in pairs], options=options)
    try:
        return Plan.model_validate(data)
    except ValidationError as problem:
        raise _misfit(describe(problem), pairs) from None


def with_batch_size(plan: Plan, batch_size: int | None) -> Plan:
    """``plan`` with the batch that ``--batch-size`` asks for, if any: a choice by hand like any other."""
    if batch_size is None:
        return plan
    reasons = plan.reasons | {"batch_size": f"{BY_HAND} (--batch-size {batch_size})"}
    return plan.revised(batch_size=batch_size, reasons=reasons)


def _split(text: str) -> Assignment:
    path, separator, value = text.partition("=")
    if not separator or not path.strip() or not value.strip():
        raise OptionError(
            f"--set {text}: not of the form field=value",
            remedy="write e.g. --set patch_size=40,56,40",
            code="E-OPTION-SYNTAX",
        )
    return path.strip().replace("-", "_"), value.strip()


def _flag(path: str, text: str) -> str:
    return f"--set {path}={text}"


def parse_value(text: str) -> Any:
    """A value as JSON, or in the short form: ``;`` between lists, ``,`` within them."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    if ";" in text:
        return [_items(part) for part in text.split(";") if part.strip()]
    return _items(text) if "," in text else _scalar(text)


def _items(text: str) -> list[Any]:
    return [_scalar(part) for part in text.split(",") if part.strip()]


def _scalar(text: str) -> Any:
    word = text.strip()
    constants = {"none": None, "null": None, "true": True, "false": False}
    if word.lower() in constants:
        return constants[word.lower()]
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


def _check_path(path: str) -> None:
    head = path.partition(".")[0]
    if head in READ_ONLY_FIELDS:
        raise OptionError(f"--set {path}: not a choice of the plan", remedy=READ_ONLY_FIELDS[head])
    if head == "axis_order":
        raise OptionError(
            "--set axis_order: everything else follows from it",
            remedy="set it where the plan is made: `decathlete preprocess --set axis_order=...`, or `plan_with`",
        )


def _assign(data: dict[str, Any], path: str, value: Any, *, flag: str) -> None:
    """Set ``data`` at a dotted path, in place; lists that hold lists take a bare list as their only entry."""
    *parents, last = path.split(".")
    place: Any = data
    for key in parents:
        place = _entry(place, key, flag)
        if not isinstance(place, dict | list):
            raise OptionError(f"{flag}: {key} has no fields of its own", remedy="name the field itself")
    before = _entry(place, last, flag)
    if isinstance(before, list | tuple) or (value is not None and not parents and _takes_list(last)):
        value = value if isinstance(value, list) else [value]
        if before and isinstance(before[0], list | tuple) and value and not isinstance(value[0], list):
            value = [value]
    place[int(last) if isinstance(place, list) else last] = value


def _takes_list(field: str) -> bool:
    """Whether a field of the plan that may be none is else a list."""
    return any(get_origin(choice) is tuple for choice in get_args(Plan.model_fields[field].annotation))


def _entry(place: Any, key: str, flag: str) -> Any:
    """``place[key]``; tuples on the way are made lists, so that they can be changed."""
    if isinstance(place, dict) and key in place:
        if isinstance(place[key], tuple):
            place[key] = list(place[key])
        return place[key]
    if isinstance(place, list) and key.isdigit() and int(key) < len(place):
        return place[int(key)]
    names = [*place] if isinstance(place, dict) else [str(i) for i in range(len(place))]
    names = [name for name in names if name not in READ_ONLY_FIELDS]
    close = difflib.get_close_matches(key, names, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"choose one of: {', '.join(names)}"
    raise OptionError(f"{flag}: there is no field {key}", remedy=remedy)


def _follow(
    plan: Plan, data: dict[str, Any], keys: set[str], *, flags: Sequence[str], options: PlanOptions | None
) -> None:
    """Let the median shape and the network's topology follow a new patch size or target spacing, in place."""
    spacing, patch = data["target_spacing"], data["patch_size"]
    numbers = [*spacing[3 - plan.dims :], *patch]
    if len(spacing) != 3 or len(patch) != plan.dims or not all(_positive(number) for number in numbers):
        return  # the schema says what is wrong
    data["median_shape"] = [
        size if old is None or not _positive(new) else max(round(size * old / new), 1)
        for size, old, new in zip(plan.median_shape, plan.target_spacing, spacing, strict=True)
    ]
    if any(path == "network" or path in TOPOLOGY for path in keys):
        return
    if options is None and any(is_by_hand(plan.reasons, path) for path in ("network", *TOPOLOGY)):
        return  # by options that are not known any more
    pooling = Pooling() if options is None else pooling_of(options)
    topology = make_topology(spacing[3 - plan.dims :], patch, pooling=pooling)
    if "patch_size" in keys:
        _must_divide(patch, topology, " ".join(flags))
    if len(topology.strides) < 2:
        raise OptionError(
            f"{' '.join(flags)}: a patch of {'×'.join(map(str, patch))} voxels is too small for a U-Net",
            remedy="give at least 8 voxels along two axes of similar spacing, or 12 along one",
        )
    same = topology.strides == plan.network.strides and topology.kernels == plan.network.kernels
    network = plan.network if same else rebuild_network_spec(plan.network, topology)
    if options is not None:
        network = shaped(network, options)
    data["patch_size"] = list(topology.patch_size)
    data["network"] |= {name: getattr(network, name) for name in TOPOLOGY_FIELDS if f"network.{name}" not in keys}
    reasons = why_network(network, topology.patch_size)
    data["reasons"] |= {field: why for field, why in reasons.items() if not is_by_hand(data["reasons"], field)}


def _positive(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and number > 0


def _must_divide(patch: Sequence[int], topology: Topology, flag: str) -> None:
    if tuple(patch) == topology.patch_size:
        return
    lower = [max(p // d, 1) * d for p, d in zip(patch, topology.divisor, strict=True)]
    raise OptionError(
        f"{flag}: the patch must be a multiple of {','.join(map(str, topology.divisor))}, what the network's strides "
        "divide it by",
        remedy=f"give patch_size={','.join(map(str, lower))} or {','.join(map(str, topology.patch_size))}, "
        "or set network.strides too",
    )


def _misfit(problems: Sequence[str], pairs: Sequence[Assignment]) -> OptionError:
    flags = " ".join(_flag(path, text) for path, text in pairs)
    listed = problems[0] if len(problems) == 1 else "".join(f"\n  - {p}" for p in problems)
    return OptionError(f"{flags}: {listed}", remedy="change the value, or set the fields that depend on it too")


def _axes(text: str) -> AxisOrder:
    value = parse_value(_split(text)[1])
    if not isinstance(value, list) or sorted(map(str, value)) != ["0", "1", "2"]:
        raise OptionError(f"--set {text}: not an order of the axes 0, 1, 2", remedy="write e.g. axis_order=2,0,1")
    return (value[0], value[1], value[2])
