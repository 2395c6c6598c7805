"""Windows to calibrate on: as prediction cuts them, from cases far apart, the same each time, within memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decathlete.errors import StoreError
from decathlete.export import windows as module
from decathlete.export.images import stored_images
from decathlete.export.windows import calibration_windows, case_windows, spread
from factories import make_test_plan
from training_support import make_store


def numbered(n_cases: int, shape_ZYX=(16, 16, 16), n_channels: int = 1):
    """Case ``i`` is all ``i``."""
    return {str(i): lambda i=i: np.full((n_channels, *shape_ZYX), i, np.float32) for i in range(n_cases)}


def test_items_come_from_the_middles_of_equal_parts() -> None:
    assert spread(range(9), 3) == [1, 4, 7]
    assert spread(range(10), 1) == [5]
    assert spread(range(2), 5) == [0, 1]


def test_many_cases_give_a_few_windows_each_few_cases_give_many() -> None:
    plan = make_test_plan(2)
    from_many = calibration_windows(numbered(64), plan)
    assert [tuple(w.shape) for w in from_many] == [(1, 1, 16, 16)] * 96
    seen = sorted({float(w.mean()) for w in from_many})
    assert seen == [float(i) for i in range(1, 64, 2)]
    assert len(calibration_windows(numbered(2, (50, 16, 16)), plan)) == 96
    assert len(calibration_windows(numbered(1, (4, 16, 16)), plan)) == 4  # it has no more


def test_windows_stay_within_memory_and_cases_stay_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 4 * 16**3 * 20)
    windows = calibration_windows(numbered(40), make_test_plan(3))
    assert len(windows) == 20
    assert {float(w.mean()) for w in windows} == {float(i) for i in range(1, 40, 2)}


def test_a_small_image_is_padded_as_in_prediction() -> None:
    (window,) = case_windows(np.ones((1, 10, 16, 16), np.float32), make_test_plan(3), 3)
    assert window.shape == (1, 1, 16, 16, 16)
    assert torch.equal(window[0, 0, :, 0, 0], torch.tensor([0.0] * 3 + [1.0] * 10 + [0.0] * 3))


def test_prepared_cases_are_taken_as_they_are_and_those_of_another_plan_refused(tmp_path) -> None:
    store = make_store(tmp_path / "s")
    images = stored_images(store.plan, store.folder, ["case3", "case1"])
    assert list(images) == ["case3", "case1"]
    assert np.array_equal(images["case3"](), store.case("case3").read_image())
    other = store.plan.revised(target_spacing=(2.0, 2.0, 2.0))
    with pytest.raises(StoreError, match="another plan"):
        stored_images(other, store.folder)
