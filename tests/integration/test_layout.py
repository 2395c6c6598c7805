"""``layout``: how feature maps lie in memory, in the steps of a training and in a prediction. Results stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from decathlete.core.geometry import Geometry
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import ModelBundle
from decathlete.training.run import train
from factories import make_test_network, make_test_plan
from training_support import make_ball, make_store, tiny_config

CONFIG = tiny_config(epochs=1, val_cases=1, optimizer="sgd")
"""Adam would blow up the rounding in the gradients of biases before a norm, which are 0."""


@contextmanager
def convolved(dims: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which axis is the innermost of each feature map that a convolution makes, logits apart: channels or space."""
    kind: Any = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    plain, seen = kind.forward, []

    def watched(self: Any, x_BC: Tensor) -> Tensor:
        out_BC: Tensor = plain(self, x_BC)
        if self.out_channels > 3:
            seen.append("channels" if out_BC.stride()[1] == 1 else "space")
        return out_BC

    with monkeypatch.context() as patch:
        patch.setattr(kind, "forward", watched)
        yield seen


@pytest.mark.parametrize("dims", [2, 3])
def test_feature_maps_lie_as_told_and_the_model_is_the_same(dims, tmp_path, monkeypatch):
    plan = make_test_plan(dims, network=make_test_network(dims).revised(norm="batch", features=(8, 16)))
    store = make_store(tmp_path / "store", dims, plan=plan)
    image_CZYX = make_ball(7)[0][None]
    weights, logits = {}, {}
    for layout, innermost in (("channels_first", "space"), ("channels_last", "channels")):
        with convolved(dims, monkeypatch) as seen:
            result = train(store, 0, tmp_path / layout, CONFIG.revised(layout=layout))
        assert set(seen) == {innermost}, "in the steps and in the validation"
        weights[layout] = ModelBundle.load(result.folder).build().state_dict()
        with convolved(dims, monkeypatch) as seen:
            # For a single small window torch has another kernel, whose maps lie contiguous whatever it is told.
            predictor = Predictor.load(result.folder, device="cpu", precision="fp32", layout=layout, batch_size=2)
            geometry = Geometry.plain(image_CZYX.shape[1:])
            logits[layout] = predictor.predict(image_CZYX, geometry=geometry, probabilities=True).probabilities_KZYX
        assert set(seen) == {innermost}
    for name, values in weights["channels_first"].items():
        assert np.allclose(values, weights["channels_last"][name], atol=1e-4), name
    assert np.allclose(logits["channels_first"], logits["channels_last"], atol=1e-3)
