"""Label values as nnU-Net v2 takes them: 0, 1, 2, ... without a gap, the ignore value last."""

from __future__ import annotations

from decathlete.core.labels import LabelClass, LabelSet, Region


def nnunet_values(labels: LabelSet, problems: list[str]) -> tuple[LabelSet, dict[int, int]]:
    """The labels with nnU-Net's values, and which value becomes which (those that change).

    What nnU-Net cannot declare is added to ``problems``: a region needs several values for there to be regions at
    all, and with regions every value lies in one.
    """
    problems += [f"a class is called {c.name!r}" for c in labels.foreground if c.name in ("background", "ignore")]
    if labels.regions and all(len(r.values) == 1 for r in labels.regions):
        problems.append("nnU-Net knows regions only where one of them has several values; none has")
    inside = {value for region in labels.regions for value in region.values}
    outside = [c for c in labels.foreground if labels.regions and c.value not in inside]
    problems += [f"value {c.value} ({c.name}) lies in no region, and nnU-Net declares regions only" for c in outside]
    if problems:
        return labels, {}
    new = {value: place for place, value in enumerate(labels.values)}
    names = ["background", *(c.name for c in labels.foreground)]
    renewed = labels.revised(
        classes=tuple(LabelClass(name=name, value=v) for v, name in enumerate(names)),
        regions=tuple(Region(name=r.name, values=tuple(new[v] for v in r.values)) for r in labels.regions),
        region_order=tuple(new[v] for v in labels.region_order),
        ignore=None if labels.ignore is None else len(names),
    )
    if labels.ignore is not None:
        new[labels.ignore] = len(names)
    return renewed, {old: value for old, value in new.items() if old != value}
