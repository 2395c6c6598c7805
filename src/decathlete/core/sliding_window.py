"""Options of sliding-window prediction."""

from __future__ import annotations

from pydantic import Field

from decathlete.core.choices import Blend
from decathlete.core.schema import Schema


class SlidingWindow(Schema):
    """How a network is moved over a volume, and how its windows are combined.

    Attributes:
        overlap: overlap of neighbouring windows as a share of the patch, 0 to below 1.
        blend: weighting of the voxels of a window: ``gaussian`` (highest in the centre) or ``constant``.
        tta: test-time augmentation: average over all flips along the axes that were mirrored in training.
        batch_size: windows (2D: slices) computed together; ``None``: the plan's batch on accelerators, few on CPUs.
        memory_gb: limit of the memory of a prediction on a CPU, GB; sums beyond it are stored on disk. ``None``: sums
            may use 2 GB.
    """

    overlap: float = Field(default=0.5, ge=0, lt=1)
    blend: Blend = "gaussian"
    tta: bool = False
    batch_size: int | None = Field(default=None, ge=1)
    memory_gb: float | None = Field(default=None, gt=0)

    @property
    def memory_bytes(self) -> int | None:
        """``memory_gb`` in bytes."""
        return None if self.memory_gb is None else round(self.memory_gb * 1e9)
