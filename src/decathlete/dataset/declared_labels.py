"""The ``labels`` of a manifest, in either spelling, as a :class:`LabelSet`."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import ValidationError

from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.core.regions import Regions, region_problems, whole_number
from decathlete.core.schema import describe

_log = logging.getLogger(__name__)


def label_set(
    declared: dict[str, Any],
    regions: dict[str, Any] | None,
    order: list[int] | None,
    problems: list[str],
    *,
    read_back: bool = True,
) -> LabelSet | None:
    """Make the label set; what is wrong is added to ``problems`` and gives ``None``.

    Args:
        declared: Decathlon's ``{"0": name}``, or nnU-Net's ``{name: value or list of values}`` with ``"ignore"``.
        regions: an object of its own beside Decathlon's labels, used only where ``order`` is given too: without it
            nothing says how overlapping regions become one label map again.
        order: nnU-Net's ``regions_class_order``.
        read_back: refuse an order from which a perfect prediction could not be read back. A model that was trained
            elsewhere has the one it has.
    """
    if regions and not order:
        _log.info(
            "the manifest's regions are left alone, for they come without regions_class_order (--brats and --regions "
            "choose regions, too)"
        )
        regions = None
    found: list[str] = []
    named = _named_values(declared, "labels", found)
    apart = _named_values(regions or {}, "regions", found)
    ignore = named.pop("ignore", None)
    if ignore is not None and len(ignore) != 1:
        found.append("labels.ignore must be one value")
    if not found:
        chosen = _regions(named, apart, order or [], found, read_back=read_back)
    if found:
        problems += found
        return None
    try:
        return LabelSet(
            classes=_classes(named),
            regions=tuple(Region(name=n, values=v) for n, v in chosen.items()),
            region_order=tuple(order or ()) if chosen else (),
            ignore=ignore[0] if ignore else None,
        )
    except ValidationError as problem:
        problems += [f"labels: {text}" for text in describe(problem)]
        return None


def _regions(
    named: dict[str, list[int]],
    apart: dict[str, list[int]],
    order: list[int],
    problems: list[str],
    *,
    read_back: bool,
) -> Regions:
    """The regions, in the order they are declared in; none where classes exclude each other."""
    nested = any(len(values) > 1 for values in named.values())
    if nested and apart:
        problems.append("regions are declared both in 'labels' and in 'regions'")
    if not nested and not apart:
        return {}
    chosen = {name: tuple(values) for name, values in (apart or named).items() if apart or values != [0]}
    if len(order) != len(chosen):
        problems.append(
            f"labels with several values are regions: regions_class_order needs {len(chosen)} values, one per "
            f"region ({', '.join(chosen)})"
        )
    elif read_back:
        declared = {value for values in named.values() for value in values}
        problems += [f"regions_class_order: {text}" for text in region_problems(chosen, order, declared)]
    return chosen


def _named_values(declared: dict[str, Any], field: str, problems: list[str]) -> dict[str, list[int]]:
    """Name -> values, from either spelling."""
    by_value = all(whole_number(key) is not None for key in declared) and all(
        isinstance(value, str) for value in declared.values()
    )
    pairs = [(str(v), k) for k, v in declared.items()] if by_value else list(declared.items())
    named: dict[str, list[int]] = {}
    for name, value in pairs:
        values = [whole_number(v) for v in (value if isinstance(value, list) else [value])]
        if name in named:
            problems.append(f"{field}: two classes are called {name!r}")
        elif not values or any(v is None for v in values):
            problems.append(f"{field}.{name} must be an integer or a list of integers, it is {value!r}")
        named[name] = sorted({v for v in values if v is not None})
    return named


def _classes(named: dict[str, list[int]]) -> tuple[LabelClass, ...]:
    """One class per value that is used; a value that occurs only inside regions is called ``label 2``."""
    names = {values[0]: name for name, values in named.items() if len(values) == 1}
    singles = sorted(v[0] for v in named.values() if len(v) == 1)
    if len(set(singles)) < len(singles):  # two names for one value: let the label set say so
        return tuple(
            LabelClass(name=n, value=v[0]) for n, v in sorted(named.items(), key=lambda i: i[1]) if len(v) == 1
        )
    values = sorted({v for many in named.values() for v in many})
    return tuple(LabelClass(name=names.get(v, f"label {v}"), value=v) for v in values)
