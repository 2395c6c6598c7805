"""Voxels of a checked header. Memory grows with what the file really contains, never with what it declares."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decathlete.io.headers.raster import Raster, VoxelFile
from decathlete.io.limits import excess_error

_CHUNK = 2**20
_MAX_DIGITS = 40


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""


def read_bytes(stream: Readable, n_bytes: int) -> bytearray:
    """Read ``n_bytes`` chunk by chunk: a header that declares too much costs no memory.

    Raises:
        EOFError: the stream ends before.
    """
    content = bytearray()
    while len(content) < n_bytes:
        chunk = stream.read(min(_CHUNK, n_bytes - len(content)))
        if not chunk:
            raise EOFError(f"the voxels end after {len(content):,} of {n_bytes:,} bytes")
        content += chunk
    return content


def read_voxels(raster: Raster) -> NDArray[Any]:
    """Read the array of a header, its axes in reverse order (the slowest first).

    Raises:
        ImageError: a file contains more voxels than declared.
        EOFError, OSError, ValueError, zlib.error: the file is truncated or damaged.
    """
    parts = [_read_file(raster, file) for file in raster.files]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return values.reshape(raster.sizes[::-1]).astype(raster.dtype.newbyteorder("="), copy=False)


def _read_file(raster: Raster, file: VoxelFile) -> NDArray[Any]:
    n_bytes = raster.bytes_per_file
    if raster.codec == "raw":
        return np.fromfile(file.path, dtype=raster.dtype, count=n_bytes // raster.dtype.itemsize, offset=file.start)
    if raster.codec == "deflate":
        return np.frombuffer(_inflate(file, n_bytes), dtype=raster.dtype)
    with file.path.open("rb") as stream:
        stream.seek(file.start)
        text = stream.read()
    if raster.codec == "hex":
        return np.frombuffer(bytearray.fromhex(text.decode("ascii")), dtype=raster.dtype)
    return _parse_numbers(text, raster.dtype)


def _inflate(file: VoxelFile, n_bytes: int) -> bytearray:
    """Decompress gzip or zlib to its end, where the checksum is verified."""
    with file.path.open("rb") as stream:
        stream.seek(file.start)
        if stream.read(2) == b"\x1f\x8b":
            stream.seek(file.start)
            return _read_whole(gzip.GzipFile(fileobj=stream), file, n_bytes)
        stream.seek(file.start)
        return _read_whole(_Zlib(stream), file, n_bytes)


def _read_whole(stream: Readable, file: VoxelFile, n_bytes: int) -> bytearray:
    if file.skip:
        read_bytes(stream, file.skip)
    content = read_bytes(stream, n_bytes)
    if stream.read(1):
        raise excess_error(file.path)
    return content


class _Zlib:
    """A zlib stream, decompressed in chunks."""

    def __init__(self, stream: Readable) -> None:
        self._chunks = self._decompress(stream)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end, when the checksum was verified."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    @staticmethod
    def _decompress(stream: Readable) -> Iterator[bytes]:
        decompressor = zlib.decompressobj()
        while not decompressor.eof:
            compressed = decompressor.unconsumed_tail or stream.read(_CHUNK)
            if not compressed:
                raise EOFError("the compressed voxels are truncated")
            yield decompressor.decompress(compressed, _CHUNK)
        if decompressor.unused_data or stream.read(1):
            raise ValueError("there are bytes after the compressed voxels")


def _parse_numbers(text: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    parts = text.replace(b",", b" ").split()
    if parts and max(map(len, parts)) > _MAX_DIGITS:
        raise ValueError("a number among the voxels is too long")
    if dtype.kind == "f":
        return np.array([float(part) for part in parts], dtype=dtype)
    return np.array([int(part) for part in parts], dtype=dtype)
