"""NRRD with the voxels attached or in a file of their own, and gzipped: lines and numbers of the header change."""

from __future__ import annotations

import gzip
from random import Random

from robustness.byte_mutations import ByteMutation, change_line, change_number
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.phantom import ORIGIN_XYZ, SHAPE_XYZ, SPACING_XYZ, make_phantom

_ATTACHED, _HEADER, _VOXELS = "mutant.nrrd", "mutant.nhdr", "mutant.raw"
_POINTERS = (
    "/etc/passwd",
    "../../../../etc/passwd",
    "mutant.nhdr",
    "missing.raw",
    "LIST 3",
    "%03d.raw 0 9 1",
    "",
    "/dev/zero",
)
_BOMBS = (
    "sizes: 32767 32767 32767",
    "sizes: 2000 2000 500",
    "sizes: 0 10 8",
    "sizes: 12 10",
    "sizes: -12 10 8",
    "dimension: 16",
    "dimension: 0",
    "dimension: 9999999",
    "type: block\nblocksize: 2147483647",
    "encoding: bzip2",
    "encoding: ascii",
    "encoding: hex",
    "byteskip: 9223372036854775807",
    "byteskip: -1",
    "lineskip: 2147483647",
    "space directions: (nan,0,0) (0,1,0) (0,0,1)",
    "space directions: (0,0,0) (0,0,0) (0,0,0)",
    "space directions: none (0,1,0) (0,0,1)",
    "space directions: (1,0,0) (1,0,0) (0,0,1)",
    "space directions: (1e38,0,0) (0,1,0) (0,0,1)",
    "space directions: (0.0000001,0,0) (0,1,0) (0,0,1)",
    "space: 4D-left-posterior-superior-time",
    "kinds: " + "domain " * 400,
    "sizes: " + "9" * 3000,
    "x" * 5000 + ": y",
    "space directions: " + "(" * 4000,
    "space origin: " + "(1,1,1" * 600,
    "measurement frame: (1,0,0) (0,1,0) (0,0,1)",
)
"""Lines that replace the honest line of their field, or are added."""


def header(encoding: str, *, pointer: str = "") -> bytes:
    """Return the honest header."""
    dx, dy, dz = SPACING_XYZ
    lines = (
        "NRRD0005",
        "type: int16",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, SHAPE_XYZ))}",
        f"space directions: ({dx},0,0) (0,{dy},0) (0,0,{dz})",
        "kinds: domain domain domain",
        "endian: little",
        f"encoding: {encoding}",
        f"space origin: ({','.join(map(str, ORIGIN_XYZ))})",
        *([f"data file: {pointer}"] if pointer else []),
    )
    return ("\n".join(lines) + "\n").encode() + (b"" if pointer else b"\n")


def _voxels() -> bytes:
    return make_phantom()[0].transpose(2, 1, 0).astype("<i2").tobytes()


def _in_header(mutation: ByteMutation) -> ByteMutation:
    """Apply a mutation to the text before the empty line."""

    def mutate(data: bytes, random: Random) -> bytes:
        text, separator, rest = data.partition(b"\n\n")
        return mutation(text + b"\n", random).rstrip(b"\n") + separator + rest

    return mutate


def set_line(text: bytes, line: str) -> bytes:
    """Replace the line of the same field, or add the line before the end."""
    field = line.partition(":")[0].encode() + b":"
    lines = [old for old in text.rstrip(b"\n").split(b"\n") if not old.startswith(field)]
    return b"\n".join([*lines, line.encode()]) + b"\n"


def add_bomb(text: bytes, random: Random) -> bytes:
    """Set one field to a value that is costly or nonsense."""
    return set_line(text, random.choice(_BOMBS))


def long_line(text: bytes, random: Random) -> bytes:
    """Make one line longer than what a fixed buffer holds."""
    lines = text.split(b"\n")
    at = random.randrange(1, len(lines))
    lines[at] += random.choice((b" ", b"A", b"(", b"9", b"\xff", b"%n")) * random.choice((500, 1500, 5000, 100_000))
    return b"\n".join(lines)


def point_elsewhere(text: bytes, random: Random) -> bytes:
    """Name another file as the voxels'."""
    return set_line(text, f"data file: {random.choice(_POINTERS)}")


_TEXT: dict[str, ByteMutation] = {
    "line": change_line,
    "number": change_number,
    "bomb": add_bomb,
    "long_line": long_line,
    "pointer": point_elsewhere,
}


def _mutations(name: str, *more: str) -> dict[str, FileMutation]:
    found = byte_mutations(name) | {kind: on_file(name, _in_header(m)) for kind, m in _TEXT.items()}
    for other in more:
        found |= {f"{kind}_of_voxels": m for kind, m in byte_mutations(other).items() if kind in ("truncate", "delete")}
    return found


def _attached() -> Files:
    return {_ATTACHED: header("raw") + _voxels()}


def _gzipped() -> Files:
    return {_ATTACHED: header("gzip") + gzip.compress(_voxels(), mtime=0)}


def _detached() -> Files:
    return {_HEADER: header("raw", pointer=_VOXELS), _VOXELS: _voxels()}


_ACTIONS = ("read", "check", "predict")
FORMATS = (
    Format(name="nrrd", make=_attached, entry=_ATTACHED, mutations=_mutations(_ATTACHED), actions=_ACTIONS),
    Format(name="nrrd_gzip", make=_gzipped, entry=_ATTACHED, mutations=_mutations(_ATTACHED), actions=_ACTIONS),
    Format(name="nhdr", make=_detached, entry=_HEADER, mutations=_mutations(_HEADER, _VOXELS), actions=_ACTIONS),
)
