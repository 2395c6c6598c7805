"""What a user chooses about the reading of files is added to what a run has recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from decathlete.core.registry import ComponentSettings
from decathlete.io.format_settings import changed_settings, format_settings
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.reading import Reading

RECORDED = {"first": {"level": 2, "plane": 3}, "second": {"level": 4}}


@pytest.fixture(autouse=True)
def formats() -> Iterator[None]:
    with IMAGE_FORMATS.isolated():
        for name in ("first", "second"):

            class Fixed(ImageFormat):
                class Settings(ComponentSettings):
                    level: int = 0
                    plane: int = 0

                suffixes = written_suffixes = (f".{name}",)
                reading_settings: ClassVar = frozenset({"level", "plane"})

            IMAGE_FORMATS.register(name)(Fixed)
        yield


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, RECORDED),
        ({"first": {"level": 7}}, {"first": {"level": 7, "plane": 3}, "second": {"level": 4}}),
        ({"first": {"level": 0}}, {"first": {"plane": 3}, "second": {"level": 4}}),
        ({"nifti": {"compression_level": 3}}, {**RECORDED, "nifti": {"compression_level": 3}}),
    ],
)
def test_settings_that_are_not_named_stay(
    chosen: dict[str, dict[str, int]], expected: dict[str, dict[str, int]]
) -> None:
    recorded = Reading(spacing=(2.0, 1.0, 1.0), formats=format_settings(RECORDED))
    changed = recorded.revised(None, chosen)
    assert changed_settings(changed.formats) == expected
    assert changed.spacing == (2.0, 1.0, 1.0)
    assert changed.must_apply == bool(chosen)
    assert changed.revised((1.0, 1.0, 1.0), None).formats == changed.formats
