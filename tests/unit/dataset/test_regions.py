"""Regions as options: how they are read, in which order they are written, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.core.labels import LabelClass, LabelSet
from decathlete.core.regions import derive_order, parse_order, parse_regions
from decathlete.dataset.regions import resolve_labels, with_regions
from decathlete.errors import OptionError

GLIOMA = LabelSet.from_names(["necrosis", "edema", "non-enhancing tumor", "enhancing tumor"])
THREE = "whole tumour=1,2,3,4;core=1,3,4;enhancing=4"


def membership(value: int, labels: LabelSet) -> list[str]:
    return [r.name for r in labels.regions if value in r.values]


def painted(value: int, labels: LabelSet) -> int:
    """What a label map says where all regions around ``value``, and no others, are predicted."""
    out = 0
    for region, written in zip(labels.regions, labels.region_order, strict=True):
        out = written if value in region.values else out
    return out


def test_text_and_mapping_say_the_same() -> None:
    spaced = " whole tumour = 4,3,2,1 ; core=1, 3,4; enhancing=4;"
    mapping = {"whole tumour": [1, 2, 3, 4], "core": (1, 3, 4), "enhancing": 4}
    expected = {"whole tumour": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (4,)}
    assert parse_regions(spaced) == parse_regions(mapping) == expected
    assert parse_order("2, 1,4") == (2, 1, 4)


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("", ["no region"]),
        ("whole", ["without a name"]),
        ("a=1;a=2;b=x;c=", ["two regions are called 'a'", "'b' needs whole numbers, it has x", "'c' needs whole"]),
        ({"a": [1.5]}, ["'a' needs whole numbers"]),
    ],
)
def test_every_mistake_in_writing_is_named(given, messages) -> None:
    with pytest.raises(OptionError) as caught:
        parse_regions(given)
    for message in messages:
        assert message in str(caught.value)
    assert "--regions '" in str(caught.value.remedy)


def test_an_order_that_is_no_numbers_is_refused() -> None:
    with pytest.raises(OptionError, match="regions-order"):
        parse_order("1,core")


@pytest.mark.parametrize("given", [THREE, "enhancing=4;core=1,3,4;whole tumour=1,2,3,4"])
def test_the_derived_order_paints_outer_regions_first(given: str) -> None:
    labels = resolve_labels(GLIOMA, regions=given)
    assert [r.name for r in labels.regions] == ["whole tumour", "core", "enhancing"]
    assert labels.region_order == (2, 1, 4)
    assert labels.n_outputs == 3
    assert all(membership(painted(v, labels), labels) == membership(v, labels) for v in GLIOMA.values)


def test_regions_side_by_side_and_of_one_value() -> None:
    assert derive_order({"a": (1,), "b": (2, 3)}) == ({"b": (2, 3), "a": (1,)}, (2, 1))
    assert derive_order({"all": (1, 2), "a": (1,), "b": (2,)})[1] == (1, 1, 2)


def test_a_given_order_is_kept() -> None:
    labels = resolve_labels(GLIOMA, regions=THREE, order=(2, 3, 4))
    assert labels.region_order == (2, 3, 4)


@pytest.mark.parametrize(
    ("regions", "order", "message"),
    [
        ("whole=1,2,5", (), "not declared: 5"),
        ("whole=0,1", (), "background"),
        (THREE, (2, 1), r"2 value\(s\) for 3 regions"),
        (THREE, (2, 2, 4), "'core' would be written as 2, which does not belong"),
        (THREE, (1, 3, 4), "2 .in whole tumour. would be written as 1 .in whole tumour, core."),
        ("enhancing=4;whole tumour=1,2,3,4", (4, 2), "4 .in enhancing, whole tumour. would be written as 2"),
        ("a=1,2;b=2,3", (), "3 .in b. would be written as 2 .in a, b."),
    ],
)
def test_regions_that_a_label_map_cannot_hold_are_refused(regions, order, message) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        resolve_labels(GLIOMA, regions=regions, order=order)
    assert "4 enhancing tumor" in str(caught.value.remedy)


def test_without_options_the_labels_stay() -> None:
    assert resolve_labels(GLIOMA) is GLIOMA


def test_gaps_and_the_ignore_value() -> None:
    classes = tuple(LabelClass(name=n, value=v) for n, v in (("background", 0), ("a", 2), ("b", 7)))
    labels = with_regions(LabelSet(classes=classes, ignore=9), {"all": (2, 7), "b": (7,)})
    assert labels.region_order == (2, 7)
    assert labels.to_indices(np.array([2, 7, 9])).tolist() == [1, 2, 255]
    with pytest.raises(OptionError, match="not declared: 9"):
        with_regions(LabelSet(classes=classes, ignore=9), {"all": (2, 7, 9)})
