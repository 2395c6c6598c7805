"""PNG, BMP, JPEG and TIFF: what they hold, what is rejected, and what is made of grey, RGB and palettes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.headers.picture import exif_orientation
from decathlete.io.image_files import find_inputs
from decathlete.io.images import (
    output_suffix,
    read_channels,
    read_grid,
    read_image,
    read_label,
    read_volume,
    write_image,
    write_label,
)

GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
LOSSLESS = (".png", ".bmp", ".tif")


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    picture = Pillow.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def palette_picture(path: Path, colours: list[int]) -> Path:
    picture = Pillow.fromarray(GREY % 7, "L").convert("P")
    picture.putpalette(colours)
    picture.putdata((GREY % 7).ravel().tolist())
    picture.save(path)
    return path


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_grey_and_rgb_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    grey = read_volume(save(tmp_path / f"g{suffix}", GREY))
    np.testing.assert_array_equal(grey.array_CZYX[0, 0], GREY)
    assert grey.geometry == Geometry.pixels((1, 20, 30))
    rgb = read_volume(save(tmp_path / f"c{suffix}", RGB))
    np.testing.assert_array_equal(rgb.array_CZYX[:, 0], np.moveaxis(RGB, -1, 0))
    assert read_grid(tmp_path / f"c{suffix}") == (3, Geometry.pixels((1, 20, 30)))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_16_bits_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"g{suffix}", GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_volume(tmp_path / f"g{suffix}").array_CZYX[0, 0], GREY.astype(int) * 257)


def test_rgb_of_16_bits_is_not_cut_to_8(tmp_path: Path) -> None:
    wide = RGB.astype(np.uint16) * 251 + 3
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    parts = [
        (b"IHDR", struct.pack(">2I5B", 30, 20, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts)
    (tmp_path / "w.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    np.testing.assert_array_equal(read_volume(tmp_path / "w.png").array_CZYX[:, 0], np.moveaxis(wide, -1, 0))


def test_jpeg_is_an_image_and_never_a_label_map(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8)
    path = save(tmp_path / "g.jpg", smooth)
    assert np.abs(read_image(path).array_CZYX[0, 0] - smooth).max() <= 3
    with pytest.raises(ImageError, match="JPEG, whose compression changes label values") as caught:
        read_label(path)
    assert caught.value.code == "E-IMAGE-LOSSY"
    assert output_suffix(path) == ".png"


def test_a_tiff_with_jpeg_compression_is_no_label_map(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "g.tif", GREY, compression="jpeg")
    assert read_image(tmp_path / "g.tif").array_CZYX.shape == (1, 1, 20, 30)
    with pytest.raises(ImageError, match="JPEG compression"):
        read_label(tmp_path / "g.tif")


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_palette_is_colours_of_an_image_and_values_of_a_label_map(tmp_path: Path, suffix: str) -> None:
    path = palette_picture(tmp_path / f"p{suffix}", [n for index in range(7) for n in (30 * index, 10, index)])
    image_CYX = read_image(path).array_CZYX[:, 0]
    np.testing.assert_array_equal(image_CYX, [30.0 * (GREY % 7), np.full_like(GREY, 10), GREY % 7])
    np.testing.assert_array_equal(read_label(path).array_ZYX[0], GREY % 7)
    assert read_grid(path)[0] == 3


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_palette_of_grey_is_one_channel(tmp_path: Path, suffix: str) -> None:
    path = palette_picture(tmp_path / f"p{suffix}", [n for index in range(7) for n in (9 * index,) * 3])
    np.testing.assert_array_equal(read_image(path).array_CZYX, 9.0 * (GREY % 7)[None, None])
    assert read_grid(path)[0] == 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_bit_is_0_and_1(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read_label(save(tmp_path / f"b{suffix}", GREY > 99)).array_ZYX[0], GREY > 99)


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGBA"), ("a.png", "LA"), ("a.tif", "RGBA")])
def test_alpha_is_refused_with_the_reason(tmp_path: Path, name: str, mode: str) -> None:
    path = save(tmp_path / name, GREY, mode)
    for read in (read_image, read_label, read_grid):
        with pytest.raises(ImageError, match="alpha channel") as caught:
            read(path)
        assert "without alpha" in (caught.value.remedy or "")


def test_the_fourth_byte_of_a_bmp_is_alpha_unless_it_is_the_same_everywhere(tmp_path: Path) -> None:
    path = save(tmp_path / "a.bmp", RGB, "RGBA")
    np.testing.assert_array_equal(read_image(path).array_CZYX[:, 0], RGB.transpose(2, 0, 1))
    content = bytearray(path.read_bytes())
    content[-1] = 7  # of the last pixel
    path.write_bytes(content)
    with pytest.raises(ImageError, match="alpha channel"):
        read_image(path)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_grey_saved_as_rgb_is_one_channel_where_one_is_declared(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"g{suffix}", GREY, "RGB")
    assert len(read_channels([path]).array_CZYX) == 3
    np.testing.assert_array_equal(read_channels([path], n_channels=1).array_CZYX[0, 0], GREY)
    np.testing.assert_array_equal(read_label(path).array_ZYX[0], GREY)
    colours = save(tmp_path / f"c{suffix}", RGB)
    assert len(read_channels([colours], n_channels=1).array_CZYX) == 3  # refused later, with both numbers
    with pytest.raises(ImageError, match="is in colour") as caught:
        read_label(colours)
    assert "the class value" in (caught.value.remedy or "")


def test_a_grey_picture_fills_three_declared_channels_and_a_volume_never_does(tmp_path: Path) -> None:
    image = read_channels([save(tmp_path / "g.png", GREY)], n_channels=3)
    np.testing.assert_array_equal(image.array_CZYX, np.repeat(GREY[None, None], 3, axis=0))
    write_image(tmp_path / "v.nii.gz", np.zeros((1, 4, 5, 6)), Geometry.plain((4, 5, 6)))
    assert len(read_channels([tmp_path / "v.nii.gz"], n_channels=3).array_CZYX) == 1


def test_chunks_without_pixels_are_not_shown_to_the_decoder(tmp_path: Path) -> None:
    """A colour profile or a text may be a compressed bomb."""
    buffer = io.BytesIO()
    Pillow.fromarray(GREY).save(buffer, "PNG")
    content = buffer.getvalue()
    bomb = b"x\0\0" + zlib.compress(bytes(200_000_000 // 40))
    chunk = struct.pack(">I", len(bomb)) + b"zTXt" + bomb + struct.pack(">I", zlib.crc32(b"zTXt" + bomb))
    (tmp_path / "g.png").write_bytes(content[:33] + chunk + content[33:])
    np.testing.assert_array_equal(read_volume(tmp_path / "g.png").array_CZYX[0, 0], GREY)


STACK = np.random.default_rng(2).integers(0, 60000, (5, 20, 30)).astype(np.uint16)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
def test_pages_of_a_tiff_are_slices(tmp_path: Path, compression: str | None) -> None:
    tifffile.imwrite(tmp_path / "s.tif", STACK, photometric="minisblack", compression=compression, metadata=None)
    volume = read_volume(tmp_path / "s.tif")
    np.testing.assert_array_equal(volume.array_CZYX[0], STACK)
    assert volume.geometry == Geometry.pixels((5, 20, 30))
    assert read_grid(tmp_path / "s.tif") == (1, volume.geometry)


def test_tiles_big_endian_and_bigtiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", STACK[0], tile=(16, 16), byteorder=">", bigtiff=True, compression="zlib")
    np.testing.assert_array_equal(read_volume(tmp_path / "t.tif").array_CZYX[0, 0], STACK[0])


def test_imagej_declares_channels_and_spacing(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "i.tif",
        np.stack([STACK, STACK + 1], axis=1),
        imagej=True,
        resolution=(2, 4),
        metadata={"axes": "ZCYX", "unit": "um", "spacing": 3.0},
    )
    volume = read_volume(tmp_path / "i.tif")
    np.testing.assert_array_equal(volume.array_CZYX, [STACK, STACK + 1])
    np.testing.assert_allclose(volume.geometry.spacing_ZYX, (3e-3, 0.25e-3, 0.5e-3))


@pytest.mark.parametrize("order", ["CZYX", "ZCYX"])
def test_ome_declares_channels_and_spacing(tmp_path: Path, order: str) -> None:
    both = np.stack([STACK, STACK + 1], axis=order.index("C"))
    sizes = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeZ": 3}
    tifffile.imwrite(tmp_path / "o.ome.tif", both, metadata={"axes": order, **sizes}, photometric="minisblack")
    volume = read_volume(tmp_path / "o.ome.tif")
    np.testing.assert_array_equal(volume.array_CZYX, [STACK, STACK + 1])
    np.testing.assert_allclose(volume.geometry.spacing_ZYX, (3e-3, 0.25e-3, 0.5e-3))


def test_points_in_time_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.ome.tif", STACK, metadata={"axes": "TYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "j.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    for name in ("t.ome.tif", "j.tif"):
        with pytest.raises(ImageError, match="5 points in time"):
            read_image(tmp_path / name)


def test_pages_of_different_sizes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "d.tif") as writer:
        writer.write(STACK[0])
        writer.write(STACK[0, :10])
    with pytest.raises(ImageError, match="pages of different sizes"):
        read_image(tmp_path / "d.tif")


def write_ome(path: Path, n_channels: int, n_slices: int, *planes: str, images: int = 1) -> Path:
    """Six pages with the values 1 to 6, and the ``TiffData`` elements of an image."""
    pages = np.stack([np.full((8, 9), page + 1, np.uint8) for page in range(6)])
    pixels = (
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="9" SizeY="8" SizeZ="{n_slices}" '
        f'SizeC="{n_channels}" SizeT="1">{"".join(f"<TiffData {plane}/>" for plane in planes)}</Pixels>'
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        + f'<Image ID="Image:0">{pixels}</Image>' * images
        + "</OME>"
    )
    tifffile.imwrite(path, pages, photometric="minisblack", metadata=None, description=text)
    return path


PLANES = {
    "all": ((1, 6), [""], [[1, 2, 3, 4, 5, 6]]),
    "none": ((1, 6), [], [[1, 2, 3, 4, 5, 6]]),
    "reversed": ((1, 6), [f'FirstZ="{z}" IFD="{5 - z}"' for z in range(6)], [[6, 5, 4, 3, 2, 1]]),
    "channels between": (
        (2, 3),
        [f'FirstZ="{z}" FirstC="{c}" IFD="{2 * z + c}" PlaneCount="1"' for z in range(3) for c in range(2)],
        [[1, 3, 5], [2, 4, 6]],
    ),
    "runs": ((2, 3), ['FirstC="1" IFD="0" PlaneCount="3"', 'IFD="3" PlaneCount="3"'], [[4, 5, 6], [1, 2, 3]]),
    "from the third page": ((1, 4), ['IFD="2" PlaneCount="4"'], [[3, 4, 5, 6]]),
}


@pytest.mark.parametrize("case", PLANES)
def test_ome_planes_are_read_from_the_pages_that_the_file_names(case: str, tmp_path: Path) -> None:
    (n_channels, n_slices), planes, expected = PLANES[case]
    path = write_ome(tmp_path / "o.ome.tif", n_channels, n_slices, *planes)
    assert read_image(path).array_CZYX[..., 0, 0].tolist() == expected
    if n_slices * n_channels == 6:
        assert tifffile.imread(path).reshape(n_channels, n_slices, 8, 9)[..., 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("planes", "problem"),
    [
        (['IFD="0"', 'FirstZ="2" IFD="1"'], "no page for 1 of 3 planes"),
        (['IFD="0"', 'IFD="1"', 'FirstZ="1" IFD="1"'], "planes that have a page"),
        (['IFD="4" PlaneCount="3"'], "beyond its end"),
        (['FirstZ="3" IFD="0"'], "slice 3 of channel 0, which it does not declare"),
        (['FirstZ="x"'], "'x' in FirstZ"),
    ],
)
def test_ome_planes_without_a_page_of_their_own_are_rejected(planes: list[str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=problem):
        read_image(write_ome(tmp_path / "o.ome.tif", 1, 3, *planes))


def test_complex_numbers_are_rejected(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.full((8, 9), 1 + 2j, np.complex64))
    with pytest.raises(ImageError, match="contains complex numbers"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize(("dtype", "white"), [("bool", 1), ("uint8", 255), ("uint16", 65535)])
def test_a_tiff_whose_0_is_white_is_read_inverted(tmp_path: Path, dtype: str, white: int) -> None:
    stored = (GREY % 2).astype(dtype)
    tifffile.imwrite(tmp_path / "w.tif", stored, photometric="miniswhite", metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "w.tif").array_CZYX[0, 0], white - (GREY % 2).astype(int))
    np.testing.assert_array_equal(read_label(tmp_path / "w.tif").array_ZYX[0], white - (GREY % 2).astype(int))


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_tiff_whose_0_is_white_keeps_the_values_of_imagej_only(tmp_path: Path, dtype: str) -> None:
    stored = GREY.astype(dtype)
    tifffile.imwrite(
        tmp_path / "j.tif", stored, photometric="miniswhite", metadata=None, description="ImageJ=1.54f\nimages=1\n"
    )
    np.testing.assert_array_equal(read_image(tmp_path / "j.tif").array_CZYX[0, 0], GREY)
    tifffile.imwrite(tmp_path / "w.tif", stored, photometric="miniswhite", metadata=None)
    with pytest.raises(ImageError, match="0 is white") as caught:
        read_image(tmp_path / "w.tif")
    assert "photometric interpretation 1" in caught.value.remedy


def test_a_tiff_palette_of_8_bits_keeps_its_colours(tmp_path: Path) -> None:
    colours = np.arange(3 * 256, dtype=np.uint16).reshape(3, 256) % 251
    tifffile.imwrite(tmp_path / "p.tif", GREY, photometric="palette", colormap=colours, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif").array_CZYX[:, 0], colours[:, GREY])


def test_an_ome_file_of_several_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="contains 2 images") as caught:
        read_image(write_ome(tmp_path / "o.ome.tif", 1, 3, images=2))
    assert "a file of its own" in caught.value.remedy


def test_more_scans_of_a_jpeg_than_programs_write_are_rejected(tmp_path: Path) -> None:
    """Each scan takes time for the whole picture, however few bytes it has."""
    Pillow.fromarray(np.full((16, 16), 128, np.uint8)).save(tmp_path / "x.jpg", progressive=True)
    assert read_image(tmp_path / "x.jpg").array_CZYX.shape == (1, 1, 16, 16)
    content = (tmp_path / "x.jpg").read_bytes()
    last = content.rindex(b"\xff\xda")
    (tmp_path / "x.jpg").write_bytes(content[:-2] + content[last:-2] * 200 + content[-2:])
    with pytest.raises(ImageError, match="more than 100 scans"):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("suffix", [".tif", ".ome.tiff"])
def test_a_label_map_in_mm_keeps_its_spacing(tmp_path: Path, suffix: str) -> None:
    geometry = Geometry.plain(STACK.shape, spacing_ZYX=(2e-3, 5e-4, 4e-6))
    write_label(tmp_path / f"l{suffix}", STACK, geometry)
    label = read_label(tmp_path / f"l{suffix}")
    np.testing.assert_array_equal(label.array_ZYX, STACK)
    np.testing.assert_allclose(label.geometry.spacing_ZYX, geometry.spacing_ZYX)
    assert (tmp_path / f"l{suffix}").read_bytes().count(b"OME") > 0


def test_the_spacing_may_lie_beside_a_tiff_as_in_nnunet(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cell_0000.tif", STACK, photometric="minisblack", metadata=None)
    (tmp_path / "cell.json").write_text('{"spacing": [0.5, 0.25, 0.125]}')
    assert read_image(tmp_path / "cell_0000.tif").geometry.spacing_ZYX == (0.5, 0.25, 0.125)


def test_a_spacing_may_be_given(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", STACK, photometric="minisblack", metadata=None)
    geometry = read_grid(tmp_path / "s.tif", spacing=(2.0, 1.0, 1.5))[1]
    assert (geometry.spacing_ZYX, geometry.unit) == ((2.0, 1.0, 1.5), "mm")


def test_pictures_beside_volumes_are_not_cases(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nii.gz", np.zeros((1, 4, 5, 6)), Geometry.plain((4, 5, 6)))
    save(tmp_path / "a.png", GREY)
    assert find_inputs(tmp_path) == {"a": (tmp_path / "a.nii.gz",)}
    (tmp_path / "a.nii.gz").unlink()
    assert find_inputs(tmp_path) == {"a": (tmp_path / "a.png",)}


def png_header(width: int, height: int) -> bytes:
    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.png", png_header(30000, 30000)),
        ("x.png", png_header(2**31, 4)),
        (
            "x.bmp",
            b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + struct.pack("<I2i2H6I", 40, 30000, 30000, 1, 24, *[0] * 6),
        ),
        ("x.jpg", b"\xff\xd8\xff\xc0\x00\x0b\x08\x75\x30\x75\x30\x01\x01\x11\x00\xff\xda" + bytes(50)),
        (
            "x.tif",
            b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 9) + struct.pack("<I", 8),
        ),
        ("x.mgz", b""),
        ("x.mgh", struct.pack(">7ih15f", 1, 30000, 30000, 30000, 1, 0, 0, 1, *[1.0] * 15)),
    ],
)
def test_a_file_that_declares_more_than_it_holds_is_refused_before_memory_is_used(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / name)
    assert caught.value.remedy


def test_a_tile_larger_than_its_bytes_can_hold_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", STACK[0], tile=(16, 16), compression="zlib", metadata=None)
    content = bytearray((tmp_path / "t.tif").read_bytes())
    for tag in (322, 323):  # width and length of a tile
        at = content.index(struct.pack("<HHII", tag, 4, 1, 16))
        struct.pack_into("<HHII", content, at, tag, 4, 1, 16384)
    (tmp_path / "t.tif").write_bytes(bytes(content))
    with pytest.raises(ImageError, match="declares"):
        read_image(tmp_path / "t.tif")


def test_pages_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Else a small file with many directories would fill the memory."""
    page, directory = bytes(4000), []
    for number in range(60):
        tags = ((256, 40), (257, 100), (258, 8), (259, 1), (262, 1), (273, 8), (278, 100), (279, 4000))
        after = 8 + 4000 + (number + 1) * (6 + 12 * len(tags))
        body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        directory.append(struct.pack("<H", len(tags)) + body + struct.pack("<I", 0 if number == 59 else after))
    content = b"II*\0" + struct.pack("<I", 4008) + page + b"".join(directory)
    (tmp_path / "p.tif").write_bytes(content)
    with pytest.raises(ImageError, match="than the file can hold"):
        read_image(tmp_path / "p.tif")


