"""Parse the ``labels`` of a manifest, in the Decathlon's or nnU-Net's form."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.core.log_once import log_once
from decathlete.core.regions import Regions, region_problems, whole_number
from decathlete.core.schema import describe

_log = logging.getLogger(__name__)


def parse_label_set(
    declared: dict[str, Any],
    regions: dict[str, Any] | None,
    order: list[int] | None,
    problems: list[str],
    *,
    read_back: bool = True,
) -> LabelSet | None:
    """Parse the labels of a manifest; problems are added to ``problems``, and the result is then ``None``.

    Args:
        declared: Decathlon's ``{"0": name}``, or nnU-Net's ``{name: value or list of values}`` with ``"ignore"``.
        regions: regions that are declared apart from Decathlon's labels. They are used only with ``order``, which
            defines how overlapping regions are written to one label map.
        order: nnU-Net's ``regions_class_order``.
        read_back: reject an order from which a perfect prediction could not be read back. Models that were trained
            by other programs may have such an order.
    """
    if regions and not order:
        log_once(
            _log,
            "the manifest's regions are ignored, since it has no regions_class_order (use --brats or --regions to "
            "choose regions)",
            logging.INFO,
        )
        regions = None
    new_problems: list[str] = []
    named = _named_values(declared, "labels", new_problems)
    separate = _named_values(regions or {}, "regions", new_problems)
    ignore = named.pop("ignore", None)
    if ignore is not None and len(ignore) != 1:
        new_problems.append("labels.ignore must be one value")
    new_problems += _repeated_values(named)
    if not new_problems:
        region_values = _regions(named, separate, order or [], new_problems, read_back=read_back)
    if new_problems:
        problems += new_problems
        return None
    try:
        return LabelSet(
            classes=tuple(LabelClass(name=name, value=value) for value, name in name_values(named).items()),
            regions=tuple(Region(name=n, values=v) for n, v in region_values.items()),
            region_order=tuple(order or ()) if region_values else (),
            ignore=ignore[0] if ignore else None,
        )
    except ValidationError as problem:
        problems += [f"labels: {text}" for text in describe(problem)]
        return None


def _regions(
    named: dict[str, list[int]],
    separate: dict[str, list[int]],
    order: list[int],
    problems: list[str],
    *,
    read_back: bool,
) -> Regions:
    """Return the regions in the order of their declaration; empty if the classes exclude each other."""
    nested = any(len(values) > 1 for values in named.values())
    if nested and separate:
        problems.append("regions are declared both in 'labels' and in 'regions'")
    if not nested and not separate:
        return {}
    regions = {name: tuple(values) for name, values in (separate or named).items() if separate or values != [0]}
    if len(order) != len(regions):
        problems.append(
            f"labels with several values are regions: regions_class_order needs {len(regions)} values, one per "
            f"region ({', '.join(regions)})"
        )
    elif read_back:
        declared = {value for values in named.values() for value in values}
        problems += [f"regions_class_order: {text}" for text in region_problems(regions, order, declared)]
    return regions


def _named_values(declared: dict[str, Any], field: str, problems: list[str]) -> dict[str, list[int]]:
    """Return name -> values, from either form."""
    by_value = all(whole_number(key) is not None for key in declared) and all(
        isinstance(value, str) for value in declared.values()
    )
    pairs = [(str(v), k) for k, v in declared.items()] if by_value else list(declared.items())
    named: dict[str, list[int]] = {}
    for name, value in pairs:
        values = [whole_number(v) for v in (value if isinstance(value, list) else [value])]
        if not name.strip():
            problems.append(f"{field}: the class of value {value!r} has no name")
        elif name in named:
            problems.append(f"{field}: two classes are called {name!r}")
        elif not values or any(v is None for v in values):
            problems.append(f"{field}.{name} must be an integer or a list of integers, it is {value!r}")
        named[name] = sorted({v for v in values if v is not None})
    return named


def _repeated_values(named: dict[str, list[int]]) -> list[str]:
    """Return the problem of each value that several classes have."""
    names_of: dict[int, list[str]] = defaultdict(list)
    for name, values in named.items():
        if len(values) == 1:
            names_of[values[0]].append(name)
    return [
        f"labels: {' and '.join(map(repr, names))} have the same value {value}"
        for value, names in names_of.items()
        if len(names) > 1
    ]


def name_values(named: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """Return the class name of each value, in ascending order; a value that occurs only inside regions is ``label 2``.

    Args:
        named: the classes and regions of a manifest: name -> values.

    >>> name_values({"core": [2, 3], "enhancing": [3]})
    {2: 'label 2', 3: 'enhancing'}
    """
    names = {values[0]: name for name, values in named.items() if len(values) == 1}
    return {v: names.get(v, f"label {v}") for v in sorted({v for many in named.values() for v in many})}
