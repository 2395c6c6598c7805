"""Program of a child process that decodes single DICOM frames by GDCM (SimpleITK), until its standard input ends.

GDCM and its codecs crash on some damaged frames. Here this ends the child, which is the failure of one image.

A request is the length of a DICOM file and of its decoded voxels (8 bytes each, little endian), then the file. An
answer is one byte, :data:`DECODED` or :data:`FAILED`, the length of the rest (8 bytes), and an array in NumPy's format
or a message.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil
import SimpleITK as sitk

DECODED, FAILED = b"+", b"-"
HEAD = struct.Struct("<QQ")
CPU_SECONDS = 20
"""Time for one frame; an honest one of 100 megapixels needs some seconds."""
_MEMORY = 2**28
_MEMORY_PER_BYTE = 32
"""Memory for one frame: a fixed part, and one per byte of decoded voxels (JPEG 2000: several arrays of 32 bits)."""


def main() -> None:
    """Answer requests."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # codecs print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to all processes of a terminal: the parent decides
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        file, path = _open_file(Path(folder))
        while head := requests.read(HEAD.size):
            n_bytes, n_voxel_bytes = HEAD.unpack(head)
            file.seek(0)
            file.truncate()
            file.write(requests.read(n_bytes))
            file.flush()
            status, content = _answer(path, n_voxel_bytes)
            answers.write(status + len(content).to_bytes(8, "little"))
            answers.write(content)
            answers.flush()


def _open_file(folder: Path) -> tuple[BinaryIO, str]:
    """Return a file for GDCM, which reads no other source, and its path; on Linux it lies in memory, without a name."""
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("frame.dcm"), "w+b")
        return file, f"/proc/self/fd/{file.fileno()}"
    named = folder / "frame.dcm"
    return named.open("w+b"), str(named)


def _answer(path: str, n_voxel_bytes: int) -> tuple[bytes, bytes]:
    try:
        with _limits(_MEMORY + _MEMORY_PER_BYTE * n_voxel_bytes):
            array = sitk.GetArrayFromImage(sitk.ReadImage(path, imageIO="GDCMImageIO"))
    except Exception as problem:  # SimpleITK raises RuntimeError; lack of memory and others are failures of this frame
        return FAILED, (str(problem).strip() or type(problem).__name__).splitlines()[-1].encode()[:1000]
    content = BytesIO()
    np.save(content, array, allow_pickle=False)
    return DECODED, content.getvalue()


@contextmanager
def _limits(n_bytes: int) -> Iterator[None]:
    """Limit the time of this process and, on Linux, its further memory; at the time limit, the process ends."""
    if sys.platform == "win32":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    if sys.platform == "linux" and soft == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main()
