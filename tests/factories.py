"""Small valid plans and made-up volumes for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.plan import Plan, Range, TrainingRanges


def make_test_plan(dims: int = 3, *, n_channels: int = 1, n_foreground: int = 2, **changes: Any) -> Plan:
    """A plan with two stages, 1 mm spacing and a patch of 16; any field can be replaced.

    ``labels`` may be given instead of ``n_foreground`` (classes named c1, c2, ... with values 1, 2, ...).
    """
    labels = changes.pop("labels", None) or LabelSet.from_names([f"c{i + 1}" for i in range(n_foreground)])
    wide = Range(low=0.0, high=1e9)
    fields: dict[str, Any] = {
        "dataset": "Test",
        "dims": dims,
        "channels": tuple(f"channel{i}" for i in range(n_channels)),
        "labels": labels,
        "target_spacing": (None if dims == 2 else 1.0, 1.0, 1.0),
        "median_shape": (20, 20, 20),
        "patch_size": (16,) * dims,
        "batch_size": 2,
        "normalization": (NORMALIZATIONS.settings("zscore"),) * n_channels,
        "network": make_test_network(dims, in_channels=n_channels, out_channels=labels.n_outputs),
        "training_ranges": TrainingRanges(
            spacing=(wide,) * 3, size=(wide,) * 3, intensity=(Range(low=-1e9, high=1e9),) * n_channels
        ),
        "fingerprint_digest": "test",
    }
    return Plan(**(fields | changes))


def make_test_network(dims: int = 3, *, in_channels: int = 1, out_channels: int = 3) -> UNetSpec:
    """Two stages of 4 and 8 features."""
    return UNetSpec(
        dims=dims,
        in_channels=in_channels,
        out_channels=out_channels,
        kernels=((3,) * dims,) * 2,
        strides=((1,) * dims, (2,) * dims),
        features=(4, 8),
        encoder_convs=(1, 1),
        decoder_convs=(1,),
    )


def make_volumes(
    shape_ZYX: tuple[int, int, int], *, n_channels: int = 1, n_foreground: int = 2, margin: int = 0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """An image (float32 CZYX, > 0 except in the margin, where it is 0) and a label of nested boxes (uint8 ZYX)."""
    generator = np.random.default_rng(seed)
    image = np.zeros((n_channels, *shape_ZYX), np.float32)
    label = np.zeros(shape_ZYX, np.uint8)
    inside = tuple(slice(m, n - m) for n, m in ((n, min(margin, (n - 1) // 2)) for n in shape_ZYX))
    image[(slice(None), *inside)] = generator.uniform(50, 150, image[(slice(None), *inside)].shape)
    for value in range(1, n_foreground + 1):
        fraction = value / (2 * n_foreground + 2)
        box = tuple(slice(int(n * fraction), max(int(n * (1 - fraction)), int(n * fraction) + 1)) for n in shape_ZYX)
        label[box] = value
        image[:, label == value] += 100 * value
    return image, label


def make_oblique_geometry(shape_ZYX: tuple[int, int, int], spacing_ZYX=(1.0, 1.0, 1.0), *, degrees: float = 20.0):
    """A grid turned about two world axes, with its origin off zero."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = Geometry.plain(shape_ZYX, spacing_ZYX=spacing_ZYX).matrix
    matrix[:3, :3] = about_z @ about_x @ matrix[:3, :3]
    matrix[:3, 3] = (-31.5, 12.25, 7.0)
    return Geometry.from_matrix(shape_ZYX, matrix)
