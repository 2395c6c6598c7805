"""MGZ and MGH: every field of the header takes extreme values."""

from __future__ import annotations

import gzip
import struct
from io import BytesIO
from random import Random

import nibabel
import numpy as np

from robustness.byte_mutations import BYTE_MUTATIONS, ByteMutation, near_start
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.phantom import ORIGIN_XYZ, SPACING_XYZ, make_phantom

_PLAIN, _GZIPPED = "mutant.mgh", "mutant.mgz"
_HEADER_LENGTH = 90
_INTEGERS = (0, 1, -1, 2, 3, 4, 5, 10, 284, 32767, 32768, 2**31 - 1, -(2**31))
_FLOATS = (0.0, -1.0, 1.0, float("nan"), float("inf"), 3e38, 1e-38, 1e-7, 250.0)


def change_fields(data: bytes, random: Random) -> bytes:
    """Set one to three fields to extreme values: seven integers, a flag, fifteen numbers."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        number = random.randrange(23)
        if number < 7:
            struct.pack_into(">i", changed, 4 * number, random.choice(_INTEGERS))
        elif number == 7:
            struct.pack_into(">h", changed, 28, random.choice((0, 1, -1)))
        else:
            struct.pack_into(">f", changed, 30 + 4 * (number - 8), random.choice(_FLOATS))
    return bytes(changed)


def _inside(mutation: ByteMutation) -> ByteMutation:
    return lambda data, random: gzip.compress(mutation(gzip.decompress(data), random), 1, mtime=0)


def _make() -> bytes:
    affine = np.diag([*SPACING_XYZ, 1.0])
    affine[:3, 3] = ORIGIN_XYZ
    stream = BytesIO()
    nibabel.MGHImage(make_phantom()[0], affine).to_stream(stream)
    return stream.getvalue()


def _plain() -> Files:
    return {_PLAIN: _make()}


def _gzipped() -> Files:
    return {_GZIPPED: gzip.compress(_make(), mtime=0)}


def _mutations(name: str, packed: bool) -> dict[str, FileMutation]:
    special: dict[str, ByteMutation] = {"fields": change_fields}
    special |= {f"{kind}_in_header": near_start(BYTE_MUTATIONS[kind], _HEADER_LENGTH) for kind in ("flip_bits",)}
    return byte_mutations(name) | {k: on_file(name, _inside(m) if packed else m) for k, m in special.items()}


_ACTIONS = ("read", "check", "predict")
FORMATS = (
    Format(name="mgh", make=_plain, entry=_PLAIN, mutations=_mutations(_PLAIN, False), actions=_ACTIONS, weight=0.5),
    Format(
        name="mgz", make=_gzipped, entry=_GZIPPED, mutations=_mutations(_GZIPPED, True), actions=_ACTIONS, weight=0.5
    ),
)
