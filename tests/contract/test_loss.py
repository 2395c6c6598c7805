"""What every loss promises, built in or of a plug-in: finite, differentiable, right with ignored voxels and regions."""

from __future__ import annotations

import pytest
import torch

from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet, Region
from decathlete.training.config import TrainConfig
from decathlete.training.objective.deep_supervision import DeepSupervision
from decathlete.training.objective.losses import LOSSES, LossContext

CLASSES = LabelSet.from_names(["a", "b"])
SPARSE = LabelSet(classes=CLASSES.classes, ignore=7)
REGIONS = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for n, v in (("background", 0), ("rim", 2), ("core", 5))),
    regions=(Region(name="whole", values=(2, 5)), Region(name="core", values=(5,))),
    region_order=(2, 5),
    ignore=9,
)
LABELS = {"classes": CLASSES, "ignore": SPARSE, "regions": REGIONS}

pytestmark = pytest.mark.parametrize("name", LOSSES.names())


def loss_of(name: str, labels: LabelSet) -> DeepSupervision:
    return DeepSupervision(LOSSES.build(LOSSES.settings(name), LossContext(labels=labels)), heads=2)


def batch(labels: LabelSet, *, spatial: tuple[int, ...] = (4, 6, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, labels.n_classes, (2, *spatial), generator=generator, dtype=torch.uint8)
    return torch.randn((2, labels.n_outputs, *spatial), generator=generator).requires_grad_(), label


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("spatial", [(4, 6, 4), (6, 8)], ids=["3d", "2d"])
def test_it_is_a_finite_scalar_with_a_finite_gradient(name: str, kind: str, spatial: tuple[int, ...]) -> None:
    logits, label = batch(LABELS[kind], spatial=spatial)
    loss = loss_of(name, LABELS[kind])(logits, label)
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).any()


@pytest.mark.parametrize("kind", ["ignore", "regions"])
def test_ignored_voxels_have_neither_value_nor_gradient(name: str, kind: str) -> None:
    logits, label = batch(LABELS[kind])
    ignored = torch.rand(label.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    label[ignored] = IGNORE_INDEX
    loss = loss_of(name, LABELS[kind])
    value = loss(logits, label)
    value.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=1)[ignored] == 0).all()
    changed = torch.where(ignored.unsqueeze(1), logits.detach() + 3, logits.detach())
    assert loss(changed, label).item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("kind", LABELS)
def test_batches_without_foreground_or_truth_and_extreme_logits_stay_finite(name: str, kind: str) -> None:
    labels = LABELS[kind]
    logits, label = batch(labels)
    empty = torch.zeros_like(label)
    unknown = torch.full_like(label, IGNORE_INDEX) if labels.ignore is not None else empty
    for outputs, truth in ((logits, empty), (logits, unknown), (1e4 * logits, label)):
        (gradient,) = torch.autograd.grad(
            loss_of(name, labels)(outputs, truth), logits, allow_unused=True, materialize_grads=True
        )
        assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", LABELS)
def test_the_truth_itself_costs_less_than_anything_else(name: str, kind: str) -> None:
    labels = LABELS[kind]
    logits, label = batch(labels)
    value = torch.tensor(labels.values)[label.long()]
    sets = [r.values for r in labels.regions] or [(v,) for v in labels.values]
    right = torch.stack([torch.isin(value, torch.tensor(s)) for s in sets], dim=1).float() * 20 - 10
    loss = loss_of(name, labels)
    assert loss(right, label) < loss(logits, label)
    assert loss(right, label) < loss(-right, label)


def test_it_is_chosen_by_name_and_has_no_state(name: str) -> None:
    assert TrainConfig(loss=name).loss.component == name
    assert LOSSES.resolve(name).summary
    assert not loss_of(name, CLASSES).state_dict()


@pytest.mark.parametrize("kind", LABELS)
def test_a_loss_for_partial_labels_does_not_punish_what_was_not_annotated(name: str, kind: str) -> None:
    if not LOSSES.resolve(name).cls.supports_partial_labels:
        pytest.skip("rejected for partially annotated cases")
    labels = LABELS[kind]
    hidden = labels.classes[-1].value
    partial = labels.revised(unannotated=((hidden,),))
    logits, label = batch(labels)
    label[label == labels.n_classes - 1] = 0
    label[0][label[0] == 0] = partial.unannotated_index((hidden,))
    loss = loss_of(name, partial)
    value = loss(logits, label)
    value.backward()
    unknown = label[0] == partial.unannotated_index((hidden,))
    if labels.regions:  # the regions that contain the class get no gradient there
        assert logits.grad is not None
        assert (logits.grad[0][:, unknown] == 0).all()
        return
    # probability that moves from the background to the hidden class changes nothing
    with torch.no_grad():
        probability = logits.softmax(1)
        moved = probability.clone()
        moved[0, 0][unknown] = probability[0, 0][unknown] * 0.3
        moved[0, -1][unknown] += probability[0, 0][unknown] * 0.7
    assert loss(moved.log(), label).item() == pytest.approx(value.item(), rel=1e-5)
    assert loss_of(name, labels)(moved.log(), label.clamp(max=0)).item() != pytest.approx(value.item(), rel=1e-2)
