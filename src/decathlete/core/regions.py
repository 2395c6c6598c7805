"""Overlapping regions: as a user writes them, and how they become one label map again.

A label map holds one value a voxel. So overlapping regions are painted into it one over the other, outer ones first,
each with a value of its own; scores are then taken of what can be read back from the map. An order in which a perfect
prediction would not be read back as it was is therefore refused. No numpy here: the command line checks its options.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from decathlete.errors import OptionError, problems_found

Regions = dict[str, tuple[int, ...]]
"""Name -> label values, in the order of painting."""
GivenRegions = str | Mapping[str, int | Sequence[int]]
"""As a user writes them: ``"whole tumour=1,2,3;core=2,3"``, or name -> value or values."""

REMEDY = "write e.g. --regions 'whole tumour=1,2,3;core=2,3;enhancing=3', and, if need be, --regions-order 1,2,3"


def parse_regions(given: GivenRegions) -> Regions:
    """Regions as a user wrote them; which values there are is not asked.

    Raises:
        OptionError: with every problem together.
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
    """``"2,1,4"`` as numbers; nothing, where nothing is given.

    Raises:
        OptionError: it is anything else.
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
    """A label value as a user or a manifest writes it (``3``, ``"3"``); ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def derived_order(regions: Regions) -> tuple[Regions, tuple[int, ...]]:
    """Outer regions before the inner ones, and the value that each is painted with.

    That is the smallest which lies in no later region: where only the whole tumour is, the map says oedema.
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
    """What is wrong with regions of a dataset, or with the values that they are painted with.

    Args:
        order: the value of each region, in the order of ``regions``.
        declared: values of the dataset's classes, the background (0) among them.
    """
    problems = []
    for name, values in regions.items():
        unknown = [value for value in values if value not in declared]
        if unknown:
            problems.append(f"region {name!r} has values that are not declared: {_listed(unknown)}")
        if 0 in values:
            problems.append(f"region {name!r} holds the background (0)")
        if not values:
            problems.append(f"region {name!r} is empty")
    if len(order) != len(regions):
        problems.append(
            f"the order of writing has {len(order)} value(s) for {len(regions)} regions: give one for each of "
            f"{', '.join(regions)}"
        )
    return problems or list(_order_problems(regions, order, declared))


def _order_problems(regions: Regions, order: Sequence[int], declared: Collection[int]) -> Iterator[str]:
    painted = dict(zip(regions, order, strict=True))
    strangers = {name: value for name, value in painted.items() if value not in regions[name]}
    for name, value in strangers.items():
        yield f"region {name!r} would be written as {value}, which does not belong to it"
    if strangers:
        return
    for value in sorted(declared):
        around = _around(value, regions)
        if around and (found := _around(painted[around[-1]], regions)) != around:
            yield (
                f"{value} (in {_listed(around)}) would be written as {painted[around[-1]]} (in {_listed(found)}): "
                "outer regions come first, each with a value that lies in no inner one; regions of which neither lies "
                "in the other cannot share a label map"
            )


def _around(value: int, regions: Regions) -> list[str]:
    """The regions that a value belongs to, in the order of painting."""
    return [name for name, values in regions.items() if value in values]


def _listed(things: Sequence[object]) -> str:
    return ", ".join(map(str, things))
