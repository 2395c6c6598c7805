"""Activation, masks of structures and label values, for classes and for regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet, Region
from decathlete.networks.outputs import (
    activate,
    background_probability,
    decide_logits,
    decide_probabilities,
    file_dtype,
    predicted_structures,
    true_structures,
)

CLASSES = LabelSet(classes=tuple(LabelClass(name=f"c{v}", value=v) for v in (0, 2, 7)))
REGIONS = LabelSet(
    classes=tuple(LabelClass(name=f"c{v}", value=v) for v in (0, 1, 2, 4)),
    regions=(
        Region(name="whole", values=(1, 2, 4)),
        Region(name="core", values=(2, 4)),
        Region(name="rim", values=(4,)),
    ),
    region_order=(1, 2, 300),
)


def logits_of(labels: LabelSet) -> torch.Tensor:
    return torch.randn(labels.n_outputs, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def test_classes_share_one_probability_and_regions_have_one_each():
    assert activate(logits_of(CLASSES), CLASSES).sum(0) == pytest.approx(torch.ones(3, 4, 5))
    torch.testing.assert_close(activate(logits_of(REGIONS), REGIONS), 1 / (1 + (-logits_of(REGIONS)).exp()))
    assert [background_probability(k, CLASSES) for k in range(3)] == [1, 0, 0]
    assert [background_probability(k, REGIONS) for k in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_the_decision_on_logits_and_on_their_probabilities_is_the_same(labels):
    logits = logits_of(labels)
    decided = decide_logits(logits, labels)
    assert np.array_equal(decided, decide_probabilities(activate(logits, labels), labels))
    assert decided.dtype == file_dtype(labels)
    masks = [mask.numpy() for mask in predicted_structures(logits, labels)]
    expected = np.zeros((3, 4, 5), int)
    for mask, value in zip(masks, labels.region_order or labels.values[1:], strict=True):
        expected[mask] = value
    assert np.array_equal(decided, expected)


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_true_masks_hold_the_class_indices_of_each_structure(labels):
    indices = torch.tensor([0, 1, 2, labels.n_classes - 1, IGNORE_INDEX], dtype=torch.uint8)
    masks = list(true_structures(indices, labels))
    for mask, members in zip(masks, labels.structure_indices, strict=True):
        assert mask.tolist() == [int(index) in members for index in indices]


def test_the_file_type_holds_every_value():
    assert file_dtype(CLASSES) == np.uint8
    assert file_dtype(REGIONS) == np.uint16
    assert np.iinfo(file_dtype(CLASSES.revised(ignore=-1))).min <= -1
