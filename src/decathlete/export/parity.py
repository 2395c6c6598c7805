"""Compare a program with its model, on windows of real images or of smooth noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from decathlete.core.rng import stream
from decathlete.errors import ModelError
from decathlete.export.images import images_of
from decathlete.export.windows import first_middles
from decathlete.inference.engines import Engine
from decathlete.inference.windows.flips import mean_over_flips
from decathlete.io.reading import Reading
from decathlete.planning.plan import Plan

Compute = Callable[[Tensor], Tensor]
"""Computes the logits of a program for windows (batch, channel, *patch)."""
TOLERANCE = 1e-3
"""Maximum difference between the logits of program and model, as a share of the model's greatest logit. Float32 sums
in another order differ by 1e-6 to 1e-4."""
ROUNDINGS = 4
"""A program may differ from the model by this multiple of the difference between the model in float32 and float64."""
N_WINDOWS = 3
_COARSE = 8  # voxels between the random values that smooth noise is interpolated from


def check_windows(plan: Plan, source: Path | None = None, reading: Reading = Reading()) -> list[Tensor]:
    """Return a few windows to compare on, each (1, channel, *patch), float32.

    Args:
        source: an image, a folder of images, or prepared cases: the middle window of each of the first three. ``None``:
            smooth noise, the same each time.
        reading: how the images are read.

    Raises:
        ImageError: an image cannot be read. StoreError: prepared cases are damaged, or of another plan.
        ModelError: an image has other channels than the model. OptionError: a setting of ``reading`` has no effect.
    """
    if source is None:
        return [_noise(plan, number) for number in range(N_WINDOWS)]
    return first_middles(images_of(plan, source, reading), plan, N_WINDOWS)


def difference(program: Compute, model: Sequence[Engine], windows: Sequence[Tensor]) -> float:
    """Return the greatest difference of logits, as a share of the model's greatest logit; NaN if any logit is NaN."""
    shares = []
    for window in windows:
        expected = mean_over_flips(model, window, ())
        apart = (program(window) - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo().tiny)
        shares.append(float(apart))
    return float(np.max(shares))


def measure_rounding(networks: Sequence[nn.Module], windows: Sequence[Tensor]) -> float:
    """Return the difference of the model in float32 from the model in float64, as a share of its greatest logit.

    Norms divide by standard deviations, and where these are small, rounding errors grow: of a CT model they were 4e-4
    in one window of three. Two correct programs differ by as much.
    """
    exact = [copy.deepcopy(network).double() for network in networks]
    shares = []
    with torch.inference_mode():
        for window in windows:
            expected = sum(network(window.double()) for network in exact) / len(exact)
            apart = (sum(network(window) for network in networks) / len(networks) - expected).abs().max()
            shares.append(float(apart / expected.abs().max().clamp(min=torch.finfo().tiny)))
    return float(np.max(shares))


def check_difference(max_difference: float, *, rounding: Callable[[], float], title: str, where: Path) -> None:
    """Reject a program that does not compute what its model computes.

    Args:
        max_difference: :func:`difference` of the program from the model.
        rounding: measures :func:`measure_rounding`, which is slow; called only if the difference exceeds the tolerance.
        title: of the program's form.
        where: folder of the model.

    Raises:
        ModelError: the logits differ by more than :data:`TOLERANCE` and by more than :data:`ROUNDINGS` times the
            model's own rounding, or are NaN.
    """
    if max_difference <= TOLERANCE:
        return
    allowed = TOLERANCE if math.isnan(max_difference) else max(TOLERANCE, ROUNDINGS * rounding())
    if not max_difference <= allowed:
        raise ModelError(
            f"the {title} program computes other logits than the model: they differ by {max_difference:.2g} of the "
            f"greatest, and {allowed:.2g} is allowed; nothing was written",
            where=where,
            remedy=f"predict with decathlete itself, or try another release of {title}",
            code="E-MODEL-ACCURACY",
        )


def _noise(plan: Plan, number: int) -> Tensor:
    coarse = [max(2, size // _COARSE) for size in plan.patch_size]
    values = stream(0, "parity", number).normal(size=(1, plan.n_inputs, *coarse))
    mode = "bilinear" if plan.dims == 2 else "trilinear"
    return interpolate(torch.from_numpy(values.astype(np.float32)), size=plan.patch_size, mode=mode)
