"""The loss against a plain computation in numpy, its gradient, its special cases, and across processes."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet, Region
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec
from decathlete.training.objective.deep_supervision import DeepSupervision, supervision_weights
from decathlete.training.objective.losses import LOSSES, LossContext

TWO = LabelSet.from_names(["a", "b"])
SPARSE = LabelSet(classes=TWO.classes, ignore=7)
# Values with a gap, so that a mistaken use of values for indices shows.
NESTED = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for n, v in (("background", 0), ("rim", 2), ("core", 5))),
    regions=(Region(name="whole", values=(2, 5)), Region(name="core", values=(5,))),
    region_order=(2, 5),
    ignore=9,
)


def segmentation_loss(labels: LabelSet, heads: int, *, batch_dice=True, term="cross_entropy") -> DeepSupervision:
    settings = LOSSES.settings({"name": term, "batch_dice": batch_dice})
    return DeepSupervision(LOSSES.build(settings, LossContext(labels=labels)), heads)


def make_batch(
    labels: LabelSet, *, shape=(3, 4, 6, 4), heads=1, seed=0, ignored=False
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Random logits (double) of each head and a random label."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, labels.n_classes, shape, generator=generator, dtype=torch.uint8)
    if ignored:
        label[torch.rand(shape, generator=generator) < 0.3] = IGNORE_INDEX
    sizes = [(shape[0], labels.n_outputs, *(n // 2**i for n in shape[1:])) for i in range(heads)]
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes), label


def plain_terms(labels: LabelSet, logits: np.ndarray, label: np.ndarray, *, batch_dice=True, gamma=0.0):
    """1 - Dice, and cross entropy, voxel by voxel and class by class."""
    samples, outputs = logits.shape[:2]
    points = [(b, *index) for b in range(samples) for index in np.ndindex(label.shape[1:])]
    points = [p for p in points if label[p] != IGNORE_INDEX]
    true = {(p, k): 0.0 for p in points for k in range(outputs)}
    probability, entropy = {}, []
    for p in points:
        z = logits[(p[0], slice(None), *p[1:])]
        if labels.regions:
            value = labels.values[label[p]]
            terms = []
            for k, region in enumerate(labels.regions):
                probability[p, k] = 1 / (1 + np.exp(-z[k]))
                true[p, k] = float(value in region.values)
                right = probability[p, k] if true[p, k] else 1 - probability[p, k]
                terms.append(-((1 - right) ** gamma) * np.log(right))
            entropy.append(np.mean(terms))
        else:
            softmax = np.exp(z) / np.exp(z).sum()
            for k in range(outputs):
                probability[p, k] = softmax[k]
            true[p, label[p]] = 1.0
            entropy.append(-((1 - softmax[label[p]]) ** gamma) * np.log(softmax[label[p]]))
    groups = [points] if batch_dice else [[p for p in points if p[0] == b] for b in range(samples)]
    counted = range(outputs) if labels.regions else range(1, outputs)
    scores = [
        (2 * sum(probability[p, k] * true[p, k] for p in group) + 1e-5)
        / (sum(probability[p, k] + true[p, k] for p in group) + 1e-5)
        for group in groups
        for k in counted
    ]
    return 1 - np.mean(scores), np.mean(entropy)


@pytest.mark.parametrize(("labels", "ignored"), [(TWO, False), (SPARSE, True), (NESTED, False), (NESTED, True)])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("term", ["cross_entropy", "focal"])
def test_it_equals_the_plain_computation(labels, ignored, batch_dice, term):
    (logits,), label = make_batch(labels, ignored=ignored)
    loss = segmentation_loss(labels, 1, batch_dice=batch_dice, term=term)
    found = loss.loss.terms(logits.float(), label)
    gamma = 2.0 if term == "focal" else 0.0
    dice, entropy = plain_terms(labels, logits.numpy(), label.numpy(), batch_dice=batch_dice, gamma=gamma)
    assert [term.item() for term in found] == pytest.approx([dice, entropy], abs=1e-5)
    assert loss((logits,), label).item() == pytest.approx(dice + entropy, abs=1e-5)


def test_two_dimensions():
    (logits,), label = make_batch(TWO, shape=(4, 6, 8))
    total = segmentation_loss(TWO, 1)(logits, label)
    assert total.item() == pytest.approx(sum(plain_terms(TWO, logits.numpy(), label.numpy())), abs=1e-5)


def test_deep_supervision_halves_the_weight_of_each_coarser_head():
    assert supervision_weights(3) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    outputs, label = make_batch(TWO, shape=(2, 4, 8, 4), heads=3)
    total = segmentation_loss(TWO, 3)(outputs, label).item()
    parts = [plain_terms(TWO, z.numpy(), label.numpy()[:, :: 2**i, :: 2**i, :: 2**i]) for i, z in enumerate(outputs)]
    assert total == pytest.approx(sum(w * sum(p) for w, p in zip((4 / 7, 2 / 7, 1 / 7), parts, strict=True)), abs=1e-5)


def test_an_axis_that_was_not_pooled_is_not_thinned():
    label = torch.randint(0, 3, (1, 3, 4, 4), dtype=torch.uint8)
    fine, coarse = torch.randn(1, 3, 3, 4, 4), torch.randn(1, 3, 3, 2, 2)
    total = segmentation_loss(TWO, 2)((fine, coarse), label)
    single = segmentation_loss(TWO, 1)
    expected = (2 * single(fine, label) + single(coarse, label[:, :, ::2, ::2])) / 3
    assert total.item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_number_of_heads_must_be_as_announced():
    outputs, label = make_batch(TWO, shape=(2, 4, 8, 4), heads=3)
    with pytest.raises(ValueError, match="zip"):
        segmentation_loss(TWO, 2)(outputs, label)


@pytest.mark.parametrize("labels", [SPARSE, NESTED])
@pytest.mark.parametrize("term", ["cross_entropy", "focal"])
def test_the_gradient_is_that_of_finite_differences(labels, term):
    (logits,), label = make_batch(labels, shape=(2, 2, 4), ignored=True)
    loss = segmentation_loss(labels, 1, term=term)
    logits.requires_grad_()
    loss(logits, label).backward()
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        direction = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
        step = 1e-2  # the loss is float32: smaller steps drown in rounding, the third order is below 1e-4
        with torch.no_grad():
            ahead, behind = (loss(logits + s * direction, label).item() for s in (step, -step))
        assert (logits.grad * direction).sum().item() == pytest.approx((ahead - behind) / (2 * step), abs=5e-4)


@pytest.mark.parametrize("labels", [SPARSE, NESTED])
def test_ignored_voxels_have_no_gradient(labels):
    (logits,), label = make_batch(labels, ignored=True)
    logits.requires_grad_()
    segmentation_loss(labels, 1)(logits, label).backward()
    gradient = logits.grad.abs().sum(dim=1)
    assert (gradient[label == IGNORE_INDEX] == 0).all()
    assert (gradient[label != IGNORE_INDEX] > 0).all()


@pytest.mark.parametrize("labels", [SPARSE, NESTED])
def test_a_batch_without_any_truth_has_a_loss_without_gradient(labels):
    (logits,), label = make_batch(labels)
    logits.requires_grad_()
    total = segmentation_loss(labels, 1)(logits, torch.full_like(label, IGNORE_INDEX))
    total.backward()
    assert total.isfinite()
    assert (logits.grad == 0).all()


def test_a_class_absent_from_the_batch_pulls_at_nothing():
    logits = torch.zeros(2, 3, 8, 8, 8, requires_grad=True)
    label = torch.zeros(2, 8, 8, 8, dtype=torch.uint8)
    loss = segmentation_loss(TWO, 1)
    dice_gradient = torch.autograd.grad(
        loss(logits, label) - nn.functional.cross_entropy(logits, label.long()), logits
    )[0]
    assert dice_gradient.abs().sum() < 1e-5
    assert loss.loss.terms(logits, label)[0].item() == pytest.approx(1, abs=1e-4)


def test_a_perfect_prediction_costs_nothing():
    label = torch.randint(0, 3, (2, 4, 4, 4), dtype=torch.uint8)
    logits = 100 * nn.functional.one_hot(label.long(), 3).movedim(-1, 1).float()
    assert segmentation_loss(TWO, 1)(logits, label).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("labels", [TWO, NESTED])
def test_extreme_logits_stay_finite(labels):
    (logits,), label = make_batch(labels)
    logits = (1e4 * logits).float().requires_grad_()
    for term in ("cross_entropy", "focal"):
        total = segmentation_loss(labels, 1, term=term)(logits, label)
        total.backward()
        assert total.isfinite()
        assert logits.grad.isfinite().all()


def test_under_autocast_it_computes_in_float32():
    (logits,), label = make_batch(TWO)
    half = logits.bfloat16()
    expected = segmentation_loss(TWO, 1)(half.float(), label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = segmentation_loss(TWO, 1)(half, label)
    assert total.dtype == torch.float32
    assert total.item() == expected.item()


def test_it_has_no_state_to_save():
    assert segmentation_loss(NESTED, 1).state_dict() == {}


# Two processes with a half of the batch each against one with the whole.

SPEC = UNetSpec(
    dims=3,
    in_channels=1,
    out_channels=3,
    kernels=((3, 3, 3),) * 3,
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    features=(4, 8, 8),
    encoder_convs=(1, 1, 1),
    decoder_convs=(1, 1),
    heads=2,
)


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of four patches; class 2 lies in the first half alone, and ignored voxels nearly all too."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(4, 1, 8, 8, 8, generator=generator)
    label = torch.randint(0, 3, (4, 8, 8, 8), generator=generator, dtype=torch.uint8)
    label[2:][label[2:] == 2] = 0
    label[0][torch.rand(8, 8, 8, generator=generator) < 0.6] = IGNORE_INDEX
    label[3, 0, 0, :3] = IGNORE_INDEX
    return image, label


def gradients(network: nn.Module, image: torch.Tensor, label: torch.Tensor) -> list[torch.Tensor]:
    segmentation_loss(SPARSE, 2)(network(image), label).backward()
    return [p.grad for p in network.parameters()]


LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)


def train_half(rank: int, folder: Path) -> None:
    """One process: the gradients of its half, for each layout; rank 0 saves what DDP made of both."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    image, label = (whole.split(2)[rank] for whole in halves())
    for number, layout in enumerate(LAYOUTS):
        network = build_network(SPEC, seed=0)
        network.set_layout(layout)
        found = gradients(nn.parallel.DistributedDataParallel(network), image, label)
        if rank == 0:
            torch.save([g.contiguous() for g in found], folder / f"gradients{number}.pt")
    if rank == 0:
        with torch.no_grad():  # one rank alone, as in validation: must not wait for the other
            segmentation_loss(SPARSE, 2)(network(image), label)
    distributed.barrier()
    distributed.destroy_process_group()


def test_the_mean_of_two_ranks_gradients_is_that_of_the_double_batch(tmp_path):
    torch.multiprocessing.spawn(train_half, args=(tmp_path,), nprocs=2)
    network = build_network(SPEC, seed=0)
    expected = gradients(copy.deepcopy(network), *halves())
    for number in range(len(LAYOUTS)):
        found = torch.load(tmp_path / f"gradients{number}.pt", weights_only=True)
        for (name, _), a, b in zip(network.named_parameters(), found, expected, strict=True):
            assert torch.allclose(a, b, atol=1e-6, rtol=1e-4), name
    each = zip(*(whole.split(2) for whole in halves()), strict=True)
    (sum(segmentation_loss(SPARSE, 2)(network(image), label) for image, label in each) / 2).backward()
    apart = [(p.grad - e).abs().max() for p, e in zip(network.parameters(), expected, strict=True)]
    assert max(apart) > 1e-3  # what would be found without sums over ranks: this test can tell
