"""Replace the regions of a dataset's labels with those of the user's options."""

from __future__ import annotations

from collections.abc import Sequence

from decathlete.core.labels import LabelSet, Region
from decathlete.core.regions import REMEDY, GivenRegions, Regions, derive_order, parse_regions, region_problems
from decathlete.dataset.brats import brats_regions
from decathlete.errors import OptionError, problems_found


def resolve_labels(
    labels: LabelSet, *, regions: GivenRegions | None = None, order: Sequence[int] = (), brats: bool = False
) -> LabelSet:
    """Return ``labels`` with the regions of ``--regions`` or ``--brats``; unchanged if neither is given.

    Args:
        regions: names and values of the regions; they replace those of the manifest.
        order: the value that is written for each region, the outermost region first; derived if not given.
        brats: derive whole tumour, core and enhancing from the names of the labels.

    Raises:
        OptionError: the regions do not fit the labels (lists every problem), or the names are ambiguous.
    """
    if brats:
        return with_regions(labels, brats_regions(labels))
    return labels if regions is None else with_regions(labels, parse_regions(regions), order)


def with_regions(labels: LabelSet, regions: Regions, order: Sequence[int] = ()) -> LabelSet:
    """Return ``labels`` with other regions.

    Raises:
        OptionError: the regions do not fit the labels; lists every problem.
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
