"""A DICOMweb server: searches, and series that are written to files while they arrive.

A client that returns datasets has each instance in memory as a whole, and an enhanced multi-frame instance can be as
large as the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from decathlete.core.extras import import_optional
from decathlete.core.files import translate_os_error
from decathlete.errors import ServiceError

PIECE_BYTES = 1 << 20
"""Bytes of an instance that are in memory at a time."""

_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'  # as they are stored
_TIMEOUT_S = 60.0
_UID = re.compile(r"[0-9.]{1,64}")
_REMEDY = "free disk space, or start the service with another --data"


class Download(Protocol):
    """Downloads a series, as :meth:`DicomWebServer.download` does."""

    def __call__(
        self, study_uid: str, series_uid: str, folder: Path, *, check: Callable[[int], object]
    ) -> Iterator[Path]:
        """Yield the files of the instances while they arrive."""
        ...


class DicomWebServer:
    """A DICOMweb server.

    Args:
        url: root of its services.

    Attributes:
        client: of the package dicomweb-client, for searches and for objects that are sent.

    Raises:
        MissingPackageError: the package dicomweb-client is not installed.
    """

    def __init__(self, url: str) -> None:
        api = import_optional("dicomweb_client.api", title="dicomweb-client", extra="serve")
        self._url = url.rstrip("/")
        self._session: Any = import_optional("requests", title="dicomweb-client", extra="serve").Session()
        self.client: Any = api.DICOMwebClient(self._url, session=self._session)
        self.client.set_http_retry_params(retry=False)  # waits for 30 s, also at the end; callers try again themselves

    def download(
        self, study_uid: str, series_uid: str, folder: Path, *, check: Callable[[int], object]
    ) -> Iterator[Path]:
        """Write the instances of a series into ``folder`` as they are stored; yield the file of each when it is whole.

        Args:
            check: called with the number of bytes before they are written; an exception that it raises ends the
                download.

        Raises:
            ServiceError: an identifier is not valid, or the answer is no series or ends too early.
            OutputError: the disk cannot be written.
            OSError: of requests, the server does not answer as it should.
        """
        if not _UID.fullmatch(study_uid) or not _UID.fullmatch(series_uid):
            raise _bad_answer("names a series by an identifier that is not valid")
        address = f"{self._url}/studies/{study_uid}/series/{series_uid}"
        with self._session.get(address, headers={"Accept": _ACCEPT}, stream=True, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            with _Parts(folder, answer.headers.get("content-type", "")) as parts:
                for piece in answer.iter_content(PIECE_BYTES):
                    check(len(piece))
                    yield from parts.write(piece)
                yield from parts.end()


class _Parts:
    """Writes the parts of an answer to numbered files; an answer without parts is one instance."""

    def __init__(self, folder: Path, content_type: str) -> None:
        self._folder, self._n_files, self._is_complete = folder, 0, False
        self._stream: BinaryIO | None = None
        self._whole: list[Path] = []
        kind, options = parse_options_header(content_type)
        if kind not in (b"multipart/related", b"application/dicom"):
            raise _bad_answer("sends no DICOM")
        boundary = options.get(b"boundary")
        self._parser = self._make_parser(boundary) if boundary else None
        if self._parser is None:
            self._open()

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._open,
                "on_part_data": self._write,
                "on_part_end": self._close_file,
                "on_end": self._complete,
            },
        )

    def write(self, piece: bytes) -> list[Path]:
        """Write the next bytes; return the files that are whole now."""
        if self._parser is None:
            self._write(piece, 0, len(piece))
            return []
        try:
            self._parser.write(piece)
        except FormParserError as problem:
            raise _bad_answer("sends parts that cannot be parsed") from problem
        whole, self._whole = self._whole, []
        return whole

    def end(self) -> list[Path]:
        """End the answer; return the file that is whole only now, if any.

        Raises:
            ServiceError: an instance was cut.
        """
        if self._parser is None:
            self._close_file()
        elif not self._is_complete:
            raise _bad_answer("ends before the series is complete")
        return self._whole

    def _open(self) -> None:
        with translate_os_error("cannot be written", where=self._folder, remedy=_REMEDY):
            self._stream = self._path.open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        assert self._stream is not None  # for the type checker: a part has begun
        with translate_os_error("cannot be written", where=self._folder, remedy=_REMEDY):
            self._stream.write(memoryview(data)[start:end])

    def _close_file(self) -> None:
        assert self._stream is not None  # for the type checker: a part has begun
        stream, self._stream = self._stream, None
        with translate_os_error("cannot be written", where=self._folder, remedy=_REMEDY):
            stream.close()
        self._whole.append(self._path)
        self._n_files += 1

    def _complete(self) -> None:
        self._is_complete = True

    @property
    def _path(self) -> Path:
        return self._folder / f"instance-{self._n_files:05d}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:  # of an instance that was cut
            with suppress(OSError):
                self._stream.close()


def _bad_answer(why: str) -> ServiceError:
    return ServiceError(f"the DICOMweb server {why}", remedy="check its log", code="E-SERVICE-DICOMWEB")
