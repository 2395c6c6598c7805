"""Losses by name against their formulas, computed otherwise; combined with their weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from decathlete.augmentation.config import AugmentationConfig
from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet, Region
from decathlete.errors import OptionError
from decathlete.training.component_origins import training_origins
from decathlete.training.config import TrainConfig
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.losses.skeleton_recall import tubed_skeleton

CLASSES = LabelSet.from_names(["a", "b"])
SPARSE = LabelSet(classes=CLASSES.classes, ignore=7)
REGIONS = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for n, v in (("background", 0), ("rim", 1), ("core", 2))),
    regions=(Region(name="whole", values=(1, 2)), Region(name="core", values=(2,))),
    region_order=(1, 2),
)


def loss(name: str, labels: LabelSet = CLASSES, **settings: object) -> torch.nn.Module:
    return LOSSES.build(LOSSES.settings({"name": name, **settings}), LossContext(labels=labels))  # type: ignore[return-value]


def batch(labels: LabelSet = CLASSES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 6, 7), generator=generator, dtype=torch.uint8)
    return torch.randn((2, labels.n_outputs, 6, 7), generator=generator), label


def sums(logits: Tensor, label: Tensor) -> list[tuple[float, float, float]]:
    """Shared, predicted and true sums of each class, the background first."""
    p = torch.softmax(logits, 1)
    return [
        (float((p[:, c] * (label == c)).sum()), float(p[:, c].sum()), float((label == c).sum()))
        for c in range(logits.shape[1])
    ]


def test_tversky_and_focal_tversky() -> None:
    logits, label = batch()
    index = [s / (s + 0.2 * (p - s) + 0.9 * (t - s)) for s, p, t in sums(logits, label)[1:]]
    assert float(loss("tversky", alpha=0.2, beta=0.9)(logits, label)) == pytest.approx(1 - np.mean(index), rel=1e-4)
    focal = np.mean([(1 - i) ** 0.5 for i in index])
    assert float(loss("focal_tversky", alpha=0.2, beta=0.9, gamma=2)(logits, label)) == pytest.approx(focal, rel=1e-4)


def test_tversky_with_equal_halves_is_dice() -> None:
    logits, label = batch()
    halves = loss("tversky", alpha=0.5, beta=0.5, smooth=1e-9)(logits, label)
    torch.testing.assert_close(halves, loss("dice", smooth=1e-9)(logits, label), rtol=1e-5, atol=1e-6)


def test_generalized_dice_weighs_by_inverse_squared_volumes() -> None:
    logits, label = batch()
    found = sums(logits, label)
    shared = sum(s / t**2 for s, _, t in found)
    total = sum((p + t) / t**2 for _, p, t in found)
    assert float(loss("generalized_dice")(logits, label)) == pytest.approx(1 - 2 * shared / total, rel=1e-4)


@pytest.mark.parametrize("labels", [CLASSES, SPARSE], ids=["whole", "ignore"])
def test_topk_is_the_mean_of_the_hardest_voxels(labels: LabelSet) -> None:
    logits, label = batch()
    if labels.ignore is not None:
        label[:, :2] = IGNORE_INDEX
    entropy = functional.cross_entropy(logits, label.long(), ignore_index=IGNORE_INDEX, reduction="none")
    known = np.sort(entropy[label != IGNORE_INDEX].numpy())[::-1]
    expected = known[: int(np.ceil(0.25 * known.size))].mean()
    assert float(loss("topk", labels, share=0.25)(logits, label)) == pytest.approx(expected, rel=1e-5)
    everything = loss("topk", labels, share=1.0)(logits, label)
    assert float(everything) == pytest.approx(known.mean(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0)])
def test_weighted_cross_entropy_is_that_of_torch(smoothing: float, weights: tuple[float, ...] | None) -> None:
    logits, label = batch()
    label[0, 0] = IGNORE_INDEX
    expected = functional.cross_entropy(
        logits,
        label.long(),
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE_INDEX,
        label_smoothing=smoothing,
    )
    ours = loss("weighted_cross_entropy", SPARSE, weights=weights, label_smoothing=smoothing)(logits, label)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_weights_of_regions_change_their_share() -> None:
    logits, label = batch(REGIONS)
    whole, core = (loss("weighted_cross_entropy", REGIONS, weights=w)(logits, label) for w in ((1, 0), (0, 1)))
    both = loss("weighted_cross_entropy", REGIONS, weights=(3, 1))(logits, label)
    torch.testing.assert_close(both, (3 * whole + core) / 4, rtol=1e-5, atol=1e-6)


def test_another_number_of_weights_is_refused() -> None:
    with pytest.raises(OptionError, match=r"2 numbers for 3 classes \(background, a, b\)"):
        loss("weighted_cross_entropy", weights=(1, 2))


def test_a_skeleton_is_thin_lies_inside_and_follows_the_structure() -> None:
    tube = torch.zeros((1, 1, 9, 40), dtype=torch.bool)
    tube[..., 2:7, 3:37] = True
    skeleton = tubed_skeleton(tube, 8, 0)[0, 0].bool().numpy()
    assert skeleton[4, 6:34].all()  # the whole axis
    assert skeleton.sum() < 0.4 * int(tube.sum())
    assert not (skeleton & ~tube[0, 0].numpy()).any()
    thick = tubed_skeleton(tube, 8, 1)[0, 0].bool().numpy()
    cross = ndimage.generate_binary_structure(2, 1)
    np.testing.assert_array_equal(thick, ndimage.binary_dilation(skeleton, cross) & tube[0, 0].numpy())


def test_a_break_costs_more_skeleton_than_dice() -> None:
    label = torch.zeros((1, 9, 40), dtype=torch.uint8)
    label[:, 4, 2:38] = 1
    broken, thin = label.clone(), label.clone()
    broken[:, :, 10:20] = 0
    logits = [functional.one_hot(x.long(), 3).movedim(-1, 1).float() * 20 - 10 for x in (label, broken, thin)]
    recall = loss("skeleton_recall")
    assert float(recall(logits[0], label)) < 0.01
    assert float(recall(logits[1], label)) == pytest.approx(0.5 * 10 / 36, abs=0.01)  # mean with the absent class


def test_combined_is_the_weighted_sum_with_own_settings() -> None:
    logits, label = batch()
    terms = [{"loss": "dice"}, {"loss": {"name": "topk", "share": 0.5}, "weight": 0.25}]
    config = TrainConfig(loss={"name": "combined", "terms": terms})  # type: ignore[arg-type]
    built = LOSSES.build(config.loss, LossContext(labels=CLASSES))
    expected = loss("dice")(logits, label) + 0.25 * loss("topk", share=0.5)(logits, label)
    torch.testing.assert_close(built(logits, label), expected)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="nonsense"):
        TrainConfig(loss={"name": "combined", "terms": [{"loss": "nonsense"}]})  # type: ignore[arg-type]


@pytest.mark.parametrize("dotted", [False, True])
def test_a_term_of_combined_may_be_a_module_and_class(
    dotted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an option, and as a file of options gives it: ``loss.terms``."""
    (tmp_path / "loose_loss.py").write_text(
        "from decathlete.training.objective.losses import LOSSES\n"
        "from decathlete.training.objective.losses.dice import DiceLoss\n"
        "@LOSSES.register('loose')\nclass Loose(DiceLoss):\n    'Dice.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "loose_loss", raising=False)
    terms = [{"loss": "dice"}, {"loss": "loose_loss:Loose", "weight": 0.5}, {"loss": {"name": "loose_loss:Loose"}}]
    with LOSSES.isolated():
        with pytest.raises(ValidationError, match="no loss called 'loose_loss:Loose'"):
            TrainConfig(loss={"name": "combined", "terms": terms})  # type: ignore[arg-type] # a file's words
        nested = {"name": "combined", "terms": terms}
        config = TrainConfig.make(**({"loss": "combined", "loss.terms": terms} if dotted else {"loss": nested}))
        assert [term["loss"]["name"] for term in config.loss.to_config()["terms"]] == ["dice", "loose", "loose"]
        origins = training_origins(config, AugmentationConfig.none())
        assert [o.name for o in origins if o.kind == "loss"] == ["combined", "dice", "loose"]
        assert [o.distribution for o in origins if o.name in ("dice", "loose")] == ["decathlete", None]


PARTIAL = CLASSES.revised(unannotated=((2,),))


@pytest.mark.parametrize("labels", [CLASSES, SPARSE, REGIONS, PARTIAL], ids=["classes", "ignore", "regions", "partial"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_focal_is_finite_with_its_gradient_where_the_network_is_certain(labels: LabelSet, gamma: float) -> None:
    logits, label = batch(labels)
    label[0][label[0] == 2] = labels.unannotated_index((2,)) if labels.unannotated else 2
    for scale in (1.0, 30.0, 1e4):
        scaled = (scale * logits).requires_grad_()
        value = loss("focal", labels, gamma=gamma)(scaled, label)
        value.backward()
        assert value.isfinite()
        assert scaled.grad is not None
        assert scaled.grad.isfinite().all()


SETS = LabelSet.from_names(["a", "b", "c"]).revised(ignore=7, unannotated=((2,), (1, 3), (1, 2, 3)))


def test_the_marginal_cross_entropy_is_that_of_each_set_of_classes_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (20 * torch.randn((2, 4, 6, 7), generator=generator, dtype=torch.float64)).requires_grad_()
    codes = torch.tensor([0, 1, 2, 3, *SETS.possible_indices, IGNORE_INDEX], dtype=torch.uint8)
    label = codes[torch.randint(0, len(codes), (2, 6, 7), generator=generator)]
    weight = torch.randn(label.shape, generator=generator, dtype=torch.float64)
    expected = torch.zeros_like(weight)
    for index, possible in ({index: (index,) for index in range(4)} | SETS.possible_indices).items():
        summed = logits.softmax(1)[:, possible].sum(1)
        expected = torch.where(label == index, -summed.log() * weight, expected)
    weight = weight * (label != IGNORE_INDEX)
    entropy = loss("topk", SETS).voxel_entropy(logits, label)  # type: ignore[operator]
    torch.testing.assert_close(entropy * weight, expected)
    found, reference = (torch.autograd.grad(total.sum(), logits)[0] for total in (entropy * weight, expected))
    torch.testing.assert_close(found, reference)


@pytest.mark.parametrize("name", ["cross_entropy", "topk"])
def test_more_sets_of_unannotated_classes_need_no_more_memory(name: str) -> None:
    """Each tensor that is kept for the backward pass counts once; views share it."""

    def saved_bytes(labels: LabelSet) -> int:
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        logits = torch.zeros((2, 4, 6, 7), requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss(name, labels)(logits, torch.zeros((2, 6, 7), dtype=torch.uint8))
        return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())

    assert saved_bytes(SETS) == saved_bytes(SETS.revised(unannotated=((2,),)))


@pytest.mark.parametrize("batch_dice", [True, False])
def test_without_smoothing_an_ignored_patch_has_a_finite_loss(batch_dice: bool) -> None:
    logits, label = batch(SPARSE)
    logits = logits.requires_grad_()
    label[0 if not batch_dice else slice(None)] = IGNORE_INDEX
    value = loss("cross_entropy", SPARSE, smooth=0, batch_dice=batch_dice)(logits, label)
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
