"""Read DICOM files with pydicom, but not those that would fill the memory.

A transfer syntax compresses a dataset as a whole, and pydicom decompresses it in memory, also to read one attribute. A
file of 5 MB can so become 5 GB.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from decathlete.core.lazy_import import lazy_import
from decathlete.core.sizes import format_bytes
from decathlete.errors import ImageError

pydicom = lazy_import("pydicom")
filereader = lazy_import("pydicom.filereader")

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of datasets that are compressed as a whole."""

MAX_INFLATED_BYTES = 1 << 31
"""Greatest size of such a dataset when it is decompressed: 4000 slices of 512 x 512 numbers of 16 bits."""

_PIECE_BYTES = 1 << 20
_META = 0x0002


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Leave out pydicom's own messages below errors: that a value is too long, without saying in which file.

    A filter instead of a level: pydicom sets its level when it is imported, and threads may do this together.
    """

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger = logging.getLogger("pydicom")
    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)


def read_dicom(path: Path, **options: Any) -> Any:
    """Read a DICOM file as ``pydicom.dcmread`` does.

    Args:
        options: of ``pydicom.dcmread``.

    Raises:
        ImageError: it is compressed as a whole, and larger than :data:`MAX_INFLATED_BYTES` without that.
        Exception: of pydicom, in many kinds.
    """
    with path.open("rb") as stream:
        return read_dicom_stream(path, stream, **options)


def read_dicom_stream(path: Path, stream: BinaryIO, **options: Any) -> Any:
    """Read a DICOM file from the start of a stream, which is where reading ended then; see :func:`read_dicom`."""
    _check_inflation(path, stream)
    stream.seek(0)
    return pydicom.dcmread(stream, **options)


def _check_inflation(path: Path, stream: BinaryIO) -> None:
    filereader.read_preamble(stream, force=True)
    meta = filereader.read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != _META)
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return
    inflater, n_bytes = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while piece := inflater.unconsumed_tail or stream.read(_PIECE_BYTES):
        n_bytes += len(inflater.decompress(piece, _PIECE_BYTES))
        if n_bytes > MAX_INFLATED_BYTES:
            raise ImageError(
                f"is compressed as a whole, and has more than {format_bytes(MAX_INFLATED_BYTES)} without that",
                where=path,
                remedy="export it with another transfer syntax, such as Explicit VR Little Endian",
                code="E-IMAGE-DICOM",
            )
