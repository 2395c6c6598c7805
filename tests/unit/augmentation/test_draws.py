"""The numbers that transforms draw: pinned, each transform's own, and unchanged by a plug-in beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import Field

from decathlete.augmentation.batch import collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.pipeline import Augmenter
from decathlete.augmentation.rows import per_row
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    PositiveInterval,
    SpatialChange,
    SpatialTransform,
    TransformSettings,
)

PATCH = (12, 16, 10)
N_SAMPLES = 6


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch):
    """A spatial transform ``shear`` and an intensity transform ``bias_field`` with random numbers of its own."""
    monkeypatch.setattr(TRANSFORMS, "_registered", dict(TRANSFORMS._registered))

    @TRANSFORMS.register("shear")
    class Shear(SpatialTransform):
        """Shear the last axis along the one before it."""

        class Settings(TransformSettings):
            factor: float = Field(default=0.3, ge=0, le=1, description="Greatest shear, voxels per voxel.")

        def change(self, random):
            matrix = np.eye(len(self.patch.size))
            matrix[-1, -2] = self.settings.factor * (2 * random.random() - 1)
            return SpatialChange(matrix=matrix)

    @TRANSFORMS.register("bias_field")
    class BiasField(IntensityTransform):
        """Multiply by a smooth field in a random direction."""

        class Settings(IntensitySettings):
            between: PositiveInterval = Field(default=(0.1, 0.3), description="Range of the field's slope.")

        def __call__(self, rows_RZYX, strength_R, context):
            slopes = np.stack([context.generator(row).normal(size=rows_RZYX.ndim - 1) for row in range(len(rows_RZYX))])
            field = torch.ones_like(rows_RZYX)
            for axis, slope_R in enumerate(torch.from_numpy(slopes).float().T):
                position = torch.linspace(-1, 1, rows_RZYX.shape[axis + 1], device=rows_RZYX.device)
                position = position.reshape([-1 if a == axis else 1 for a in range(rows_RZYX.ndim - 1)])
                field = field + per_row(slope_R.to(rows_RZYX.device) * strength_R, rows_RZYX) * position
            return rows_RZYX * field


def augmenter_of(config: AugmentationConfig, seed: int = 3) -> Augmenter:
    return Augmenter(config, patch_size=PATCH, seed=seed)


def strengths(augmenter: Augmenter, step: int = 0) -> dict[str, tuple[list[int], list[float]]]:
    drawn = augmenter.strengths(step, range(20), 2)
    return {name: (rows.tolist(), values.tolist()) for name, rows, values in drawn}


def augmented(augmenter: Augmenter, step: int = 0) -> torch.Tensor:
    draws = [augmenter.draw(step, i) for i in range(N_SAMPLES)]
    images = [np.random.default_rng(i).normal(size=(2, *d.size)).astype(np.float32) for i, d in enumerate(draws)]
    labels = [np.zeros(d.size, np.uint8) for d in draws]
    return augmenter(collate(step, range(N_SAMPLES), draws, ["x"] * N_SAMPLES, images, labels), "cpu")[0]


def test_draws_in_space_are_pinned():
    always = AugmentationConfig({"rotation": {"probability": 1}, "scaling": {"probability": 1}})
    draw = augmenter_of(always).draw(5, 1)
    assert (draw.size, draw.flips) == ((16, 20, 18), (True, True, False))
    expected = [
        [-0.9135557148566591, -0.03611958060910766, -0.44713157875690884],
        [-0.07217610650825376, -0.9893935453539412, 0.2273902791096247],
        [-0.44274358546943715, 0.23582006971601457, 0.8855406987920355],
    ]
    np.testing.assert_allclose(draw.matrix, expected, rtol=1e-12)


def test_strengths_are_pinned():
    drawn = strengths(augmenter_of(AugmentationConfig()))
    assert {name: (rows[0], round(values[0], 6)) for name, (rows, values) in drawn.items()} == {
        "noise": (4, 0.180374),
        "blur": (5, 0.704415),
        "brightness": (12, 0.953204),
        "contrast": (14, 1.177067),
        "low_resolution": (21, 0.748332),
        "gamma_inverted": (0, 0.899074),
        "gamma": (14, 1.306272),
    }


def test_noise_is_pinned():
    context = RowContext(seed=3, transform="noise", step=5, samples=(0, 7), channels=(1, 0))
    expected = torch.tensor([[2.4059e00, -1.7813e-01, -7.8264e-04], [-1.0512e00, 8.1992e-02, -8.1477e-01]])
    torch.testing.assert_close(context.normal_like(torch.zeros(2, 3)), expected, atol=1e-4, rtol=0)


def test_a_plug_in_changes_no_other_draw():
    """Neither where it is among the transforms, nor whether it is enabled."""
    alone = augmenter_of(AugmentationConfig())
    with_plug_ins = augmenter_of(AugmentationConfig({"bias_field": {}, "shear": {"probability": 0.0}}))
    drawn = strengths(with_plug_ins)
    assert len(drawn.pop("bias_field")[0]) > 1
    assert drawn == strengths(alone)
    assert [with_plug_ins.draw(0, i) for i in range(20)] == [alone.draw(0, i) for i in range(20)]


def test_a_plug_in_in_space_is_part_of_the_one_matrix():
    none = AugmentationConfig.none()
    shear = {"shear": {"probability": 1.0}}
    draws = [augmenter_of(none.revised(**shear)).draw(0, i) for i in range(50)]
    slopes = np.array([draw.matrix for draw in draws])[:, 2, 1]
    assert len(set(slopes)) == 50
    assert 0.25 < np.abs(slopes).max() <= 0.3
    flipped = none.revised(mirroring={"enabled": True, "probability": 1.0}, **shear)
    for i, draw in enumerate(draws[:5]):
        other = augmenter_of(flipped).draw(0, i)
        assert other.flips == (True,) * 3
        np.testing.assert_array_equal(other.matrix, -np.array(draw.matrix))


def test_a_plug_in_repeats_by_seed_and_differs_between_samples():
    config = AugmentationConfig.none().revised(bias_field={"probability": 1.0, "between": (0.2, 0.2)})
    plain = augmented(augmenter_of(AugmentationConfig.none()))
    field = augmented(augmenter_of(config)) / plain
    assert torch.equal(field, augmented(augmenter_of(config)) / plain)
    assert not torch.equal(field, augmented(augmenter_of(config, seed=4)) / plain)
    assert not torch.equal(field, augmented(augmenter_of(config), step=1) / plain)
    slopes = (field[..., -1] - field[..., 0]).mean((-2, -1)).flatten()
    assert len(set(slopes.tolist())) == 2 * N_SAMPLES
