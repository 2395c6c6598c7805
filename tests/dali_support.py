"""A made-up store for tests of DALI, and in plain NumPy and SciPy what DALI is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import ndimage

from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.core.labels import IGNORE_INDEX
from decathlete.loading.cache import HeldCase
from decathlete.loading.dali_feed import Feed
from decathlete.loading.patch_loader import PatchLoader
from decathlete.loading.samplers import SAMPLERS, SamplerContext

PATCHES = [(12, 16, 14), (16, 12)]


@dataclass(frozen=True, kw_only=True)
class MadeUpCase(HeldCase):
    """A case in memory from the start."""

    case_id: str
    n_channels: int


def make_case(number: int, shape_ZYX: tuple[int, int, int] = (18, 30, 26)) -> MadeUpCase:
    """A ball (class 1, its core 2, a corner ignored); channels: signed distance to its surface, noise, a mask."""
    generator = np.random.default_rng(number)
    centre = np.array(shape_ZYX) / 2 + generator.uniform(-2, 2, 3)
    depth = 6 - np.linalg.norm(np.stack(np.indices(shape_ZYX), -1) - centre, axis=-1)
    label = np.where(depth > 3, 2, depth > 0).astype(np.uint8)
    label[:2, :2, :2] = IGNORE_INDEX
    image = np.stack([depth, generator.normal(1, 2, shape_ZYX), depth > -2]).astype(np.float32)
    places = {c: np.flatnonzero(label == c) for c in (1, 2)}
    return MadeUpCase(image_CZYX=image, label_ZYX=label, foreground=places, case_id=str(number), n_channels=3)


def make_reader(patch_size: tuple[int, ...], config: AugmentationConfig, **changes: Any) -> PatchLoader:
    """Batches of four from three cases."""
    cases = {str(number): make_case(number) for number in range(3)}
    store: Any = SimpleNamespace(case=cases.get, folder=Path("/nowhere"))
    augmenter = Augmenter(config, patch_size=patch_size, seed=changes.get("seed", 5), n_masks=1)
    settings = {"batch_size": 4, "steps": range(6), "cache_bytes": 0} | changes
    context = SamplerContext(
        case_ids=tuple(cases),
        patch_size=patch_size,
        global_batch=settings["batch_size"] * settings.pop("world", 1),
        seed=settings.pop("seed", 5),
    )
    sampler = SAMPLERS.settings({"name": "foreground", "oversampling": settings.pop("oversampling", 0.33)})
    return PatchLoader(store, SAMPLERS.build(sampler, context), augmenter, **settings)


def with_chance(dims: int, chance: float, *left_out: str) -> AugmentationConfig:
    """The recipe's augmentation, each transform as often as ``chance``."""
    recipe = AugmentationConfig.recipe(dims)
    names = [n for n in ("scaling", "noise", "blur", "brightness", "contrast") if n not in left_out]
    off = {n: {"enabled": False} for n in left_out}
    return recipe.revised(**off, **{n: {"probability": chance} for n in names})


def only(name: str, value: float) -> AugmentationConfig:
    """One transform, always and always as strong."""
    none = AugmentationConfig.none()
    every_channel = {"channel_probability": 1.0} if hasattr(none[name], "channel_probability") else {}
    chosen = {"enabled": True, "probability": 1.0, "between": (value, value)} | every_channel
    return none.revised(**{name: chosen})


def told(feed: Feed, sample: int, patch_size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Image (with channels) and label of a sample, by plain computation from what is fed."""
    image, label = feed.image[sample], feed.label[sample][0]
    if feed.zoomed[sample]:
        places = np.meshgrid(*_places(feed.roi[sample], patch_size), indexing="ij")
        image = np.stack([ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in image])
        label = ndimage.map_coordinates(label, places, order=0, mode="nearest")
    flipped = np.flatnonzero(feed.flips[sample])
    image, label = np.flip(image, flipped + 1), np.flip(label, flipped)
    if feed.noisy[sample]:
        image = image + feed.noise[sample]
    rows = [change_row(*row) for row in zip(image, feed.changed_CT[sample], feed.strength_CT[sample], strict=False)]
    return np.stack([*rows, *image[len(rows) :]]), label


def _places(roi: np.ndarray, patch_size: tuple[int, ...]) -> list[np.ndarray]:
    return [a + (np.arange(n) + 0.5) * (b - a) / n - 0.5 for a, b, n in zip(*roi, patch_size, strict=True)]


def change_row(row: np.ndarray, changed_T: np.ndarray, strength_T: np.ndarray) -> np.ndarray:
    """Blur, brightness, contrast of one channel."""
    if changed_T[0]:
        row = ndimage.gaussian_filter(row, strength_T[0], mode="mirror", radius=int(np.ceil(3 * strength_T[0])))
    if changed_T[1]:
        row = row * strength_T[1]
    if changed_T[2]:
        row = np.clip(row.mean() + (row - row.mean()) * strength_T[2], row.min(), row.max())
    return row
