"""Arithmetic that several normalisations share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TINY = 1e-8
"""A standard deviation below this share of the largest intensity is rounding: the image is constant."""


def shift_and_scale(channel_ZYX: NDArray[np.float32], shift: float, scale: float) -> NDArray[np.float32]:
    """Return ``(channel - shift) / scale``; 0 everywhere if ``scale`` is 0."""
    if scale == 0:
        return np.zeros_like(channel_ZYX)
    out = channel_ZYX - np.float32(shift)
    out /= np.float32(scale)
    return out
