"""MetaImage (.mha, .mhd), plain and compressed: lines and numbers of the header change."""

from __future__ import annotations

import zlib
from random import Random

from robustness.byte_mutations import ByteMutation, change_line, change_number
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.phantom import ORIGIN_XYZ, SHAPE_XYZ, SPACING_XYZ, make_phantom

_ATTACHED, _HEADER, _VOXELS = "mutant.mha", "mutant.mhd", "mutant.raw"
_LAST = b"ElementDataFile = "
_BOMBS = (
    "DimSize = 32767 32767 32767",
    "DimSize = 2000 2000 500",
    "DimSize = 0 10 8",
    "DimSize = 12 10",
    "DimSize = -12 10 8",
    "NDims = 10",
    "NDims = 0",
    "NDims = 99999999",
    "ElementSpacing = 0 1 1",
    "ElementSpacing = nan 1 1",
    "ElementSpacing = -1 1 1",
    "ElementSpacing = 1e38 1 1",
    "ElementSpacing = x y z",
    "Offset = a b c",
    "Offset = 1 2",
    "Offset = inf 0 0",
    "TransformMatrix = 0 0 0 0 0 0 0 0 0",
    "TransformMatrix = 1 0 0 0 1 0",
    "TransformMatrix = nan 0 0 0 1 0 0 0 1",
    "ElementType = MET_DOUBLE",
    "ElementType = MET_STRING",
    "ElementType = MET_NONE",
    "ElementNumberOfChannels = 2147483647",
    "ElementNumberOfChannels = -1",
    "ElementNumberOfChannels = 0",
    "HeaderSize = -1",
    "HeaderSize = 9223372036854775807",
    "CompressedData = True",
    "CompressedDataSize = 1",
    "CompressedDataSize = 9223372036854775807",
    "CompressedDataSize = -5",
    "BinaryDataByteOrderMSB = True",
    "BinaryData = False",
    "DimSize = " + "9" * 3000,
    "Comment = " + "A" * 100_000,
)
_POINTERS = (
    "/etc/passwd",
    "../../../../etc/passwd",
    "mutant.mhd",
    "missing.raw",
    "LIST",
    "%03d.raw 0 9 1",
    "",
    "/dev/zero",
)


def header(pointer: str, *, packed_bytes: int | None = None) -> bytes:
    """Return the honest header."""
    packing = (
        ["CompressedData = False"]
        if packed_bytes is None
        else ["CompressedData = True", f"CompressedDataSize = {packed_bytes}"]
    )
    lines = (
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        *packing,
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        f"Offset = {' '.join(map(str, ORIGIN_XYZ))}",
        "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = RAI",
        f"ElementSpacing = {' '.join(map(str, SPACING_XYZ))}",
        f"DimSize = {' '.join(map(str, SHAPE_XYZ))}",
        "ElementType = MET_SHORT",
        f"ElementDataFile = {pointer}",
    )
    return ("\n".join(lines) + "\n").encode()


def _voxels() -> bytes:
    return make_phantom()[0].transpose(2, 1, 0).astype("<i2").tobytes()


def _before_data(mutation: ByteMutation) -> ByteMutation:
    """Apply a mutation to the lines before the last one of the header."""

    def mutate(data: bytes, random: Random) -> bytes:
        text, _, rest = data.partition(_LAST)
        return mutation(text, random) + _LAST + rest

    return mutate


def add_bomb(text: bytes, random: Random) -> bytes:
    """Set one field to a value that is costly or nonsense."""
    line = random.choice(_BOMBS)
    field = line.partition(" = ")[0].encode() + b" = "
    lines = [old for old in text.split(b"\n") if old and not old.startswith(field)]
    return b"\n".join([*lines, line.encode(), b""])


def long_line(text: bytes, random: Random) -> bytes:
    """Make one line longer than what a fixed buffer holds."""
    lines = text.split(b"\n")
    lines[random.randrange(len(lines))] += random.choice((b" ", b"A", b"9 ", b"\xff")) * random.choice((1500, 100_000))
    return b"\n".join(lines)


def point_elsewhere(data: bytes, random: Random) -> bytes:
    """Name another file as the voxels'."""
    text, _, rest = data.partition(_LAST)
    return text + _LAST + random.choice(_POINTERS).encode() + b"\n" + rest.partition(b"\n")[2]


_TEXT: dict[str, ByteMutation] = {
    "line": change_line,
    "number": change_number,
    "bomb": add_bomb,
    "long_line": long_line,
}


def _mutations(name: str, *more: str) -> dict[str, FileMutation]:
    found = byte_mutations(name) | {kind: on_file(name, _before_data(m)) for kind, m in _TEXT.items()}
    found["pointer"] = on_file(name, point_elsewhere)
    for other in more:
        found |= {f"{kind}_of_voxels": m for kind, m in byte_mutations(other).items() if kind in ("truncate", "delete")}
    return found


def _attached() -> Files:
    return {_ATTACHED: header("LOCAL") + _voxels()}


def _compressed() -> Files:
    packed = zlib.compress(_voxels())
    return {_ATTACHED: header("LOCAL", packed_bytes=len(packed)) + packed}


def _detached() -> Files:
    return {_HEADER: header(_VOXELS), _VOXELS: _voxels()}


_ACTIONS = ("read", "check", "predict")
FORMATS = (
    Format(name="mha", make=_attached, entry=_ATTACHED, mutations=_mutations(_ATTACHED), actions=_ACTIONS),
    Format(name="mha_zlib", make=_compressed, entry=_ATTACHED, mutations=_mutations(_ATTACHED), actions=_ACTIONS),
    Format(name="mhd", make=_detached, entry=_HEADER, mutations=_mutations(_HEADER, _VOXELS), actions=_ACTIONS),
)
