"""Child processes that decode DICOM frames (:mod:`decathlete.io.frame_decoder`): started when needed, and reused."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.process_end import describe_end

_DECODED = b"+"
_idle: dict[int, list[_Worker]] = {}
"""Process -> its workers that wait for a frame; a forked process must not use those of its parent."""


def decode_frame(file: bytes, n_voxel_bytes: int) -> NDArray[Any]:
    """Decode a DICOM file of one frame in a child process, which may crash.

    Args:
        n_voxel_bytes: of the decoded frame; the child's memory is limited accordingly.

    Raises:
        ValueError: the frame cannot be decoded.
        EOFError: it crashed the decoder.
    """
    idle = _idle.setdefault(os.getpid(), [])
    try:
        worker = idle.pop()
    except IndexError:
        return _decode_by(_Worker(), file, n_voxel_bytes)
    try:
        return _decode_by(worker, file, n_voxel_bytes)
    except EOFError:  # perhaps something else ended it while it was idle
        return _decode_by(_Worker(), file, n_voxel_bytes)


def _decode_by(worker: _Worker, file: bytes, n_voxel_bytes: int) -> NDArray[Any]:
    try:
        array = worker.decode(file, n_voxel_bytes)
    except BaseException:  # also an interrupt: the child may be in the middle of an answer
        worker.close()
        raise
    _idle[os.getpid()].append(worker)
    if isinstance(array, str):
        raise ValueError(array)
    return array


class _Worker:
    """One child process. It ends when its standard input is closed, so also when this process is killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "decathlete.io.frame_decoder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ  # inherited as by every child process; no setting is read from it
            | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None  # for the type checker: these are pipes
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def decode(self, file: bytes, n_voxel_bytes: int) -> NDArray[Any] | str:
        """Return the frame, or a message."""
        try:
            self._requests.write(len(file).to_bytes(8, "little") + n_voxel_bytes.to_bytes(8, "little"))
            self._requests.write(file)
            self._requests.flush()
            is_decoded = _read(self._answers, 1) == _DECODED
            content = _read(self._answers, int.from_bytes(_read(self._answers, 8), "little"))
        except (OSError, EOFError):  # the pipe broke
            end = describe_end(self._process.wait())
            raise EOFError(f"the decoder of its pixels {end}") from None
        if not is_decoded:
            return content.decode(errors="replace")
        array: NDArray[Any] = np.load(BytesIO(content), allow_pickle=False)
        return array

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):  # what could not be sent
                pipe.close()


def _read(stream: IO[bytes], n_bytes: int) -> bytes:
    content = stream.read(n_bytes)
    if len(content) < n_bytes:
        raise EOFError
    return content


@atexit.register
def _close_idle() -> None:
    for worker in _idle.pop(os.getpid(), []):
        worker.close()
