"""The graph of DALI operators. Importing this module imports DALI.

Nothing in it is random: every sample arrives with what is to be done to it.

Letters: C channels, T the transforms of ``CHANNEL_TRANSFORMS``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nvidia.dali import fn, math, pipeline_def, types

from decathlete.loading.dali_feed import Feed
from decathlete.planning.network_spec import Axes

Node = Any
"""A value in the graph: one array for each sample."""


@pipeline_def(enable_conditionals=True)  # type: ignore[untyped-decorator]
def augmentation_graph(
    source: Iterator[Feed], patch_size: Axes, n_channels: int, n_masks: int, on_gpu: bool
) -> tuple[Node, Node]:
    """Augment image (float32) and label (uint8, one channel) of each sample; the results have ``patch_size``.

    Args:
        source: batches.
        n_channels: with intensities; ``n_masks`` more come after them.
        on_gpu: compute there; what is drawn stays on the CPU, where operators want their arguments.
    """
    layout = "CDHW" if len(patch_size) == 3 else "CHW"
    image, label, noise, zoomed, roi, flips, noisy, changed_CT, strength_CT = fn.external_source(
        source, num_outputs=len(Feed._fields), batch=True, layout=[layout] * 3
    )
    factor_CT = strength_CT
    if on_gpu:
        image, label, noise, factor_CT = image.gpu(), label.gpu(), noise.gpu(), strength_CT.gpu()
    if zoomed:
        image = _zoom(image, roi, patch_size, types.INTERP_LINEAR)
        label = _zoom(label, roi, patch_size, types.INTERP_NN)
    image, label = _flip(image, flips, patch_size), _flip(label, flips, patch_size)
    if noisy:
        image = image + noise
    rows = [_change_row(image[c : c + 1], changed_CT[c], strength_CT[c], factor_CT[c]) for c in range(n_channels)]
    if n_masks:
        rows.append(image[n_channels:])
    return fn.cat(*rows, axis=0), label


def _zoom(volume: Node, roi: Node, patch_size: Axes, interpolation: Any) -> Node:
    """Zoom the region ``roi`` (first and last corner, voxels from the low corner's edge) to the patch's size.

    The same place is looked up in image and label: both take voxels' centres at half numbers.
    """
    return fn.resize(
        volume, size=patch_size, roi_start=roi[0], roi_end=roi[1], interp_type=interpolation, antialias=False
    )


def _flip(volume: Node, flips: Node, patch_size: Axes) -> Node:
    """Mirror along the axes whose number in ``flips`` is 1."""
    names = ("depthwise", "vertical", "horizontal")[-len(patch_size) :]
    return fn.flip(volume, **{name: flips[axis] for axis, name in enumerate(names)})


def _change_row(row: Node, changed_T: Node, strength_T: Node, factor_T: Node) -> Node:
    """Blur one channel, and change its brightness and contrast; ``factor_T`` is ``strength_T`` on the row's device."""
    if changed_T[0]:
        row = fn.gaussian_blur(row, sigma=strength_T[0])
    if changed_T[1]:
        row = row * factor_T[1]
    if changed_T[2]:
        mean = fn.reductions.mean(row)
        row = math.clamp(mean + (row - mean) * factor_T[2], fn.reductions.min(row), fn.reductions.max(row))
    return row
