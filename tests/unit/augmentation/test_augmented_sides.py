"""Augmentation of mirror pairs: in every patch of the default augmentation, labels agree with the sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from decathlete.augmentation.batch import collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.core.labels import LabelSet
from decathlete.planning.network_spec import Axes
from factories import make_test_plan

LEFT, RIGHT = 1, 2
LABELS = LabelSet.from_names(["left kidney", "right kidney"])
N_PATCHES = 200


def two_sides(size: Axes) -> NDArray[np.uint8]:
    """A disc on each side of the centre: which is the left one is known by its position alone."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in size[-2:])
    label_YX = np.zeros(size[-2:], np.uint8)
    for value, centre in ((LEFT, -8), (RIGHT, 8)):
        label_YX[(y[:, None] ** 2 + (x - centre) ** 2) < 4**2] = value
    return np.broadcast_to(label_YX, size).copy()


def share_of_wrong_sides(config: AugmentationConfig, patch_size: Axes) -> float:
    """Return the share of augmented patches in which the structure that is labelled left is not on the left."""
    plan = make_test_plan(len(patch_size), labels=LABELS, mirror_pairs=(("left kidney", "right kidney"),))
    augmenter = Augmenter(config, patch_size=patch_size, seed=5, side_swap=plan.side_swap)
    draws = [augmenter.draw(0, index) for index in range(N_PATCHES)]
    cut = []
    for draw in draws:
        label = two_sides(draw.size)
        cut.append(augmenter.swap_sides((label > 0).astype(np.float32)[None], label, draw))
    images, labels = zip(*cut, strict=True)
    batch = collate(0, range(N_PATCHES), draws, ["case"] * N_PATCHES, images, labels)
    _, label_BZYX = augmenter(batch, torch.device("cpu"))
    x_left, x_right = ([float((label == v).nonzero()[:, -1].float().mean()) for label in label_BZYX] for v in (1, 2))
    return float(np.mean([not left < right for left, right in zip(x_left, x_right, strict=True)]))


@pytest.mark.parametrize("policy", ["standard", "heavy"])
@pytest.mark.parametrize("patch_size", [(32, 32), (4, 32, 32)], ids=["2D", "in plane"])
def test_labels_agree_with_the_sides(policy: str, patch_size: Axes) -> None:
    assert share_of_wrong_sides(AugmentationConfig(policy), patch_size) == 0


def test_a_larger_angle_that_the_user_sets_confuses_the_sides() -> None:
    half_turns = AugmentationConfig({"rotation": {"degrees": 180.0}})
    assert share_of_wrong_sides(half_turns, (32, 32)) > 0.05
