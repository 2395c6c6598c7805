"""PNG, BMP, JPEG and TIFF: fields of headers, chunks, markers and directories take extreme values."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from random import Random

import numpy as np
import tifffile
from PIL import Image

from robustness.byte_mutations import BYTE_MUTATIONS, ByteMutation, near_start
from robustness.formats import Files, Format, byte_mutations, on_file
from robustness.phantom import make_phantom

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def slice_picture(array_XYZ: np.ndarray, kind: str = "PNG", *, mode: str = "L", **options: object) -> bytes:
    """Return a slice of a volume as a picture."""
    slice_YX = np.clip(array_XYZ[:, :, 4].T, 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(slice_YX).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def _saved(kind: str, **options: object) -> bytes:
    return slice_picture(make_phantom()[0], kind, **options)  # type: ignore[arg-type]


def _pages() -> bytes:
    """A TIFF of several pages, as ImageJ writes it: big-endian, with the spacing in its tags."""
    stream = BytesIO()
    image_ZYX = make_phantom()[0].transpose(2, 1, 0).astype(np.uint16)
    resolution = (1 / 1.0, 1 / 1.25)
    metadata = {"spacing": 2.0, "unit": "mm", "axes": "ZYX"}
    tifffile.imwrite(stream, image_ZYX, imagej=True, resolution=resolution, metadata=metadata)
    return stream.getvalue()


def _stack() -> bytes:
    stream = BytesIO()
    image_ZYX = make_phantom()[0].transpose(2, 1, 0).astype(np.uint16)
    metadata = {"axes": "ZYX", "PhysicalSizeX": 1000.0, "PhysicalSizeY": 1250.0, "PhysicalSizeZ": 2000.0}
    metadata |= {"UUID": "00000000-0000-1000-8000-000000000000"}  # else a new one in each process
    tifffile.imwrite(stream, image_ZYX, photometric="minisblack", ome=True, metadata=metadata)
    return stream.getvalue()


def change_png_field(data: bytes, random: Random) -> bytes:
    """Change a field of IHDR or the length of a chunk; the checksum of the header fits."""
    changed = bytearray(data)
    at = random.choice((16, 20, 24, 25, 26, 28, 33))
    if at in (16, 20, 33):
        struct.pack_into(">I", changed, at, random.choice(_NUMBERS))
    else:
        changed[at] = random.choice(_NUMBERS) % 256
    struct.pack_into(">I", changed, 29, zlib.crc32(bytes(changed[12:29])))
    return bytes(changed)


def add_png_chunk(data: bytes, random: Random) -> bytes:
    """Add a chunk with a valid checksum: transparency, a palette, a second header, a bomb, an animation."""
    name = random.choice((b"tRNS", b"PLTE", b"IHDR", b"zTXt", b"iCCP", b"acTL", b"IDAT", b"IEND", b"eXIf"))
    body = random.choice((b"", b"\0" * 6, bytes(random.randrange(256) for _ in range(40)), zlib.compress(bytes(10**6))))
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    at = random.choice((8, 33, len(data) - 12, len(data)))
    return data[:at] + chunk + data[at:]


def change_field(data: bytes, random: Random, *, start: int, stop: int) -> bytes:
    """Set two or four bytes of a header to an extreme number, in either byte order."""
    changed = bytearray(data)
    kind = random.choice(("<H", ">H", "<I", ">I"))
    at = random.randrange(start, min(stop, len(data)) - 4)
    struct.pack_into(kind, changed, at, random.choice(_NUMBERS) % 2 ** (16 if kind[1] == "H" else 32))
    return bytes(changed)


def in_header(length: int) -> ByteMutation:
    """Return a mutation of a number among the first bytes."""
    return lambda data, random: change_field(data, random, start=2, stop=length)


def in_directory(data: bytes, random: Random) -> bytes:
    """Change a tag of a TIFF directory: its type, number of values or content; or the next directory."""
    changed = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack(order + "I", data[4:8])
    (n_tags,) = struct.unpack(order + "H", data[at : at + 2])
    entry = at + 2 + 12 * random.randrange(n_tags + 1)
    place, size = random.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I")))
    kind = order + size
    if entry + place + 4 <= len(data):
        struct.pack_into(
            kind, changed, entry + place, random.choice((*_NUMBERS, at)) % 2 ** (8 * struct.calcsize(kind))
        )
    return bytes(changed)


def in_description(data: bytes, random: Random) -> bytes:
    """Change a number or a name in the OME-XML, keeping its length."""
    old, new = random.choice(
        (
            (b'SizeZ="8"', b'SizeZ="9"'),
            (b'SizeZ="8"', b'SizeZ="0"'),
            (b'SizeC="1"', b'SizeC="8"'),
            (b'SizeT="1"', b'SizeT="2"'),
            (b'SizeX="12"', b'SizeX="99"'),
            (b"1000.0", b"-1.0e9"),
            (b"1000.0", b"nan   "),
            (b"<Pixels", b"<!-- --"),
            (b"<?xml ", b"<!ENTI"),
            (b"TiffData", b"TiffDatb"),
        )
    )
    return data.replace(old, new)


def _format(
    name: str,
    entry: str,
    content: bytes,
    special: dict[str, ByteMutation],
    *,
    weight: float = 0.5,
    actions: tuple[str, ...] = ("read", "check"),
) -> Format:
    near = {f"{kind}_in_header": near_start(BYTE_MUTATIONS[kind], 60) for kind in ("flip_bits", "set_bytes")}
    chosen = {kind: on_file(entry, mutation) for kind, mutation in (special | near).items()}

    def make() -> Files:
        return {entry: content}

    make.__name__ = f"make_{name}"  # honest inputs are kept by this name
    return Format(
        name=name,
        make=make,
        entry=entry,
        mutations=byte_mutations(entry) | chosen,
        actions=actions,
        weight=weight,
    )


_PNG: dict[str, ByteMutation] = {"fields": change_png_field, "chunks": add_png_chunk}
_JPEG = {"fields": in_header(330)}
FORMATS = (
    _format("png", "mutant.png", _saved("PNG"), _PNG),
    _format("png_colours", "mutant.png", _saved("PNG", mode="RGB"), _PNG, weight=0.25),
    _format("png_palette", "mutant.png", _saved("PNG", mode="P"), _PNG, weight=0.25),
    _format("bmp", "mutant.bmp", _saved("BMP"), {"fields": in_header(54)}),
    _format("jpeg", "mutant.jpg", _saved("JPEG"), _JPEG),
    _format("jpeg_colours", "mutant.jpg", _saved("JPEG", mode="RGB"), _JPEG, weight=0.25, actions=("check",)),
    _format("tiff_pages", "mutant.tif", _pages(), {"tags": in_directory}),
    _format("tiff_deflate", "mutant.tif", _saved("TIFF", compression="tiff_adobe_deflate"), {"tags": in_directory}),
    _format("tiff", "mutant.ome.tif", _stack(), {"tags": in_directory, "description": in_description}),
)
