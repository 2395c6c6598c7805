"""Lengths of time: read from a user's text, and written for a reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlete.core.durations import parse_duration, say_duration
from decathlete.errors import OptionError

COUNTS = st.integers(0, 99)


@given(COUNTS, COUNTS, COUNTS, st.integers(1, 99))
def test_parts_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    expected = 86400 * days + 3600 * hours + 60 * minutes + seconds
    assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s") == expected
    assert parse_duration(f" {days}D {hours} H {minutes}M {seconds} S ") == expected


@pytest.mark.parametrize(
    ("text", "seconds"), [("20m", 1200), ("1h30m", 5400), ("90s", 90), ("2d", 172800), ("0.5h", 1800)]
)
def test_examples_of_the_documentation(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "20", "m", "0m", "-5m", "5 minutes", "1h 30", "1h,30m", "5x", "1.m", "nan s", "h1"]
)
def test_other_text_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(OptionError, match="is not a duration") as caught:
        parse_duration(text)
    assert "1h30m" in caught.value.remedy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.21, "3.2 s"),
        (9.96, "10.0 s"),
        (10.4, "10 s"),
        (59.7, "1 min 0 s"),
        (250, "4 min 10 s"),
        (3599.7, "1 h 0 min"),
        (5400, "1 h 30 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_what_a_reader_sees(seconds: float, text: str) -> None:
    assert say_duration(seconds) == text


@given(st.floats(0.1, 1e6))
def test_what_is_written_can_be_read_back_to_its_precision(seconds: float) -> None:
    text = say_duration(seconds)
    precision = 60.5 if "h" in text else 0.5 if seconds >= 10 else 0.051
    assert abs(parse_duration(text.replace("min", "m")) - seconds) <= precision
