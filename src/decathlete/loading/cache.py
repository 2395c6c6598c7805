"""A cache of whole cases in memory: a small dataset is decompressed once, not for every patch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Box, Shape
from decathlete.loading.patches import PatchSource
from decathlete.preprocessing.store import StoredCase


@dataclass(frozen=True, kw_only=True)
class HeldCase:
    """A case in memory; reading slices its arrays."""

    image_CZYX: NDArray[np.float32]
    label_ZYX: NDArray[np.uint8]
    foreground: Mapping[int, NDArray[np.int64]]

    @property
    def shape(self) -> Shape:
        """Z, Y, X."""
        z, y, x = self.label_ZYX.shape
        return (z, y, x)

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        places = sum(flat.nbytes for flat in self.foreground.values())
        return self.image_CZYX.nbytes + self.label_ZYX.nbytes + places

    def read_image(self, *, box: Box) -> NDArray[np.float32]:
        """CZYX in ``box`` (a view)."""
        return self.image_CZYX[(slice(None), *box.slices)]

    def read_label(self, *, box: Box) -> NDArray[np.uint8]:
        """ZYX in ``box`` (a view)."""
        return self.label_ZYX[box.slices]


class CaseCache:
    """Keeps the cases that are requested first, and never evicts one.

    Patches come from all cases with equal probability, so exchanging one held case for another would win nothing.

    Args:
        max_bytes: of all held arrays together; 0 holds nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._held: dict[str, HeldCase] = {}
        self._lock = Lock()

    def get(self, case: StoredCase) -> PatchSource:
        """Return the case from memory, reading it whole where there is room; else the case itself."""
        held = self._held.get(case.case_id)
        if held is not None:
            return held
        n_bytes = case.n_bytes
        with self._lock:
            if n_bytes > self._room:
                return case
            self._room -= n_bytes
        # Two readers may read one case at once: the room is counted twice, which is safe and rare.
        whole = Box(start=(0, 0, 0), stop=case.shape)
        held = HeldCase(
            image_CZYX=case.read_image(box=whole),
            label_ZYX=case.read_label(box=whole),
            foreground=dict(case.foreground),
        )
        self._held[case.case_id] = held
        return held
