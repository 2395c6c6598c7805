"""Statistics of the times of equal pieces of work: training steps, predictions, requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from decathlete.core.schema import Schema


class Latency(Schema):
    """Mean and percentiles of times, ms. ``p99`` is the 99th percentile."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def from_seconds(cls, seconds: Sequence[float]) -> Self:
        """Return the statistics of times in seconds. Percentiles are interpolated linearly.

        >>> Latency.from_seconds([0.001, 0.003]).mean
        2.0
        """
        ms = 1e3 * np.asarray(seconds)
        p50, p90, p95, p99 = np.percentile(ms, [50, 90, 95, 99]).tolist()
        return cls(mean=float(ms.mean()), p50=p50, p90=p90, p95=p95, p99=p99)
