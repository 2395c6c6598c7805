"""Validation during training: sweep held-out cases on the prepared grid; Dice of each structure, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from decathlete.core.choices import Layout
from decathlete.core.labels import IGNORE_INDEX, LabelSet
from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.windows.sweep import predict_logits
from decathlete.networks.outputs import predicted_structures, true_structures
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PreparedStore, StoredCase
from decathlete.training.distributed import collectives as ranks


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One validated case.

    Attributes:
        dice: of each structure; ``None`` where prediction and truth are both empty.
        loss: mean over the voxels that have a truth.
    """

    dice: tuple[float | None, ...]
    loss: float


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Means over cases.

    Attributes:
        dice: structure -> mean over the cases that have it in prediction or truth; ``None`` if none has.
        mean_dice: over the structures that have a Dice.
        loss: mean over the cases whose loss is finite.
    """

    dice: dict[str, float | None]
    mean_dice: float | None
    loss: float | None

    @classmethod
    def mean(cls, results: Sequence[CaseResult], names: Sequence[str], device: torch.device) -> Self:
        """Return the means over the cases of all processes, in every process."""
        sums: list[float] = []
        for index in range(len(names)):
            values = [v for r in results if (v := r.dice[index]) is not None]
            sums += [sum(values), len(values)]
        finite = [r.loss for r in results if r.loss == r.loss]
        *sums, loss_sum, loss_count = ranks.all_reduce_sum([*sums, sum(finite), len(finite)], device)
        pairs = zip(sums[::2], sums[1::2], strict=True)
        dice = {name: total / n if n else None for name, (total, n) in zip(names, pairs, strict=True)}
        known = [v for v in dice.values() if v is not None]
        return cls(
            dice=dice,
            mean_dice=sum(known) / len(known) if known else None,
            loss=loss_sum / loss_count if loss_count else None,
        )


class Validator:
    """Sweeps the averaged network over held-out cases.

    Args:
        loss: of logits (B, K, *spatial) and labels (B, *spatial).
        window: how the network is moved over a case.
        precision: that the network is computed in.
        layout: of its feature maps in memory.
    """

    def __init__(
        self,
        store: PreparedStore,
        plan: Plan,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        window: SlidingWindow,
        precision: str,
        layout: Layout,
        device: torch.device,
    ) -> None:
        self.store = store
        self.plan = plan
        self.loss = loss
        self.window = window
        self.precision = precision
        self.layout = layout
        self.device = device

    @property
    def names(self) -> tuple[str, ...]:
        """The structures that have a Dice."""
        return tuple(structure.name for structure in self.plan.labels.structures)

    def run(
        self, network: nn.Module, case_ids: Sequence[str], *, stop: Callable[[], bool] = lambda: False
    ) -> Validation | None:
        """Return the means over ``case_ids``, distributed over the processes; ``None`` if any process stopped.

        Args:
            stop: called before each case; returns whether to stop.
        """
        results, stopped = [], False
        for case_id in case_ids[ranks.rank() :: ranks.world_size()]:
            stopped = stop()
            if stopped:
                break
            results.append(self.case(network, case_id))
        (anyone_stopped,) = ranks.all_reduce_max([float(stopped)], self.device)
        return None if anyone_stopped else Validation.mean(results, self.names, self.device)

    @torch.inference_mode()
    def case(self, network: nn.Module, case_id: str) -> CaseResult:
        """Validate one case."""
        image_CZYX, label_ZYX = _read(self.store.case(case_id))
        logits_KZYX = predict_logits(
            network,
            image_CZYX,
            plan=self.plan,
            window=self.window,
            mirror_axes=self.plan.mirrored_axes,
            precision=self.precision,
            layout=self.layout,
        )
        label_ZYX = label_ZYX.to(logits_KZYX.device)
        if self.plan.dims == 3:
            loss = self.loss(logits_KZYX[None], label_ZYX[None])
        else:  # slices are the batch
            loss = self.loss(logits_KZYX.transpose(0, 1), label_ZYX)
        return CaseResult(dice=dice_per_structure(logits_KZYX, label_ZYX, self.plan.labels), loss=float(loss))


def _read(case: StoredCase) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(case.read_image()), torch.from_numpy(case.read_label())


def dice_per_structure(logits_KZYX: Tensor, label_ZYX: Tensor, labels: LabelSet) -> tuple[float | None, ...]:
    """Return the Dice of each structure over the voxels that have a truth.

    ``None``: it is in neither mask, or it was not annotated.
    """
    counts = voxel_counts(logits_KZYX, label_ZYX, labels).tolist()  # one wait for the device, for all structures
    scored = _annotated(label_ZYX, labels)
    return tuple(
        2 * both / (predicted + true) if is_scored and predicted + true else None
        for is_scored, (both, predicted, true) in zip(scored, counts, strict=True)
    )


def _annotated(label_ZYX: Tensor, labels: LabelSet) -> tuple[bool, ...]:
    """Return which structures were annotated in a case: its background has an index that says so."""
    for members in labels.unannotated:
        if (label_ZYX == labels.unannotated_index(members)).any():
            return labels.annotated_structures(members)
    return (True,) * len(labels.structures)


def voxel_counts(logits_KZYX: Tensor, label_ZYX: Tensor, labels: LabelSet) -> Tensor:
    """Return counts of voxels, (structures, 3): in both masks, in the predicted mask, in the true mask."""
    known_ZYX = label_ZYX != IGNORE_INDEX
    pairs = zip(predicted_structures(logits_KZYX, labels), true_structures(label_ZYX, labels), strict=True)
    return torch.stack([_counts(predicted & known_ZYX, true & known_ZYX) for predicted, true in pairs])


def _counts(prediction_ZYX: Tensor, truth_ZYX: Tensor) -> Tensor:
    return torch.stack([(prediction_ZYX & truth_ZYX).sum(), prediction_ZYX.sum(), truth_ZYX.sum()])


def choose_evenly(case_ids: Sequence[str], n: int) -> tuple[str, ...]:
    """Return ``n`` of the cases (all, if there are fewer), evenly spaced among their sorted ids: always the same."""
    ordered = sorted(case_ids)
    if n >= len(ordered):
        return tuple(ordered)
    edges = [round(i * len(ordered) / n) for i in range(n + 1)] if n else [0]
    return tuple(ordered[(a + b - 1) // 2] for a, b in pairwise(edges))
