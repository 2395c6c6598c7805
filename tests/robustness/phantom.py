"""The small volume that honest inputs hold: a ball and a cube in noise, without any symmetry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHAPE_XYZ = (12, 10, 8)
SPACING_XYZ = (1.0, 1.25, 2.0)
ORIGIN_XYZ = (-20.0, 5.0, 30.0)


def make_phantom(
    seed: int = 0, shape_XYZ: tuple[int, int, int] = SHAPE_XYZ
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return image (int16) and label (uint8, classes 1 and 2), both X, Y, Z."""
    random = np.random.default_rng(seed)
    places = np.stack(np.indices(shape_XYZ), -1)
    centre = np.array(shape_XYZ) * (0.33, 0.6, 0.4)
    label = (np.linalg.norm(places - centre, axis=-1) < min(shape_XYZ) * 0.35).astype(np.uint8)
    x, y, z = (int(n * share) for n, share in zip(shape_XYZ, (0.7, 0.2, 0.5), strict=True))
    label[x : x + 3, y : y + 2, z : z + 3] = 2
    image = 100 + 150 * label.astype(np.int16) + random.integers(-8, 9, shape_XYZ)
    return image.astype(np.int16), label
