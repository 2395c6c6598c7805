"""Compare two evaluations of the same cases: the difference of their means, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from decathlete.core.rng import stream
from decathlete.core.schema import Schema
from decathlete.evaluation.scores import mean

CONFIDENCE = 0.95
"""Confidence of an interval, unless it is corrected for several comparisons."""
N_RESAMPLES = 10_000
DIGITS, SMALL_DIGITS = 3, 5
"""Decimals of a change that is shown; the second number is for changes below :data:`HALF_OF_LAST`."""
HALF_OF_LAST = 0.0005
_SEED = 20_240_501
_CHUNK = 1000
"""Resamples whose means are computed at a time, so that ten thousand cases need little memory."""

CaseValues = Mapping[str, float | None]
"""Case id -> value of a metric; ``None``: undefined."""


class Difference(Schema):
    """The difference of two means over the same cases, and its interval.

    The interval is that of a paired percentile bootstrap: patients (or cases without a patient) are drawn with
    replacement, and both means are computed for the same draw (Efron & Tibshirani, 1993, chapter 13).

    Attributes:
        before, after: means over the cases that have a value, as ``scores.json`` computes them.
        gain: ``after - before``.
        low, high: ends of the interval of the gain.
        confidence: of the interval, 0..1.
        n_patients: that were drawn from; cases without a patient count as one each.
    """

    before: float
    after: float
    gain: float
    low: float
    high: float
    confidence: float
    n_patients: int

    @classmethod
    def of(
        cls,
        before: CaseValues,
        after: CaseValues,
        *,
        patients: Mapping[str, str] | None = None,
        confidence: float = CONFIDENCE,
    ) -> Self | None:
        """Compare ``after`` with ``before``; both have the same cases.

        Args:
            patients: case id -> patient; cases of one patient are drawn together. ``None``: each case is a patient.
            confidence: of the interval, 0..1.

        Returns:
            ``None`` if one of the means is undefined.
        """
        cases = sorted(before)
        means = mean(before[c] for c in cases), mean(after[c] for c in cases)
        if means[0] is None or means[1] is None:
            return None
        names = [case if patients is None else patients.get(case, case) for case in cases]
        gains = _bootstrap([before[c] for c in cases], [after[c] for c in cases], names)
        tail = 100 * (1 - confidence) / 2
        low, high = np.nanpercentile(gains, [tail, 100 - tail])
        return cls(
            before=means[0],
            after=means[1],
            gain=means[1] - means[0],
            low=float(low),
            high=float(high),
            confidence=confidence,
            n_patients=len(set(names)),
        )

    @property
    def digits(self) -> int:
        """Decimals that show the change: 3, or 5 for one that would look like none."""
        return SMALL_DIGITS if 0 < abs(self.gain) < HALF_OF_LAST else DIGITS

    def __str__(self) -> str:
        """Return the change and its interval, for example ``+0.012 (95 % interval 0.004 to 0.021)``."""
        percent, n = f"{100 * self.confidence:.3g}", self.digits
        return f"{self.gain:+z.{n}f} ({percent} % interval {self.low:z.{n}f} to {self.high:z.{n}f})"


def _bootstrap(
    before: Sequence[float | None], after: Sequence[float | None], patients: Sequence[str]
) -> NDArray[np.float64]:
    """Return the gain of each resample; NaN where a mean has no value."""
    sums_before, counts_before = _by_patient(before, patients)
    sums_after, counts_after = _by_patient(after, patients)
    draws = _draws(len(sums_before))
    gains = []
    for first in range(0, N_RESAMPLES, _CHUNK):
        drawn = draws[first : first + _CHUNK].astype(np.float64)
        with np.errstate(invalid="ignore"):
            gains.append(drawn @ sums_after / (drawn @ counts_after) - drawn @ sums_before / (drawn @ counts_before))
    return np.concatenate(gains)


@lru_cache(maxsize=1)
def _draws(n_patients: int) -> NDArray[np.uint8]:
    """Return how often each patient is drawn in each resample: the same for every comparison of the same patients."""
    generator = stream(_SEED, "bootstrap")
    shares = np.full(n_patients, 1 / n_patients)
    chunks = [generator.multinomial(n_patients, shares, size=_CHUNK) for _ in range(N_RESAMPLES // _CHUNK)]
    return np.concatenate([np.minimum(chunk, 255).astype(np.uint8) for chunk in chunks])


def _by_patient(
    values: Sequence[float | None], patients: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of the defined values of each patient, and their number."""
    _, index = np.unique(patients, return_inverse=True)
    known = np.array([0.0 if value is None else 1.0 for value in values])
    numbers = np.array([value or 0.0 for value in values])
    n_patients = int(index.max()) + 1
    return np.bincount(index, numbers, n_patients).astype(float), np.bincount(index, known, n_patients).astype(float)
