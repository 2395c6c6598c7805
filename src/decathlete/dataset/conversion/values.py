"""Renumber label values for nnU-Net v2: 0, 1, 2, ... without a gap, the ignore value last."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.errors import problems_found


def nnunet_values(labels: LabelSet, where: Path) -> tuple[LabelSet, dict[int, int]]:
    """Return the labels with nnU-Net's values, and old value -> new value for values that change.

    Args:
        where: the dataset, for messages.

    Raises:
        DatasetError: nnU-Net cannot represent the labels: at least one region must have several values, and with
            regions every value must belong to one.
    """
    problems = [f"a class is called {c.name!r}" for c in labels.foreground if c.name in ("background", "ignore")]
    if labels.regions and all(len(r.values) == 1 for r in labels.regions):
        problems.append("nnU-Net supports regions only if one of them has several values; none has")
    inside = {value for region in labels.regions for value in region.values}
    outside = [c for c in labels.foreground if labels.regions and c.value not in inside]
    problems += [f"value {c.value} ({c.name}) belongs to no region, and nnU-Net declares only regions" for c in outside]
    if problems:
        raise problems_found(problems, where=where, remedy="rename the classes, or use --regions")
    new = {value: place for place, value in enumerate(labels.values)}
    names = ["background", *(c.name for c in labels.foreground)]
    renumbered = labels.revised(
        classes=tuple(LabelClass(name=name, value=v) for v, name in enumerate(names)),
        regions=tuple(Region(name=r.name, values=tuple(new[v] for v in r.values)) for r in labels.regions),
        region_order=tuple(new[v] for v in labels.region_order),
        ignore=None if labels.ignore is None else len(names),
        unannotated=tuple(tuple(new[value] for value in members) for members in labels.unannotated),
    )
    if labels.ignore is not None:
        new[labels.ignore] = len(names)
    return renumbered, {old: value for old, value in new.items() if old != value}
