"""Structures of a label set: the regions, or each foreground class, and the values that they write."""

from __future__ import annotations

from decathlete.core.labels import LabelClass, LabelSet, Region

CLASSES = tuple(LabelClass(name=name, value=value) for name, value in (("background", 0), ("edema", 2), ("core", 7)))


def test_classes_are_structures_and_write_their_own_values():
    labels = LabelSet(classes=CLASSES)
    assert labels.structures == (Region(name="edema", values=(2,)), Region(name="core", values=(7,)))
    assert labels.structure_indices == ((1,), (2,))
    assert labels.structure_values == (2, 7)


def test_regions_are_structures_and_write_the_values_of_their_order():
    regions = (Region(name="whole", values=(2, 7)), Region(name="core", values=(7,)))
    labels = LabelSet(classes=CLASSES, regions=regions, region_order=(2, 7))
    assert labels.structures == regions
    assert labels.structure_indices == ((1, 2), (2,))
    assert labels.structure_values == (2, 7)
    assert labels.revised(region_order=(7, 2)).structure_values == (7, 2)
