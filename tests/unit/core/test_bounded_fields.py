"""Numbers in files that no computation could use are rejected when the file is read."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from decathlete.errors import OptionError
from decathlete.preprocessing.normalizations.ct import CtSettings
from decathlete.training.config import TrainConfig


@pytest.mark.parametrize("name", ["clip_low", "clip_high", "mean", "std"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_statistics_of_a_ct_channel_are_finite(name: str, value: float) -> None:
    statistics = {"clip_low": -100.0, "clip_high": 300.0, "mean": 90.0, "std": 40.0}
    assert CtSettings(**statistics).std == 40.0
    with pytest.raises(ValidationError, match=f"{name}\n"):
        CtSettings(**(statistics | {name: value}))


@pytest.mark.parametrize("seed", [-(2**63) - 1, 2**63])
def test_a_seed_fits_into_64_bits(seed: int) -> None:
    assert TrainConfig.make(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(OptionError, match="seed"):
        TrainConfig.make(seed=seed)