@pytest.mark.parametrize("suffix", [".bmp", ".png"])
def test_a_pixel_beyond_the_palette_is_damage(tmp_path: Path, suffix: str) -> None:
    """Decoders differ in what they show for it."""
    path = tmp_path / f"x{suffix}"
    picture = Pillow.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).convert("P")
    picture.save(path)
    content = bytearray(path.read_bytes())
    if suffix == ".bmp":
        struct.pack_into("<I", content, 46, 5)
    else:
        at = content.index(b"PLTE")
        (length,) = struct.unpack(">I", content[at - 4 : at])
        entry = b"PLTE" + bytes(content[at + 4 : at + 19])
        content[at - 4 : at + 8 + length] = struct.pack(">I", 15) + entry + struct.pack(">I", zlib.crc32(entry))
    path.write_bytes(bytes(content))
    with pytest.raises(ImageError, match="of a palette with 5 colours"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pictures_that_are_not_stored_upright_are_refused(tmp_path: Path, name: str, orientation: int) -> None:
    path = tmp_path / name
    exif = Pillow.Exif()
    exif[274] = orientation
    tags = {"tiffinfo": {274: orientation}} if name == "a.tif" else {"exif": exif}
    Pillow.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(path, **tags)
    if orientation == 1:
        assert read_image(path).array_CZYX.shape == (1, 1, 6, 8)
        return
    for read in (read_image, read_grid):
        with pytest.raises(ImageError, match=rf"rotated or mirrored \(orientation {orientation}"):
            read(path)


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\xff\xff\x01\x12", b"junk" * 5])
def test_exif_without_an_orientation_is_upright(exif: bytes) -> None:
    assert exif_orientation(exif) == 1
