"""Damaged and hostile image files: every outcome is an image or an error that names the file.

Valid files are changed byte by byte and field by field. A changed file may still be an image (a bit of an uncompressed
voxel differs), but nothing else may be raised, and memory stays in proportion to the file.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.images import holds_integers, read_grid, read_image, read_label, read_volume, write_volume
from guards import HANG_S

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
READS = (read_image, read_label, read_volume, read_grid, holds_integers)
MAX_BYTES = 2**24
TOKENS = (
    *("0", "-1", "1", "2", "3", "1e38", "-1e38", "1e999", "nan", "inf", "", " ", "none", "True", "LIST", "LOCAL", "%d"),
    *("32767", "32768", "2147483648", "9223372036854775808", "9" * 5000, "x" * 5000, "/etc/passwd", "../a", "\0", "\n"),
    *(
        "(1,0,0)",
        "()",
        "(1,0",
        "raw",
        "gzip",
        "hex",
        "ascii",
        "bzip2",
        "list",
        "vector",
        "double",
        "MET_DOUBLE",
        "short",
    ),
    *("\n\n", ": ", ":=", " = ", "é", "\udcff"),
)


def make_file(folder: Path, suffix: str) -> Path:
    path = folder / f"valid{suffix}"
    voxels = np.arange(3 * 4 * 5, dtype=np.int16).reshape(1, 3, 4, 5)
    write_volume(path, voxels, Geometry.plain((3, 4, 5), spacing_ZYX=(2.5, 0.8, 0.7)))
    return path


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("valid")
    return {suffix: make_file(folder, suffix).read_bytes() for suffix in SUFFIXES}


def change_bytes(draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(changed), 700) - 1))
        what = draw(st.sampled_from(["set", "insert", "delete", "repeat", "cut"]))
        if what == "set":
            changed[at] = draw(st.integers(0, 255))
        elif what == "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif what == "delete":
            del changed[at : at + draw(st.integers(1, 8))]
        elif what == "repeat":
            changed[at:at] = changed[at : at + 40] * draw(st.sampled_from([1, 3, 200]))
        else:
            del changed[at + 1 :]
        if not changed:
            return b""
    return bytes(changed)


def change_fields(draw, content: bytes) -> bytes:
    """Replace a word of a text header, or a field of a NIfTI header by a special number."""
    end = content.find(b"LOCAL\n") + 6 if b"LOCAL\n" in content else content.find(b"\n\n")
    if content[:4] == b"\x5c\x01\0\0":
        at, size = draw(st.integers(0, 343)), draw(st.sampled_from([1, 2, 4, 8]))
        special = [
            b"\0" * size,
            b"\xff" * size,
            b"\x7f" * size,
            b"\x80" + b"\0" * (size - 1),
            b"\0" * (size - 1) + b"\x7f",
        ]
        return content[:at] + draw(st.sampled_from(special)) + content[at + size :]
    lines = content[:end].split(b"\n")
    for _ in range(draw(st.integers(1, 3))):
        k = draw(st.integers(0, len(lines) - 1))
        words = lines[k].split(b" ")
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(TOKENS)).encode("utf-8", "surrogateescape")
        lines[k] = b" ".join(words)
    return b"\n".join(lines) + content[end:]


@st.composite
def mutations(draw, content: bytes) -> bytes:
    return draw(st.sampled_from([change_bytes, change_fields]))(draw, content)


def assert_image_or_error(path: Path) -> None:
    """Read in all ways; memory is bounded by the size of the file and of small buffers."""
    problems = []
    for read in READS:
        tracemalloc.start()
        try:
            read(path)
        except ImageError as problem:
            problems.append(problem)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MAX_BYTES
    assert all(path.name in str(problem) and problem.remedy for problem in problems)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_outcome_is_an_image_or_an_error(tmp_path: Path, valid, suffix, data) -> None:
    content = gzip.decompress(valid[suffix]) if suffix.endswith(".gz") else valid[suffix]
    changed = data.draw(mutations(content))
    inside = suffix.endswith(".gz") and data.draw(st.booleans())
    if suffix.endswith(".gz"):
        changed = gzip.compress(changed) if inside else data.draw(mutations(gzip.compress(content)))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(changed)
    assert_image_or_error(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=800))
def test_any_bytes_are_an_error(tmp_path: Path, suffix, content) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(ImageError):
        read_image(path)


READ_ALL = """
import sys
from pathlib import Path
from decathlete.errors import ImageError
from decathlete.io.images import read_image

for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_image(path)
        print(path.name, "image")
    except ImageError as problem:
        print(path.name, problem.code)
"""


def test_no_header_ends_the_process(tmp_path: Path, valid) -> None:
    """Lines on which SimpleITK's reader of NRRD crashes, and the like in other formats, in a process of their own."""
    hostile = ["v" * n for n in (500, 1000, 1500, 5000, 60_000, 100_000)]
    hostile += [f"sizes: 7 6 {'x' * n}" for n in (1000, 2000, 60_000)]
    hostile += [f'labels: "{"v" * n}' for n in (1000, 2000, 60_000)]
    hostile += [f"{'k' * n}:=v" for n in (2000, 60_000)] + [f"content: {'v' * n}" for n in (2000, 60_000)]
    hostile += [f"data file: {'%s' * n}" for n in (1, 50)] + [f"kinds: {'domain ' * n}" for n in (30, 1000)]
    for suffix in (".nrrd", ".mha"):
        first, _, rest = valid[suffix].partition(b"\n")
        for k, line in enumerate(hostile):
            (tmp_path / f"{k:02}{suffix}").write_bytes(b"\n".join([first, line.encode(), rest]))
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_S)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = dict(line.split() for line in done.stdout.splitlines())
    assert len(outcomes) == 2 * len(hostile)
    assert {outcomes[f"{k:02}.nrrd"] for k in range(5)} == {"E-IMAGE-HEADER"}
