"""Overlapping regions: parse the user's text, and check that regions can be stored in one label map.

A label map has one value per voxel. Overlapping regions are therefore written over one another, outer regions first,
each with its own value, and scores are computed from the regions that are read back from the map. An order from which a
perfect prediction could not be read back is rejected. This module does not use numpy, so that the command line can
check options quickly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from decathlete.errors import OptionError, problems_found

Regions = dict[str, tuple[int, ...]]
"""Name -> label values, in the order in which regions are written."""
GivenRegions = str | Mapping[str, int | Sequence[int]]
"""Regions as the user writes them: ``"whole tumour=1,2,3;core=2,3"``, or name -> value or values."""

REMEDY = "write e.g. --regions 'whole tumour=1,2,3;core=2,3;enhancing=3', and, if needed, --regions-order 1,2,3"


def parse_regions(given: GivenRegions) -> Regions:
    """Parse regions; whether the dataset declares their values is not checked.

    Raises:
        OptionError: the text is not valid; lists every problem.
    """
    regions: Regions = {}
    problems = []
    for name, values in _entries(given):
        numbers = [whole_number(value) for value in values]
        if not name:
            problems.append(f"a region without a name ({', '.join(map(str, values))})")
        elif name in regions:
            problems.append(f"two regions are called {name!r}")
        elif not numbers or None in numbers:
            problems.append(f"region {name!r} needs whole numbers, it has {', '.join(map(str, values)) or 'none'}")
        regions[name] = tuple(sorted({number for number in numbers if number is not None}))
    if not regions:
        problems.append("there is no region")
    if problems:
        raise problems_found(problems, where="--regions", remedy=REMEDY, kind=OptionError, code="E-OPTION-REGIONS")
    return regions


def parse_order(text: str | None) -> tuple[int, ...]:
    """Parse ``"2,1,4"``; ``None`` gives an empty order.

    Raises:
        OptionError: ``text`` is not a list of whole numbers.
    """
    if text is None:
        return ()
    numbers = [whole_number(part) for part in text.split(",")]
    if None in numbers:
        raise OptionError(
            f"--regions-order {text!r} is not a list of whole numbers", remedy=REMEDY, code="E-OPTION-SYNTAX"
        )
    return tuple(number for number in numbers if number is not None)


def _entries(given: GivenRegions) -> Iterator[tuple[str, list[object]]]:
    if not isinstance(given, str):
        for name, values in given.items():
            yield name.strip(), [values] if isinstance(values, int) else list(values)
        return
    for part in given.split(";"):
        if part.strip():
            title, _, numbers = part.rpartition("=")
            yield title.strip(), [number.strip() for number in numbers.split(",") if number.strip()]


def whole_number(value: object) -> int | None:
    """Convert a label value of an option or a manifest (``3``, ``"3"``); anything else gives ``None``."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def derive_order(regions: Regions) -> tuple[Regions, tuple[int, ...]]:
    """Sort regions from the outermost to the innermost, and choose the value that is written for each.

    The value is the smallest one that belongs to no later region: oedema for the whole tumour, for example.
    """
    outer_first = dict(sorted(regions.items(), key=lambda item: -len(item[1])))
    order = []
    later = list(outer_first.values())
    for values in outer_first.values():
        later.pop(0)
        inner = {value for others in later for value in others}
        order.append(min(set(values) - inner or values))
    return outer_first, tuple(order)


def region_problems(regions: Regions, order: Sequence[int], declared: Collection[int]) -> list[str]:
    """Return the problems of regions and of the values that are written for them.

    Args:
        order: the value that is written for each region, in the order of ``regions``.
        declared: values of the dataset's classes, including the background (0).
    """
    problems = []
    for name, values in regions.items():
        unknown = [value for value in values if value not in declared]
        if unknown:
            problems.append(f"region {name!r} has values that are not declared: {_listed(unknown)}")
        if 0 in values:
            problems.append(f"region {name!r} contains the background (0)")
        if not values:
            problems.append(f"region {name!r} is empty")
    if len(order) != len(regions):
        problems.append(
            f"the order has {len(order)} value(s) for {len(regions)} regions: use one for each of {', '.join(regions)}"
        )
    return problems or list(_order_problems(regions, order, declared))


def _order_problems(regions: Regions, order: Sequence[int], declared: Collection[int]) -> Iterator[str]:
    written = dict(zip(regions, order, strict=True))
    foreign = {name: value for name, value in written.items() if value not in regions[name]}
    for name, value in foreign.items():
        yield f"region {name!r} would be written as {value}, which does not belong to it"
    if foreign:
        return
    for value in sorted(declared):
        containing = _regions_with(value, regions)
        if not containing:
            continue
        stored = written[containing[-1]]
        if (regions_read := _regions_with(stored, regions)) != containing:
            yield (
                f"{value} (in {_listed(containing)}) would be written as {stored} (in {_listed(regions_read)}): "
                "outer regions come first, each with a value that belongs to no inner region; two regions that overlap "
                "without one inside the other cannot share a label map"
            )


def _regions_with(value: int, regions: Regions) -> list[str]:
    """Return the regions that contain a value, in the order of writing."""
    return [name for name, values in regions.items() if value in values]


def _listed(things: Sequence[object]) -> str:
    return ", ".join(map(str, things))
