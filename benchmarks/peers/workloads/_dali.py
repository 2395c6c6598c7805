"""nnU-Net's augmentation from NVIDIA DALI's operators, on the CPU.

A graph of its own: the one in ``decathlete.loading`` has the recipe's transforms alone, and draws outside of DALI.
Importing it raises :class:`NotInstalled` where there is no DALI.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np

from decathlete.core.extras import how_to_install
from workload import NotInstalled

try:
    from nvidia.dali import fn, math, pipeline_def, types
except ImportError as problem:
    raise NotInstalled(f"NVIDIA DALI is not installed or does not load: {how_to_install('dali')}") from problem

Node = Any
"""A value in the graph: one array for each sample."""


def augmentation(image: Any, label: Any, patch: tuple[int, ...], n_batch: int, *, rotation: float) -> Any:
    """A built pipeline on one thread: ``run()`` gives image and label of ``n_batch`` patches, changed.

    Args:
        image: (1, Z, Y, X), or (1, Y, X); each sample is cut from its middle. label: likewise.
        rotation: greatest angle, radians.
    """
    if len(image) != 1:
        raise ValueError(f"chances are for one channel, not for {len(image)}")
    # DALI has channels last; the arrays outlive the pipeline, so that it need not copy them.
    sources = [np.ascontiguousarray(np.moveaxis(array, 0, -1)) for array in (image, label.astype(np.uint8))]
    layout = "DHWC"[-len(patch) - 1 :]

    @pipeline_def(
        batch_size=n_batch, num_threads=1, device_id=None, seed=1, enable_conditionals=True, prefetch_queue_depth=1
    )
    def graph() -> tuple[Node, Node]:
        image, label = [
            fn.external_source(repeat([array] * n_batch), batch=True, no_copy=True, layout=layout) for array in sources
        ]
        if _happens(0.36):  # rotated or scaled: 1 - 0.8 * 0.8
            matrix = _about_the_middle(patch, sources[0].shape[:-1], rotation)
            image = _warped(image, matrix, patch, types.INTERP_LINEAR)
            label = _warped(label, matrix, patch, types.INTERP_NN)
        else:
            image, label = _cut(image, patch), _cut(label, patch)
        if _happens(0.1):
            image = fn.noise.gaussian(image, stddev=_between(0, 0.316))
        if _happens(0.1):
            image = fn.gaussian_blur(image, sigma=_between(0.5, 1))
        if _happens(0.15):
            image = image * _between(0.75, 1.25)
        if _happens(0.15):
            image = _contrast(image)
        if _happens(0.125):
            image = _low_resolution(image, patch)
        if _happens(0.1):
            image = 0 - _gamma(0 - image)
        if _happens(0.3):
            image = _gamma(image)
        names = ("depthwise", "vertical", "horizontal")[-len(patch) :]
        flips = {name: fn.random.coin_flip(probability=0.5) for name in names}
        return fn.flip(image, **flips), fn.flip(label, **flips)

    pipeline = graph()
    pipeline.build()
    return pipeline


def _happens(probability: float) -> Node:
    return fn.random.coin_flip(probability=probability, dtype=types.BOOL)


def _between(low: float, high: float) -> Node:
    return fn.random.uniform(range=(low, high))


def _about_the_middle(patch: tuple[int, ...], shape: tuple[int, ...], rotation: float) -> Node:
    """From places in the patch to places in the source, both x first: turned and scaled about the middles."""
    degrees, n_axes = float(np.degrees(rotation)), len(patch)
    matrix = fn.transforms.translation(offset=[-n / 2 for n in patch[::-1]])
    if n_axes == 2:
        matrix = fn.transforms.rotation(matrix, angle=_between(-degrees, degrees))
    else:
        for axis in np.eye(3).tolist():
            matrix = fn.transforms.rotation(matrix, angle=_between(-degrees, degrees), axis=axis)
    zoom = _between(0.7, 1.4)
    matrix = fn.transforms.scale(matrix, scale=fn.stack(*[zoom] * n_axes))
    return fn.transforms.translation(matrix, offset=[n / 2 for n in shape[::-1]])


def _warped(volume: Node, matrix: Node, patch: tuple[int, ...], interpolation: Any) -> Node:
    return fn.warp_affine(volume, matrix=matrix, size=patch, interp_type=interpolation, fill_value=0)


def _cut(volume: Node, patch: tuple[int, ...]) -> Node:
    return fn.crop(volume, crop=[float(n) for n in patch])


def _contrast(image: Node) -> Node:
    mean = fn.reductions.mean(image)
    changed = mean + (image - mean) * _between(0.75, 1.25)
    return math.clamp(changed, fn.reductions.min(image), fn.reductions.max(image))


def _low_resolution(image: Node, patch: tuple[int, ...]) -> Node:
    share = _between(0.5, 1)
    image = fn.resize(image, size=fn.stack(*[float(n) * share for n in patch]), interp_type=types.INTERP_NN)
    return fn.resize(image, size=patch, interp_type=types.INTERP_LINEAR, antialias=False)


def _gamma(image: Node) -> Node:
    """Intensities, mapped to 0..1, raised to a power; mean and standard deviation stay."""
    low, mean = fn.reductions.min(image), fn.reductions.mean(image)
    width = fn.reductions.max(image) - low + 1e-7
    changed = math.pow((image - low) / width, _between(0.7, 1.5)) * width + low
    new_mean = fn.reductions.mean(changed)
    ratio = fn.reductions.std_dev(image, mean) / (fn.reductions.std_dev(changed, new_mean) + 1e-7)
    return (changed - new_mean) * ratio + mean
