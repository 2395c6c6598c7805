"""Functions that take a dataclass's fields say so."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

import decathlete
from decathlete.core.parallel import Workers
from decathlete.workflows.fold import FoldPipeline, PipelineOptions


@pytest.mark.parametrize(("function", "own"), [(decathlete.run, "fold"), (decathlete.cross_validate, "folds")])
def test_help_lists_every_option_with_its_default(function: object, own: str) -> None:
    found = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert list(found)[:3] == ["task", own, "dims"]
    assert {name: p.default for name, p in found.items() if name in get_type_hints(PipelineOptions)} == {
        name: getattr(FoldPipeline, name) for name in get_type_hints(PipelineOptions)
    }
    assert found["workers"].annotation == Workers


def test_the_typed_options_are_those_that_are_taken() -> None:
    taken = get_type_hints(FoldPipeline)
    del taken["task"]
    assert get_type_hints(PipelineOptions) == taken


def test_an_option_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TypeError, match="wrokers"):
        decathlete.run("x", wrokers=2)  # type: ignore[call-arg]
