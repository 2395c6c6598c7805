"""Plan against overfitting: with few cases, each seen often, not every further training step helps.

The numbers are from trainings on STS_PETCT, of 9 cases (docs/explanation/recipe-search.md, "Twenty minutes on seven
cases").
"""

from __future__ import annotations

import math

from decathlete.planning.learning_curve import COMFORTABLE_STEPS

OFTEN_SEEN = 80
"""How often each voxel is seen in a training that may overfit: mirroring helped when voxels were seen 100 and 160
times, and did harm when they were seen 50 times."""
MOST_PASSES = 250
"""Number of patches of each image after which more steps are not counted."""
FEWEST_USEFUL_STEPS = 1000
"""Number of steps that are always counted."""


def may_overfit(*, steps: int, batch_size: int, patch_share: float, n_images: int) -> bool:
    """Return whether there are few cases and each of their voxels is seen often.

    That hardly depends on the patch: in the same time, twice as many patches of half the voxels are seen.

    Args:
        steps: number of training steps.
        batch_size: patches of a step, in all processes together.
        patch_share: part of an image's voxels that a patch has, 0..1.
        n_images: number of images of the dataset; in 2D, of slices.
    """
    if useful_steps(n_images=n_images, batch_size=batch_size) >= COMFORTABLE_STEPS:
        return False
    return steps * batch_size * patch_share >= OFTEN_SEEN * n_images


def counted_steps(*, steps: int, batch_size: int, patch_share: float, n_images: int) -> float:
    """Return the number of steps up to which more are better: infinite, unless the training may overfit.

    Args: as of :func:`may_overfit`.
    """
    if not may_overfit(steps=steps, batch_size=batch_size, patch_share=patch_share, n_images=n_images):
        return math.inf
    return useful_steps(n_images=n_images, batch_size=batch_size)


def useful_steps(*, n_images: int, batch_size: int) -> int:
    """Return the number of steps after which more steps are not expected to help.

    Args: as of :func:`may_overfit`.

    >>> useful_steps(n_images=9, batch_size=2), useful_steps(n_images=100, batch_size=2)
    (1125, 12500)
    """
    return max(MOST_PASSES * n_images // batch_size, FEWEST_USEFUL_STEPS)
