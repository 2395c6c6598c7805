"""Validation during training: sweep held-out cases on the prepared grid; Dice of each structure, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Self

import torch
from torch import Tensor, nn

from decathlete.core.choices import Layout
from decathlete.core.labels import IGNORE_INDEX, LabelSet
from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.windows.grid import count_windows
from decathlete.inference.windows.memory import default_sums_bytes
from decathlete.inference.windows.sweep import sweep
from decathlete.networks.outputs import predicted_structures, true_structures
from decathlete.planning.compute_budget import TRAINING_PASSES
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.distributed import collectives as ranks

PART_ELEMENTS = 1 << 26
"""Logits of a case that are compared with its labels at once, at most: 256 MiB. A loss needs about four times as
much."""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One validated case.

    Attributes:
        dice: of each structure; ``None`` where prediction and truth are both empty.
        loss: of the case; of a large one, the mean of its parts, weighted by their voxels that have a truth.
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
            stop: called before each case and between its slabs; returns whether to stop.
        """
        results, stopped = [], False
        for case_id in case_ids[ranks.rank() :: ranks.world_size()]:
            result = None if stop() else self.case(network, case_id, stop=stop)
            stopped = result is None
            if result is None:
                break
            results.append(result)
        (anyone_stopped,) = ranks.all_reduce_max([float(stopped)], self.device)
        return None if anyone_stopped else Validation.mean(results, self.names, self.device)

    def expected_seconds(self, case_id: str, *, step_s: float) -> float:
        """Return the expected seconds to validate a case.

        Args:
            step_s: duration of a training step, seconds.
        """
        n_windows = count_windows(self.store.case(case_id).shape, self.plan.patch_size, self.window.overlap)
        n_flips = 2 ** len(self.plan.mirrored_axes) if self.window.tta else 1
        return n_windows * n_flips * step_s / (TRAINING_PASSES * self.plan.batch_size)

    @torch.inference_mode()
    def case(self, network: nn.Module, case_id: str, *, stop: Callable[[], bool] = lambda: False) -> CaseResult | None:
        """Validate one case. Its logits are compared with the labels in parts and never held as a whole.

        Args:
            stop: called between slabs; returns whether to stop.

        Returns:
            The result; ``None`` if it was stopped.
        """
        stored = self.store.case(case_id)
        image_CZYX, label_ZYX = torch.from_numpy(stored.read_image()), torch.from_numpy(stored.read_label())
        slabs = sweep(
            [TorchEngine(network, precision=self.precision, layout=self.layout)],
            image_CZYX,
            plan=self.plan,
            window=self.window,
            mirror_axes=self.plan.mirrored_axes,
            sums_bytes=default_sums_bytes(self.device),
        )
        counts, losses, weights, first = [], [], [], 0
        for logits_KZYX in in_parts(_until(stop, slabs), PART_ELEMENTS):
            part_ZYX = label_ZYX[first : first + logits_KZYX.shape[1]].to(logits_KZYX.device)
            first += len(part_ZYX)
            counts.append(voxel_counts(logits_KZYX, part_ZYX, self.plan.labels))
            losses.append(self._loss(logits_KZYX, part_ZYX))
            weights.append(int((part_ZYX != IGNORE_INDEX).sum()))
        if first < len(label_ZYX):
            return None
        dice = dice_of_counts(torch.stack(counts).sum(dim=0), label_ZYX, self.plan.labels)
        return CaseResult(dice=dice, loss=_weighted_mean(losses, weights))

    def _loss(self, logits_KZYX: Tensor, label_ZYX: Tensor) -> float:
        if self.plan.dims == 3:
            return float(self.loss(logits_KZYX[None], label_ZYX[None]))
        return float(self.loss(logits_KZYX.transpose(0, 1), label_ZYX))  # slices are the batch


def _until(stop: Callable[[], bool], slabs_KZYX: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield slabs until ``stop`` says so."""
    for slab_KZYX in slabs_KZYX:
        yield slab_KZYX
        if stop():
            return


def in_parts(slabs_KZYX: Iterable[Tensor], most_elements: int) -> Iterator[Tensor]:
    """Join and split slabs along z, so that each part but the last has the most planes that ``most_elements`` allow."""
    held: list[Tensor] = []
    for slab_KZYX in slabs_KZYX:
        n_outputs, _, *plane = slab_KZYX.shape
        most = max(most_elements // (n_outputs * prod(plane)), 1)
        held.append(slab_KZYX)
        while sum(part.shape[1] for part in held) > most:
            joined_KZYX = torch.cat(held, dim=1)
            held = [joined_KZYX[:, most:]]
            yield joined_KZYX[:, :most]
    if held:
        yield torch.cat(held, dim=1)


def _weighted_mean(losses: Sequence[float], weights: Sequence[int]) -> float:
    """Return the mean of the parts that have a truth; of one part its own loss."""
    if len(losses) == 1:
        return losses[0]
    known = [(loss, weight) for loss, weight in zip(losses, weights, strict=True) if weight]
    return sum(loss * weight for loss, weight in known) / sum(weights) if known else float("nan")


def dice_per_structure(logits_KZYX: Tensor, label_ZYX: Tensor, labels: LabelSet) -> tuple[float | None, ...]:
    """Return the Dice of each structure over the voxels that have a truth.

    ``None``: it is in neither mask, or it was not annotated.
    """
    return dice_of_counts(voxel_counts(logits_KZYX, label_ZYX, labels), label_ZYX, labels)


def dice_of_counts(counts: Tensor, label_ZYX: Tensor, labels: LabelSet) -> tuple[float | None, ...]:
    """Return the Dice of each structure from its :func:`voxel_counts`, as :func:`dice_per_structure` does."""
    scored = _annotated(label_ZYX, labels)
    return tuple(
        2 * both / (predicted + true) if is_scored and predicted + true else None
        for is_scored, (both, predicted, true) in zip(scored, counts.tolist(), strict=True)
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
