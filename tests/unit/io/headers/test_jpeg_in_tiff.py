"""JPEG strips and tiles of TIFF pages: their codestreams have the size of the part that they fill."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from decathlete.errors import ImageError
from decathlete.io.images import read_image

PAGE_YX = (np.arange(70 * 61).reshape(70, 61) % 200).astype(np.uint8)
LAYOUTS: dict[str, dict[str, Any]] = {"one strip": {}, "strips": {"rowsperstrip": 24}, "tiles": {"tile": (32, 32)}}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_any_layout_are_read(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, PAGE_YX, compression="jpeg", compressionargs={"level": 100}, **LAYOUTS[layout])
    np.testing.assert_allclose(read_image(path).array_CZYX[0, 0], PAGE_YX, atol=4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("height", "width"), [(35, 122), (70, 60), (30000, 30000)])
def test_a_part_of_another_size_is_damage(tmp_path: Path, layout: str, height: int, width: int) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, PAGE_YX, compression="jpeg", **LAYOUTS[layout])
    content = bytearray(path.read_bytes())
    struct.pack_into(">2H", content, content.rfind(b"\xff\xc0") + 5, height, width)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=f"codestream has {width} x {height} pixels") as caught:
        read_image(path)
    assert caught.value.code == "E-IMAGE-DAMAGED"
