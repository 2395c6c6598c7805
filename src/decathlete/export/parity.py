"""Whether a program computes what the model computes: on windows of real images, or of smooth noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from decathlete.core.rng import stream
from decathlete.errors import ModelError
from decathlete.export.images import images_of
from decathlete.export.windows import first_middles
from decathlete.inference.engines import Engine
from decathlete.inference.tta import mean_over_all
from decathlete.planning.plan import Plan

TOLERANCE = 1e-3
"""Greatest difference between the logits of program and model, as a share of the model's greatest. Float32 sums in
another order differ by 1e-6 to 1e-4 of it."""
N_WINDOWS = 3
_COARSE = 8  # voxels between the values that smooth noise is interpolated from


def check_windows(plan: Plan, source: Path | None = None) -> list[Tensor]:
    """A few windows to compare on, each (1, channel, *patch), float32.

    Args:
        source: an image, a folder of images, or prepared cases: the middle window of each of the first three. ``None``:
            smooth noise, the same each time.

    Raises:
        ImageError: an image cannot be read. StoreError: prepared cases are damaged, or of another plan.
        ModelError: an image has other channels than the model.
    """
    if source is None:
        return [_noise(plan, number) for number in range(N_WINDOWS)]
    return first_middles(images_of(plan, source), plan, N_WINDOWS)


def difference(program: Engine, model: Sequence[Engine], windows: Sequence[Tensor]) -> float:
    """The greatest difference of logits over the windows, as a share of the model's greatest; NaN if any is."""
    shares = []
    for window in windows:
        expected = mean_over_all(model, window, ())
        apart = (program(window) - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo().tiny)
        shares.append(float(apart))
    return float(np.max(shares))


def refuse_difference(found: float, *, title: str, where: Path) -> None:
    """Refuse a program that is not the model.

    Raises:
        ModelError: the logits differ by more than :data:`TOLERANCE`, or are not numbers.
    """
    if not found <= TOLERANCE:
        raise ModelError(
            f"the {title} program computes other logits than the model: they differ by {found:.2g} of the greatest, "
            f"and {TOLERANCE:g} is allowed; nothing was written",
            where=where,
            remedy=f"predict with decathlete itself, or try another release of {title}",
        )


def _noise(plan: Plan, number: int) -> Tensor:
    coarse = [max(2, size // _COARSE) for size in plan.patch_size]
    values = stream(0, "parity", number).normal(size=(1, plan.network.in_channels, *coarse))
    mode = "bilinear" if plan.dims == 2 else "trilinear"
    return interpolate(torch.from_numpy(values.astype(np.float32)), size=plan.patch_size, mode=mode)
