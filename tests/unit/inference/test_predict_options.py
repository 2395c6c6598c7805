"""Options of a prediction: the window's may be given by themselves, and all problems are reported together."""

from __future__ import annotations

import pytest

from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OptionError
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor


def test_fields_of_the_window_may_be_given_by_themselves():
    window = SlidingWindow(tta=True, overlap=0.25)
    assert PredictOptions(tta=True, overlap=0.25, device="cpu") == PredictOptions(window=window, device="cpu")
    assert PredictOptions(window=window, tta=False).window == SlidingWindow(overlap=0.25)
    assert PredictOptions(window=window).updated(batch_size=3, device="cpu") == PredictOptions(
        tta=True, overlap=0.25, batch_size=3, device="cpu"
    )


def test_all_problems_are_reported_together():
    with pytest.raises(OptionError) as problem:
        PredictOptions(overlap=1.0, blend="cosine")
    assert "overlap" in str(problem.value)
    assert "blend" in str(problem.value)
    with pytest.raises(OptionError, match="memory_bytes"):
        Predictor.load("model", memory_bytes=10**9)


@pytest.mark.parametrize(
    "wrong", [{"overlap": -0.1}, {"blend": "cosine"}, {"batch_size": 0}, {"memory_gb": 0}, {"layout": "rows"}]
)
def test_an_option_out_of_range_is_named(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        PredictOptions(**wrong)


def test_an_unknown_engine_is_found_before_anything_is_computed():
    with pytest.raises(OptionError, match=r"no engine called 'opnvino'; did you mean openvino"):
        PredictOptions(engine="opnvino")
    with pytest.raises(OptionError, match="cannot be imported"):
        PredictOptions(engine="absent_module:Engine")
