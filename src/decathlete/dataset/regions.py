"""A dataset's labels with the regions that a user asks for, whatever its manifest declares."""

from __future__ import annotations

from collections.abc import Sequence

from decathlete.core.labels import LabelSet, Region
from decathlete.core.regions import REMEDY, GivenRegions, Regions, derive_order, parse_regions, region_problems
from decathlete.dataset.brats import brats_regions
from decathlete.errors import OptionError, problems_found


def chosen_labels(
    labels: LabelSet, *, regions: GivenRegions | None = None, order: Sequence[int] = (), brats: bool = False
) -> LabelSet:
    """``labels`` with the regions of ``--regions`` or ``--brats``; as they are if neither is given.

    Args:
        regions: their names and values; they replace those that the manifest declares.
        order: the value that each region is written with, outer ones first; derived if not given.
        brats: whole tumour, core and enhancing, by the names of the labels.

    Raises:
        OptionError: regions that do not fit the labels (every problem together), or names that do not decide.
    """
    if brats:
        return with_regions(labels, brats_regions(labels))
    return labels if regions is None else with_regions(labels, parse_regions(regions), order)


def with_regions(labels: LabelSet, regions: Regions, order: Sequence[int] = ()) -> LabelSet:
    """``labels`` with ``regions`` in place of those they had.

    Raises:
        OptionError: with every problem together.
    """
    if not order:
        regions, order = derive_order(regions)
    if problems := region_problems(regions, order, labels.values):
        declared = ", ".join(f"{c.value} {c.name}" for c in labels.classes)
        remedy = f"{REMEDY}; the dataset declares: {declared}"
        raise problems_found(problems, where="regions", remedy=remedy, kind=OptionError, code="E-OPTION-REGIONS")
    return labels.revised(
        regions=tuple(Region(name=name, values=members) for name, members in regions.items()),
        region_order=tuple(order),
    )
