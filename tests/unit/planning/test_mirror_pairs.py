"""Mirror pairs: found by name, parsed, checked, and what a flip does to labels and outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from decathlete.augmentation.batch import SpatialParams
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.core.labels import IGNORE_INDEX, LabelSet, Region
from decathlete.errors import OptionError
from decathlete.inference.windows.flips import mean_over_flips
from decathlete.planning.mirror_pairs import (
    SideSwap,
    find_mirror_pairs,
    parse_mirror_pairs,
    with_swapped_annotations,
)
from factories import make_test_network, make_test_plan

KIDNEYS = LabelSet.from_names(["left kidney", "spleen", "right kidney"])
PAIR = (("left kidney", "right kidney"),)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left kidney", "right kidney"], [("left kidney", "right kidney")]),
        (["kidney_right", "kidney_left"], [("kidney_left", "kidney_right")]),
        (["Hippocampus_L", "Hippocampus_R"], [("Hippocampus_L", "Hippocampus_R")]),
        (["LeftLung", "RightLung"], [("LeftLung", "RightLung")]),
        (["Niere links", "Niere rechts"], [("Niere links", "Niere rechts")]),
        (["rein gauche", "rein droit"], [("rein gauche", "rein droit")]),
        (["ctx-lh-insula", "ctx-rh-insula"], [("ctx-lh-insula", "ctx-rh-insula")]),
        (
            ["left lateral ventricle", "right lateral ventricle"],
            [("left lateral ventricle", "right lateral ventricle")],
        ),
        (["left ventricle", "right ventricle"], []),  # of the heart: not mirror images of each other
        (["heart_atrium_left", "heart_atrium_right"], []),
        (["left kidney", "Kidney (R)"], [("left kidney", "Kidney (R)")]),
        (["left kidney", "right lung"], []),
        (["left kidney", "kidney"], []),
        (["kidney 1 left", "kidney 2 right"], []),
        (["left kidney", "Left_Kidney", "right kidney"], []),  # two on one side
    ],
)
def test_pairs_are_found_by_the_side_in_the_name(names: list[str], pairs: list[tuple[str, str]]) -> None:
    assert list(find_mirror_pairs(LabelSet.from_names(names))) == pairs


def test_pairs_are_parsed_from_names_and_values() -> None:
    assert parse_mirror_pairs("left kidney = right kidney", KIDNEYS) == PAIR
    assert parse_mirror_pairs("1=3;", KIDNEYS) == PAIR
    assert parse_mirror_pairs("none", KIDNEYS) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("left kidney", "'left kidney' is not a pair"),
        ("left kidney=liver", "class 'liver' is not declared"),
        ("1=3;1=2", "class 'left kidney' is 2 times in the pairs"),
        ("1=1", "class 'left kidney' is 2 times in the pairs"),
        (" ; ", "there is no pair"),
    ],
)
def test_pairs_that_do_not_fit_are_rejected_with_the_declared_classes(text: str, problem: str) -> None:
    with pytest.raises(OptionError, match=problem) as raised:
        parse_mirror_pairs(text, KIDNEYS)
    assert raised.value.code == "E-OPTION-MIRROR-PAIRS"
    assert "3 right kidney" in str(raised.value)


def test_regions_follow_their_classes_or_are_rejected() -> None:
    both = KIDNEYS.revised(
        regions=(Region(name="R", values=(3,)), Region(name="L", values=(1,)), Region(name="all", values=(1, 2, 3))),
        region_order=(3, 1, 2),
    )
    plan = make_test_plan(labels=both, mirror_pairs=PAIR)
    assert plan.side_swap is not None
    assert plan.side_swap.outputs == (1, 0, 2)
    alone = make_test_plan(labels=KIDNEYS, mirror_pairs=PAIR)
    assert alone.side_swap is not None
    assert alone.side_swap.outputs == (0, 3, 2, 1), "the background stays"
    one_sided = both.revised(regions=(Region(name="L", values=(1,)),), region_order=(1,))
    with pytest.raises(OptionError, match="region 'L' contains one side of a pair"):
        parse_mirror_pairs("1=3", one_sided)
    assert find_mirror_pairs(one_sided) == ()


def test_a_region_of_one_side_costs_only_its_own_pairs_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    names = ["left kidney", "right kidney", "left lung", "right lung", "left ear", "right ear"]
    labels = LabelSet.from_names(names).revised(
        regions=(
            Region(name="lungs", values=(3, 4)),
            Region(name="L head", values=(1, 5)),
            Region(name="R head", values=(6,)),
        ),
        region_order=(3, 1, 6),
    )
    assert find_mirror_pairs(labels) == (("left lung", "right lung"),)
    assert find_mirror_pairs(labels) == find_mirror_pairs(labels), "said once"
    (warning,) = caplog.messages
    assert warning.startswith("no mirror pairs: left kidney and right kidney, left ear and right ear")
    assert "L head, R head" in warning
    with pytest.raises(OptionError, match="region 'L head' contains one side"):
        parse_mirror_pairs("1=2;3=4", labels)


@pytest.mark.parametrize(
    ("dims", "axis_order", "axis"),
    [
        (3, (0, 1, 2), 2),
        (3, (2, 0, 1), 0),
        (2, (0, 1, 2), 1),
        (2, (1, 0, 2), 1),
        (2, (1, 2, 0), 0),
        (2, (2, 0, 1), None),
    ],
)
def test_the_axis_from_left_to_right_follows_the_order_of_axes(
    dims: int, axis_order: tuple[int, ...], axis: int | None
) -> None:
    swap = make_test_plan(dims, labels=KIDNEYS, axis_order=axis_order, mirror_pairs=PAIR).side_swap
    assert (None if swap is None else swap.axis) == axis


def test_a_plan_without_pairs_keeps_its_digest_and_stored_axes_have_no_pairs() -> None:
    plain, paired = make_test_plan(labels=KIDNEYS), make_test_plan(labels=KIDNEYS, mirror_pairs=PAIR)
    assert plain.side_swap is None
    assert plain.digest != paired.digest
    assert "mirror_pairs" not in plain.model_dump(mode="json")  # as older releases wrote plans
    assert type(paired).model_validate(paired.model_dump(mode="json")) == paired
    stored = {name: value for name, value in plain.model_dump().items() if name != "mirror_pairs"}
    assert type(plain).model_validate(stored).digest == plain.digest
    with pytest.raises(ValidationError, match="left and right are unknown in stored axes"):
        make_test_plan(labels=KIDNEYS, orientation="stored", mirror_pairs=PAIR)


def test_labels_change_sides_only_in_flips_from_left_to_right() -> None:
    swap = make_test_plan(labels=KIDNEYS, mirror_pairs=PAIR).side_swap
    augmenter = Augmenter(AugmentationConfig.default(3), patch_size=(4, 4, 4), seed=1, side_swap=swap)
    label = np.array([0, 1, 2, 3, IGNORE_INDEX], np.uint8)

    def swapped(*flips: bool) -> list[int]:
        image = np.zeros((1, 5), np.float32)
        return augmenter.swap_sides(image, label, SpatialParams(size=(4, 4, 4), flips=flips))[1].tolist()

    assert swapped(True, True, False) == [0, 1, 2, 3, IGNORE_INDEX]
    assert swapped(False, False, True) == swapped(True, False, True) == [0, 3, 2, 1, IGNORE_INDEX]


@pytest.mark.parametrize(
    ("unannotated", "mirrored"),
    [((3,), (1,)), ((1, 2), (2, 3)), ((1, 3), (1, 3)), ((2,), (2,)), ((), ())],
    ids=["right", "left and spleen", "both kidneys", "spleen", "none"],
)
def test_in_a_mirrored_patch_the_classes_of_the_other_side_are_unannotated(
    unannotated: tuple[int, ...], mirrored: tuple[int, ...]
) -> None:
    given = KIDNEYS.revised(ignore=9, unannotated=((3,), (1, 2), (1, 3), (2,)))
    labels = with_swapped_annotations(given, PAIR)
    assert labels.unannotated == (*given.unannotated, (1,), (2, 3)), "the indices of prepared label maps stay"
    swap = make_test_plan(labels=labels, mirror_pairs=PAIR).side_swap
    assert swap is not None
    assert swap.indices[249:] == (253, 254, 251, 252, 249, 250, IGNORE_INDEX)
    augmenter = Augmenter(AugmentationConfig.default(3), patch_size=(4, 4, 4), seed=1, side_swap=swap)
    label = labels.to_indices(np.array([0, 1, 2, 3, 9]), unannotated=unannotated)
    draw = SpatialParams(size=(4, 4, 4), flips=(False, False, True))
    _, flipped = augmenter.swap_sides(np.zeros((1, 5), np.float32), label, draw)
    expected = labels.to_indices(np.array([0, 3, 2, 1, 9]), unannotated=mirrored)
    assert flipped.tolist() == expected.tolist()


def test_a_plan_needs_an_index_for_each_mirrored_set_of_annotated_classes() -> None:
    labels = KIDNEYS.revised(unannotated=((3,),))
    with pytest.raises(ValidationError, match=r"unannotated needs the sets of classes of mirrored patches.*\(1,\)"):
        make_test_plan(labels=labels, mirror_pairs=PAIR)
    assert make_test_plan(labels=with_swapped_annotations(labels, PAIR), mirror_pairs=PAIR).side_swap is not None


def test_outputs_of_flipped_windows_are_swapped_back() -> None:
    """A network that knows sides by position alone: left is where x is low, whatever the image."""
    swap = SideSwap(axis=1, indices=tuple(range(256)), outputs=(0, 2, 1))

    def network(windows: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(windows), 3, *windows.shape[2:])
        half = windows.shape[-1] // 2
        logits[:, 1, :, :half], logits[:, 2, :, half:] = 1.0, 1.0
        return logits

    window = torch.zeros(1, 1, 4, 6)
    alone = network(window)
    torch.testing.assert_close(mean_over_flips([network], window, (0, 1), side_swap=swap), alone)
    confused = mean_over_flips([network], window, (0, 1))
    assert torch.equal(confused[:, 1], confused[:, 2])


REGIONS = LabelSet.from_names(["left kidney", "spleen", "right kidney"]).revised(
    regions=(
        Region(name="left", values=(1, 2)),
        Region(name="right", values=(2, 3)),
        Region(name="all", values=(1, 2, 3)),
    ),
    region_order=(1, 3, 2),
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(KIDNEYS, (0, 1, 4, 3, 2)), (REGIONS, (0, 1, 3, 2, 4))],
    ids=["classes", "regions"],
)
def test_masks_of_the_previous_stage_change_sides_too(labels: LabelSet, expected: tuple[int, ...]) -> None:
    changes = {"labels": labels, "mirror_pairs": PAIR, "foreground_channel": True}
    network = make_test_network(in_channels=5, out_channels=labels.n_outputs)
    cascade = make_test_plan(**changes, previous_stage="3d_lowres", network=network)
    swap = cascade.side_swap
    assert swap is not None
    assert swap.inputs == expected, "image and foreground stay, then one mask for each structure"
    augmenter = Augmenter(AugmentationConfig.default(3), patch_size=(4, 4, 4), seed=1, side_swap=swap)
    image, label = np.arange(5, dtype=np.float32)[:, None], np.zeros(1, np.uint8)

    def swapped(*flips: bool) -> tuple[int, ...]:
        flipped, _ = augmenter.swap_sides(image, label, SpatialParams(size=(4, 4, 4), flips=flips))
        return tuple(flipped[:, 0].astype(int))

    assert swapped(True, True, False) == (0, 1, 2, 3, 4)
    assert swapped(False, False, True) == expected
    alone = make_test_plan(labels=labels, mirror_pairs=PAIR, network=make_test_network(out_channels=labels.n_outputs))
    assert alone.side_swap is not None
    assert not alone.side_swap.swaps_inputs


def test_a_flipped_window_shows_the_masks_of_the_other_side() -> None:
    """A network that copies the masks of the previous stage: flips must not change what it says."""
    swap = SideSwap(axis=1, indices=tuple(range(256)), outputs=(0, 2, 1), inputs=(0, 2, 1))

    def network(windows: torch.Tensor) -> torch.Tensor:
        return windows.clone()

    window = torch.rand(1, 3, 4, 6)
    torch.testing.assert_close(mean_over_flips([network], window, (0, 1), side_swap=swap), window)
    kept = window.clone()
    mean_over_flips([network], window, (1,), side_swap=swap)
    assert torch.equal(window, kept)
