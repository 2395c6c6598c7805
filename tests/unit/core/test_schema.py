"""Models in JSON files: unknown keys are errors, all problems are reported together, values survive."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from decathlete.core.schema import Schema, describe
from decathlete.errors import DecathleteError, OptionError, PlanError


class Part(Schema):
    width: int = Field(gt=0)


class Number(Schema):
    value: float


class Whole(Schema):
    name: str
    share: float = Field(default=0.5, le=1)
    parts: tuple[Part, ...] = ()

    @model_validator(mode="after")
    def _named(self) -> Whole:
        if not self.name:
            raise ValueError("a name is needed")
        return self


def written(folder: Path, content: object) -> Path:
    path = folder / "whole.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


PARTS = st.lists(st.builds(Part, width=st.integers(1))).map(tuple)


@given(st.builds(Whole, name=st.text(min_size=1), share=st.floats(max_value=1), parts=PARTS))
def test_a_value_survives_its_text(whole: Whole) -> None:
    assert Whole.model_validate_json(whole.model_dump_json()).model_dump_json() == whole.model_dump_json()


def test_a_value_survives_its_file(tmp_path: Path) -> None:
    whole = Whole(name="Größe", share=-math.inf, parts=(Part(width=1), Part(width=2)))
    whole.save(tmp_path / "new" / "whole.json")
    assert Whole.load(tmp_path / "new" / "whole.json") == whole
    Number(value=math.nan).save(tmp_path / "number.json")
    assert math.isnan(Number.load(tmp_path / "number.json").value)


def test_the_message_of_a_validator_is_its_own_text() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole(name="")
    assert describe(caught.value) == ["a name is needed"]
    other = ValidationError.from_exception_data(
        "Whole", [{"type": PydanticCustomError("gauge", "Value error, of a gauge"), "loc": ("name",), "input": ""}]
    )
    assert describe(other) == ["name: Value error, of a gauge"]


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, {"name": "x", "shares": 0.5})
    with pytest.raises(DecathleteError, match="shares: Extra inputs are not permitted"):
        Whole.load(path)


def test_all_problems_are_reported_together_with_their_places(tmp_path: Path) -> None:
    path = written(tmp_path, {"share": 2, "parts": [{"width": 1}, {"width": 0, "height": 3}], "colour": "red"})
    with pytest.raises(PlanError) as caught:
        Whole.load(path, error=PlanError, remedy="run `plan` again")
    for place in ("name: ", "share: ", "parts.1.width: ", "parts.1.height: ", "colour: "):
        assert str(caught.value).count(place) == 1
    assert "5 problems" in str(caught.value)
    assert caught.value.where == path
    assert caught.value.remedy == "run `plan` again"


def test_a_problem_of_the_whole_is_given_in_its_own_words() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole(name="")
    assert describe(caught.value) == ["a name is needed"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 3}'])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(OptionError, match=r"whole\.json"):
        Whole.load(path, error=OptionError)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist") as caught:
        Whole.load(tmp_path / "none.json", error=OptionError, remedy="give another")
    assert (caught.value.where, caught.value.remedy) == (tmp_path / "none.json", "give another")


def test_values_are_replaced_only_in_a_validated_copy() -> None:
    whole = Whole(name="x")
    with pytest.raises(ValidationError, match="frozen"):
        whole.share = 1.0  # type: ignore[misc]
    assert (whole.revised(share=1).share, whole.share) == (1.0, 0.5)
    for wrong in ({"share": 2}, {"shares": 1}, {"name": ""}):
        with pytest.raises(ValidationError):
            whole.revised(**wrong)
