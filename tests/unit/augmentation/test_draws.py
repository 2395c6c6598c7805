"""The numbers that transforms draw: pinned, each transform's own, and unchanged by a plug-in beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import Field

from decathlete.augmentation.batch import collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.draws import RowContext, TransformStreams
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
from decathlete.core.rng import stream

PATCH = (12, 16, 10)
N_SAMPLES = 6


@pytest.fixture(autouse=True)
def plug_ins():
    """A spatial transform ``shear`` and an intensity transform ``bias_field`` with random numbers of its own."""

    class Shear(SpatialTransform):
        """Shear the last axis along the one before it."""

        class Settings(TransformSettings):
            factor: float = Field(default=0.3, ge=0, le=1, description="Greatest shear, voxels per voxel.")

        def change(self, random):
            matrix = np.eye(len(self.patch.size))
            matrix[-1, -2] = self.settings.factor * (2 * random.random() - 1)
            return SpatialChange(matrix=matrix)

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

    with TRANSFORMS.isolated():
        TRANSFORMS.register("shear")(Shear)
        TRANSFORMS.register("bias_field")(BiasField)
        yield


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
    assert (draw.size, draw.flips) == ((22, 24, 20), (False, False, True))
    expected = [
        [0.9282246683319053, -0.3898862883806587, -0.3915199226153453],
        [0.5188374175280105, 0.8782635469841614, 0.3554730352410886],
        [-0.19001816188153434, 0.49349977380278626, -0.9419401647576185],
    ]
    np.testing.assert_allclose(draw.matrix, expected, rtol=1e-12)


def test_strengths_are_pinned():
    drawn = strengths(augmenter_of(AugmentationConfig()))
    assert {name: (rows[0], round(values[0], 6)) for name, (rows, values) in drawn.items()} == {
        "noise": (2, 0.076341),
        "brightness": (12, 0.830669),
        "contrast": (6, 0.858136),
        "low_resolution": (1, 0.822679),
        "gamma": (2, 0.735666),
    }


def test_noise_is_pinned():
    context = RowContext(seed=3, transform="noise", step=5, samples=(0, 7), channels=(1, 0))
    expected = torch.tensor([[1.1163e00, 2.0020e00, -1.2885e00], [-1.2315e-01, -8.4645e-02, -6.1834e-01]])
    torch.testing.assert_close(context.normal_like(torch.zeros(2, 3)), expected, atol=1e-4, rtol=0)


def test_a_plug_in_changes_no_other_draw():
    """Neither where it is among the transforms, nor whether it is enabled."""
    alone = augmenter_of(AugmentationConfig())
    with_plug_ins = augmenter_of(AugmentationConfig({"bias_field": {}, "shear": {"probability": 0.0}}))
    drawn = strengths(with_plug_ins)
    assert len(drawn.pop("bias_field")[0]) > 1
    assert drawn == strengths(alone)
    assert [with_plug_ins.draw(0, i) for i in range(20)] == [alone.draw(0, i) for i in range(20)]


@pytest.mark.parametrize("position", range(10))
def test_a_transform_put_in_between_leaves_the_draws_of_the_others(position):
    """Wherever it stands among them, and whatever it draws."""
    config = AugmentationConfig.default(3).revised(scaling={"enabled": False}, rotation={"probability": 0.5})
    alone = augmenter_of(config)
    plug_ins = AugmentationConfig({"bias_field": {"probability": 1.0}, "shear": {"probability": 1.0}})
    settings = list(config.root.items())
    settings[position:position] = [(name, plug_ins[name]) for name in ("bias_field", "shear")]
    inserted = augmenter_of(AugmentationConfig.model_construct(root=dict(settings)))

    drawn = strengths(inserted)
    assert len(drawn.pop("bias_field")[0]) == 40
    assert drawn == strengths(alone)
    rotated = 0
    for i in range(20):
        before, after = alone.draw(0, i), inserted.draw(0, i)
        assert after.flips == before.flips
        flips = np.diag([-1.0 if flip else 1.0 for flip in before.flips])
        rotation = np.eye(3) if before.matrix is None else np.array(before.matrix) @ flips
        both = np.array(after.matrix) @ flips
        shear = both @ rotation.T if position == 0 else rotation.T @ both
        np.testing.assert_allclose(shear - np.eye(3), [[0, 0, 0], [0, 0, 0], [0, shear[2, 1], 0]], atol=1e-12)
        rotated += before.matrix is not None
    assert 5 < rotated < 15


def test_a_transform_draws_from_the_stream_of_its_name():
    streams = TransformStreams(3, 5)
    streams.generator("gamma", 7).normal(size=5)  # leaves numbers behind
    numbers = streams.generator("noise", 7).random(9)
    np.testing.assert_array_equal(numbers, stream(3, "transform", "noise", 5, 7).random(9))
    integers = streams.generator("noise", 7).integers(0, 9, 9, dtype=np.uint32)
    np.testing.assert_array_equal(integers, stream(3, "transform", "noise", 5, 7).integers(0, 9, 9, dtype=np.uint32))


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
