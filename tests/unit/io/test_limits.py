"""Claims of headers against what files can hold, and the ranges of grids."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.limits import (
    MAX_AXIS,
    MAX_SPACING_MM,
    MIN_SPACING_MM,
    check_claim,
    check_grid,
    check_sizes,
    possible_bytes,
)

HERE = Path("x.nrrd")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("n_bytes", [1, 1000, 10**6, 3 * 10**7])
def test_zeros_never_inflate_more_than_deflate_can(compress, n_bytes) -> None:
    assert n_bytes <= possible_bytes(len(compress(bytes(n_bytes))), "deflate")


@given(st.binary(min_size=1, max_size=2000))
def test_what_a_file_holds_is_possible(content: bytes) -> None:
    numbers = " ".join(map(str, content)).encode()
    check_claim(HERE, claimed=len(content), stored=len(content), codec="raw")
    check_claim(HERE, claimed=len(content), stored=len(gzip.compress(content)), codec="deflate")
    check_claim(HERE, claimed=len(content), stored=len(content.hex()), codec="hex")
    check_claim(HERE, claimed=len(content), stored=len(numbers), codec="text")
    check_claim(HERE, claimed=8 * len(content), stored=len(numbers), codec="text", itemsize=8)


@pytest.mark.parametrize("codec", ["raw", "deflate", "text", "hex"])
@given(stored=st.integers(0, 10**12), more=st.integers(1, 10**15))
def test_what_a_file_cannot_hold_is_rejected(codec, stored, more) -> None:
    claimed = possible_bytes(stored, codec) + more
    with pytest.raises(ImageError, match="truncated, damaged") as caught:
        check_claim(HERE, claimed=claimed, stored=stored, codec=codec)
    assert caught.value.code == "E-IMAGE-DAMAGED"


def test_raw_voxels_fill_their_file() -> None:
    with pytest.raises(ImageError, match="more voxels than the header declares"):
        check_claim(HERE, claimed=99, stored=100, codec="raw")
    check_claim(HERE, claimed=99, stored=100, codec="deflate")


@pytest.mark.parametrize("sizes", [(), (0,), (5, -1), (MAX_AXIS + 1, 1), (10**5000,)])
def test_sizes_out_of_range(sizes) -> None:
    with pytest.raises(ImageError, match="each axis") as caught:
        check_sizes(HERE, sizes)
    assert caught.value.code == "E-IMAGE-RANGE"


def test_sizes_in_range() -> None:
    assert check_sizes(HERE, (MAX_AXIS, 1, MAX_AXIS)) == MAX_AXIS**2


@pytest.mark.parametrize("spacing_mm", [MIN_SPACING_MM * 1.001, 0.5, MAX_SPACING_MM])
def test_plausible_spacings(spacing_mm) -> None:
    check_grid(HERE, 1, Geometry.plain((2, 3, 4), spacing_ZYX=(1.0, spacing_mm, spacing_mm * 1.0)))


@pytest.mark.parametrize("spacing_mm", [MIN_SPACING_MM / 2, MAX_SPACING_MM * 1.01, 1e38])
def test_implausible_spacings(spacing_mm) -> None:
    with pytest.raises(ImageError, match="implausible spacing") as caught:
        check_grid(HERE, 1, Geometry.plain((2, 3, 4), spacing_ZYX=(1e6 if spacing_mm < 1 else 1.0, 1e6, spacing_mm)))
    assert caught.value.code == "E-IMAGE-RANGE"


def test_implausible_channels() -> None:
    with pytest.raises(ImageError, match="each axis"):
        check_grid(HERE, MAX_AXIS + 1, Geometry.plain((2, 3, 4)))


def test_an_axis_of_one_voxel_has_any_spacing() -> None:
    check_grid(HERE, 1, Geometry.plain((1, 3, 4), spacing_ZYX=(999.0, 1.0, 1.0)))
    with pytest.raises(ImageError, match="implausible spacing"):
        check_grid(HERE, 1, Geometry.plain((2, 3, 4), spacing_ZYX=(999.0, 1.0, 1.0)))
