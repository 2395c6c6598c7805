"""NIfTI, plain and gzipped: every field of the header takes extreme values."""

from __future__ import annotations

import gzip
import struct
from io import BytesIO
from random import Random

import nibabel
import numpy as np

from robustness.byte_mutations import BYTE_MUTATIONS, near_start
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.phantom import ORIGIN_XYZ, SPACING_XYZ, make_phantom

_PLAIN, _GZIPPED = "mutant.nii", "mutant.nii.gz"
_HEADER_LENGTH = 352

FIELDS: dict[str, tuple[int, str]] = {
    "sizeof_hdr": (0, "i"),
    **{f"dim[{i}]": (40 + 2 * i, "h") for i in range(8)},
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    **{f"pixdim[{i}]": (76 + 4 * i, "f") for i in range(8)},
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    **{f"quatern[{i}]": (256 + 4 * i, "f") for i in range(6)},
    **{f"srow[{i}]": (280 + 4 * i, "f") for i in range(12)},
    "magic": (344, "i"),
    "extension": (348, "i"),
}
"""Fields of the header of NIfTI-1: offset and type."""

_INTEGERS = (0, 1, -1, 2, 3, 4, 7, 8, 9, 16, 64, 128, 256, 512, 768, 999, 1024, 1536, 1792, 2304, 32767, -32768)
_FLOATS = (0.0, -1.0, 1.0, float("nan"), float("inf"), float("-inf"), 3e38, 1e-38, 1e-7, 352.0, 1e9, 1e30, 0.5, 250.0)


def set_field(data: bytes, name: str, value: float) -> bytes:
    """Return a NIfTI with one field of its header replaced."""
    offset, kind = FIELDS[name]
    changed = bytearray(data)
    low, high = {"h": (-(2**15), 2**15 - 1), "i": (-(2**31), 2**31 - 1), "B": (0, 255)}.get(kind, (0, 0))
    struct.pack_into(f"<{kind}", changed, offset, value if kind == "f" else max(low, min(high, int(value))))
    return bytes(changed)


def change_fields(data: bytes, random: Random) -> bytes:
    """Set one to three fields to extreme values."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        name = random.choice(list(FIELDS))
        data = set_field(data, name, random.choice(_FLOATS if FIELDS[name][1] == "f" else _INTEGERS))
    return data


def enlarge(data: bytes, random: Random) -> bytes:
    """Claim dimensions that the file cannot hold, with consistent types, so that a reader must compare."""
    sizes = random.choice(((32767, 32767, 1), (2000, 2000, 500), (12, 10, 9), (13, 10, 8), (1, 1, 1), (32767, 1, 1)))
    for axis, size in enumerate(sizes, start=1):
        data = set_field(data, f"dim[{axis}]", size)
    datatype, bits = random.choice(((2, 8), (4, 16), (16, 32), (64, 64), (1024, 64)))
    return set_field(set_field(data, "datatype", datatype), "bitpix", bits)


def change_grid(data: bytes, random: Random) -> bytes:
    """Change the codes together with the grid that they select, so that the damaged one is used."""
    code = random.choice(("sform_code", "qform_code", "none"))
    data = set_field(set_field(data, "sform_code", 0), "qform_code", 0)
    if code != "none":
        data = set_field(data, code, random.choice((1, 2, 4)))
    names = {"sform_code": "srow", "qform_code": "quatern", "none": "pixdim"}[code]
    name = random.choice([n for n in FIELDS if n.startswith(names) and n not in ("pixdim[0]", "pixdim[4]")])
    return set_field(data, name, random.choice(_FLOATS))


def zeros_that_unpack(data: bytes, random: Random) -> bytes:
    """Follow the header by zeros, which gzip packs 1000 to 1."""
    size = random.choice((2**20, 2**24))
    return set_field(set_field(data, "dim[1]", 32767), "dim[2]", 512)[:_HEADER_LENGTH] + b"\0" * size


def _inside(mutation):  # type: ignore[no-untyped-def]
    return lambda data, random: gzip.compress(mutation(gzip.decompress(data), random), 1, mtime=0)


def _make_plain() -> bytes:
    image_XYZ, _ = make_phantom()
    affine = np.diag([*SPACING_XYZ, 1.0])
    affine[:3, 3] = ORIGIN_XYZ
    image = nibabel.Nifti1Image(image_XYZ, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    stream = BytesIO()
    image.to_stream(stream)
    return stream.getvalue()


_HEADER = {"fields": change_fields, "enlarge": enlarge, "grid": change_grid}
_NEAR = {f"{name}_in_header": near_start(BYTE_MUTATIONS[name], _HEADER_LENGTH) for name in ("flip_bits", "set_bytes")}


def _mutations(name: str, packed: bool) -> dict[str, FileMutation]:
    header = _HEADER | _NEAR | ({"zeros": zeros_that_unpack} if packed else {})
    chosen = {kind: on_file(name, _inside(m) if packed else m) for kind, m in header.items()}
    if packed:
        chosen |= {f"{kind}_inside": on_file(name, _inside(m)) for kind, m in BYTE_MUTATIONS.items()}
    return byte_mutations(name) | chosen


def _plain_files() -> Files:
    return {_PLAIN: _make_plain()}


def _gzipped_files() -> Files:
    return {_GZIPPED: gzip.compress(_make_plain(), mtime=0)}


_ACTIONS = ("read", "check", "predict")
FORMATS = (
    Format(name="nifti", make=_plain_files, entry=_PLAIN, mutations=_mutations(_PLAIN, False), actions=_ACTIONS),
    Format(
        name="nifti_gz", make=_gzipped_files, entry=_GZIPPED, mutations=_mutations(_GZIPPED, True), actions=_ACTIONS
    ),
)
