"""``--set``: what an assignment comes to."""

from __future__ import annotations

import pytest

from decathlete.core.assignments import parse_assignments, split_assignments_of
from decathlete.errors import OptionError


def parsed(*assignments: str) -> dict:
    return parse_assignments(assignments, example="engine.threads=2")


def test_dots_address_nested_settings_and_the_last_value_counts():
    found = parsed("engine.threads=2", "image-format.nifti.compression-level = 9", "engine.threads=3", "a=x,1")
    assert found == {
        "engine": {"threads": 3},
        "image_format": {"nifti": {"compression_level": 9}},
        "a": ["x", 1],
    }


@pytest.mark.parametrize("text", ["engine.threads", "engine.threads=", "engine.=2", ".threads=2", "=2", "engine..x=2"])
def test_a_malformed_assignment_names_a_correct_one(text):
    with pytest.raises(OptionError, match=r"write e\.g\. --set engine.threads=2") as problem:
        parsed(text)
    assert problem.value.code == "E-OPTION-SYNTAX"
    assert text in str(problem.value)


def test_a_value_is_not_a_group():
    with pytest.raises(OptionError, match=r"engine\.threads\.number=2"):
        parsed("engine.threads=1", "engine.threads.number=2")


def test_groups_are_separated_by_their_names_alone():
    given = ["engine.threads=2", "engines.x=1", "image-format.nifti.a=1", "engine=3"]
    mine, others = split_assignments_of(["engine", "image_format"], given)
    assert mine == ["engine.threads=2", "image-format.nifti.a=1", "engine=3"]
    assert others == ["engines.x=1"]
