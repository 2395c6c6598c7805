"""Options of the plan are refused where they are made, with every problem together."""

from __future__ import annotations

import pytest

from decathlete import PlanOptions
from decathlete.errors import OptionError


def test_every_problem_is_said_at_once_with_the_choices() -> None:
    with pytest.raises(OptionError) as caught:
        PlanOptions(memory_gb=0, n_folds=1, block="resnet", norm="layer", overrides="batch_size=2")  # type: ignore[arg-type]
    said = str(caught.value)
    assert "5 problems" in said
    assert "block is 'resnet'; choose plain or residual" in said
    assert "choose instance or batch or group" in said
    assert "memory_gb must be positive" in said
    assert "n_folds (--n-folds) must be at least 2, it is 1" in said
    assert "('batch_size=2',)" in said


@pytest.mark.parametrize("memory", [-1.0, float("nan")])
def test_memory_is_positive(memory: float) -> None:
    with pytest.raises(OptionError, match="--memory"):
        PlanOptions(memory_gb=memory)


def test_regions_are_checked_where_they_are_given() -> None:
    with pytest.raises(OptionError) as caught:
        PlanOptions(regions="a=1;a=x", brats=True)
    for part in ("use one of them", "two regions are called 'a'", "--regions 'whole tumour="):
        assert part in str(caught.value)
    with pytest.raises(OptionError, match="use it, too"):
        PlanOptions(regions_order=(1, 2))
