"""Skeleton recall (Kirchhoff et al., ECCV 2024): thin structures have to be found along their whole length."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from decathlete.core.registry import ComponentSettings
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.structure_loss import StructureLoss, sum_over_ranks


@LOSSES.register("skeleton_recall")
class SkeletonRecallLoss(StructureLoss):
    """1 - mean share of each structure's thickened skeleton that is predicted.

    It rewards connected vessels, nerves and roots, and does not punish false positives: combine it with Dice and cross
    entropy. The skeleton is the morphological one (Serra, Image Analysis and Mathematical Morphology, 1982, chapter
    11) of the truth, made on the training device; the paper makes it by thinning before the training.
    """

    supports_partial_labels = True

    class Settings(ComponentSettings):
        max_radius: int = Field(default=8, ge=1, le=64)
        """Maximum radius of a structure, voxels; what is thicker has its skeleton down to this depth only."""
        tube_radius: int = Field(default=1, ge=0, le=5)
        """Voxels by which the skeleton is thickened, within the structure."""
        smooth: float = Field(default=1e-5, gt=0)
        """Number added to numerator and denominator of the recall."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        self.max_radius, self.tube_radius, self.smooth = settings.max_radius, settings.tube_radius, settings.smooth

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        skeleton_BF = tubed_skeleton(self.truth(label_B), self.max_radius, self.tube_radius)
        axes = (0, *range(2, skeleton_BF.ndim))
        probability_BF = self.probabilities(logits_BK)
        valid_B = self.valid(label_B)
        if valid_B is not None:
            probability_BF = probability_BF * valid_B.unsqueeze(1)
        sums = torch.stack([(probability_BF * skeleton_BF).sum(axes), skeleton_BF.sum(axes)])
        found_F, length_F = sum_over_ranks(sums).unbind()
        return 1 - ((found_F + self.smooth) / (length_F + self.smooth)).mean()


@torch.no_grad()
def tubed_skeleton(truth_BF: Tensor, max_radius: int, tube_radius: int) -> Tensor:
    """Return the thickened morphological skeleton of each structure, float32 of 0 and 1, (B, F, *spatial)."""
    rest_BF = truth_BF.float()
    skeleton_BF = torch.zeros_like(rest_BF)
    for _ in range(max_radius + 1):
        eroded_BF = erode(rest_BF)
        skeleton_BF = torch.maximum(skeleton_BF, rest_BF - torch.minimum(dilate(eroded_BF), rest_BF))
        rest_BF = eroded_BF
    for _ in range(tube_radius):
        skeleton_BF = dilate(skeleton_BF)
    return skeleton_BF * truth_BF


def dilate(mask_BF: Tensor) -> Tensor:
    """Return the maximum of each voxel and its face neighbours (a cross)."""
    pool = functional.max_pool3d if mask_BF.ndim == 5 else functional.max_pool2d
    dims = mask_BF.ndim - 2
    kernels = [tuple(3 if axis == a else 1 for a in range(dims)) for axis in range(dims)]
    parts = [pool(mask_BF, kernel, stride=1, padding=tuple(k // 2 for k in kernel)) for kernel in kernels]
    return torch.stack(parts).amax(dim=0)


def erode(mask_BF: Tensor) -> Tensor:
    """Return the minimum of each voxel and its face neighbours; beyond the patch structures continue."""
    return -dilate(-mask_BF)
