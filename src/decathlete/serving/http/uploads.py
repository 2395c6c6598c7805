"""Receive uploads at constant memory: the body goes to the disk in pieces while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from decathlete.core.files import translate_os_error
from decathlete.core.sizes import format_bytes
from decathlete.errors import DecathleteError, ServiceError
from decathlete.serving.http.threads import closed_in_thread
from decathlete.serving.inputs import MAX_FILES, ReceivedFile
from decathlete.serving.jobs import Job
from decathlete.serving.service import Service
from decathlete.serving.storage import require_room

PIECE_BYTES = 1 << 20
"""Bytes that are collected before they are written."""

_DRAINED_BYTES = 16 << 20
_DRAIN_S = 5.0
_TOO_SLOW = "E-SERVICE-TIME"
_MAX_HEADER_BYTES = 4096
_MAX_FIELD_BYTES = 1 << 18
_MAX_FIELDS = 100
_REMEDY = "free disk space, or start the service with another --data"


class Receiver(Protocol):
    """Writes the body of a request to files."""

    files: list[ReceivedFile]

    def write(self, data: bytes) -> None:
        """Write the next piece."""
        ...

    def close(self) -> None:
        """End the last file.

        Raises:
            ServiceError: the body ends too early.
        """
        ...

    def close_file(self) -> None:
        """Close the file that is being written, if there is one, without checks."""
        ...


class RawReceiver:
    """Writes a body that is one file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.files = [ReceivedFile(name=name, path=folder / "0")]
        self._stream = self.files[0].path.open("xb")
        self._n_bytes = 0

    def write(self, data: bytes) -> None:
        """Write the next piece."""
        self._n_bytes += self._stream.write(data)

    def close(self) -> None:
        """End the file."""
        self.close_file()
        if self._n_bytes == 0:
            raise ServiceError("the upload is empty", remedy="send an image", code="E-SERVICE-REQUEST")

    def close_file(self) -> None:
        """Close the file, without checks."""
        self._stream.close()


class MultipartReceiver:
    """Writes the files of a form (``multipart/form-data``), and collects its other fields."""

    def __init__(self, folder: Path, content_type: str) -> None:
        self.files: list[ReceivedFile] = []
        self._fields: dict[str, bytes] = {}
        self._folder, self._field = folder, ""
        self._stream: BinaryIO | None = None
        self._header, self._value, self._name = b"", b"", ""
        self._ended = False
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= 200:
            raise _malformed("its header has no boundary")
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_header,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": self._write_data,
                "on_part_end": self.close_file,
                "on_end": self._end,
            },
        )

    def write(self, data: bytes) -> None:
        """Parse the next piece, and write what belongs to files."""
        try:
            self._parser.write(data)
        except FormParserError as problem:
            raise _malformed("it cannot be parsed") from problem

    def close(self) -> None:
        """Check that the body was complete."""
        self.close_file()
        if not self._ended:
            raise _malformed("it ends too early")

    @property
    def fields(self) -> dict[str, str]:
        """Fields that are no files."""
        return {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}

    def close_file(self) -> None:
        """Close the file that is being written, if there is one, without checks."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()

    def _begin(self) -> None:
        self._name = self._field = ""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header = self._add(self._header, data[start:end])

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._add(self._value, data[start:end])

    def _add(self, before: bytes, data: bytes) -> bytes:
        if len(before) + len(data) > _MAX_HEADER_BYTES:
            raise _malformed("a header is too long")
        return before + data

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            self._name = options.get(b"filename", b"").decode("utf-8", "replace")
            self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._header, self._value = b"", b""

    def _open(self) -> None:
        if not self._name:
            return
        if len(self.files) >= MAX_FILES:
            raise ServiceError(
                f"the upload has more than {MAX_FILES} files", remedy="send one image", code="E-SERVICE-SIZE"
            )
        path = self._folder / str(len(self.files))
        self._stream = path.open("xb")
        self.files.append(ReceivedFile(name=self._name, path=path, field=self._field))

    def _write_data(self, data: bytes, start: int, end: int) -> None:
        if self._stream is not None:
            self._stream.write(data[start:end])
            return
        value = self._fields.get(self._field, b"") + data[start:end]
        if len(self._fields) > _MAX_FIELDS or len(value) > _MAX_FIELD_BYTES:
            raise _malformed("it has too many fields, or a field is too long")
        self._fields[self._field] = value

    def _end(self) -> None:
        self._ended = True


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form: its files, and its other fields."""

    files: list[ReceivedFile]
    fields: dict[str, str]


@asynccontextmanager
async def upload_folder(request: Request, service: Service) -> AsyncIterator[Path]:
    """Provide a folder for the files of one upload; the body of a rejected request is read, see :func:`drain`.

    Raises:
        ServiceError: too many uploads are under way.
    """
    try:
        with service.uploads:
            async with closed_in_thread() as stack:
                yield await run_in_threadpool(stack.enter_context, service.storage.upload_folder())
    except Exception as problem:
        await drain(request, problem)
        raise


async def submit(
    service: Service, files: Sequence[ReceivedFile], folder: Path, *, model: str, is_awaited: bool = False
) -> Job:
    """Accept an image when those that were received before it have been read.

    Raises:
        ServiceError, ImageError, ArchiveError: as :meth:`Service.submit`.
    """
    async with service.uploads.reading:
        return await run_in_threadpool(service.submit, files, folder, model=model, is_awaited=is_awaited)


async def receive_form(request: Request, service: Service, folder: Path) -> Form:
    """Write the files of a form into ``folder``; a request without a body is an empty form.

    Raises:
        ServiceError, OutputError, ClientDisconnect: as :func:`receive_files`.
    """
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return Form(files=[], fields={})
    receiver = MultipartReceiver(folder, request.headers.get("content-type", ""))
    await _receive_in_time(request, service, folder, receiver)
    return Form(files=receiver.files, fields=receiver.fields)


async def receive_files(request: Request, service: Service, folder: Path, *, name: str) -> list[ReceivedFile]:
    """Write the body of a request into ``folder``; return its files.

    Args:
        name: of the file, if the body is one file.

    Raises:
        ServiceError: the body is too large, malformed or took too long.
        OutputError: the disk is full.
        ClientDisconnect: the sender has gone.
    """
    receiver = _make_receiver(request, folder, name)
    await _receive_in_time(request, service, folder, receiver)
    return receiver.files


async def _receive_in_time(request: Request, service: Service, folder: Path, receiver: Receiver) -> None:
    """Write the body of a request; its file is closed also if the request fails or the sender disconnects."""
    try:
        await _receive_checked(request, service, folder, receiver)
    finally:
        with suppress(OSError):  # such as a full disk, which was reported before
            receiver.close_file()


async def _receive_checked(request: Request, service: Service, folder: Path, receiver: Receiver) -> None:
    limits = service.settings.limits
    require_room(folder, int(request.headers.get("content-length", "0")))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            await _receive(request, service, folder, receiver)
    except TimeoutError:
        raise ServiceError(
            f"the upload took longer than {limits.upload_seconds:g} s",
            remedy="use a faster connection",
            code=_TOO_SLOW,
        ) from None


async def drain(request: Request, problem: Exception) -> None:
    """Read some of a body that was rejected: most clients read the answer only after they have sent everything.

    The connection is closed after the answer if a part of the body is left, see :func:`has_unread_body`.

    Args:
        problem: why it was rejected; a sender that was too slow before is not waited for.
    """
    request.state.has_unread_body = True
    if isinstance(problem, ServiceError) and problem.code == _TOO_SLOW:
        return
    n_bytes = 0
    with suppress(ClientDisconnect, DecathleteError, TimeoutError):  # gone; still too large; or slow
        async with asyncio.timeout(_DRAIN_S):
            with suppress(RuntimeError):  # read whole already
                async for data in request.stream():
                    n_bytes += len(data)
                    if n_bytes > _DRAINED_BYTES:
                        return
        request.state.has_unread_body = False


def has_unread_body(request: Request) -> bool:
    """Return whether a part of the body of a rejected request was not read."""
    return bool(getattr(request.state, "has_unread_body", False))


async def _receive(request: Request, service: Service, folder: Path, receiver: Receiver) -> None:
    n_bytes, limit = 0, service.settings.limits.upload_bytes
    with translate_os_error("cannot be written", where=service.storage.root, remedy=_REMEDY):
        async for piece in _pieces(request):
            n_bytes += len(piece)
            if n_bytes > limit:
                raise ServiceError(
                    f"the upload is larger than {format_bytes(limit)}",
                    remedy="crop the image, or start the service with a larger --max-upload",
                    code="E-SERVICE-SIZE",
                )
            require_room(folder, len(piece))  # the length may not be declared, and other uploads need room, too
            await run_in_threadpool(receiver.write, piece)
            service.metrics.upload_bytes.inc(len(piece))
        await run_in_threadpool(receiver.close)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield the body in pieces of about :data:`PIECE_BYTES`."""
    collected = bytearray()
    async for data in request.stream():
        collected += data
        if len(collected) >= PIECE_BYTES:
            yield bytes(collected)
            collected.clear()
    if collected:
        yield bytes(collected)


def _make_receiver(request: Request, folder: Path, name: str) -> Receiver:
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/"):
        return MultipartReceiver(folder, content_type)
    return RawReceiver(folder, name)


def _malformed(why: str) -> ServiceError:
    return ServiceError(
        f"the form with the files is malformed: {why}",
        remedy="send multipart/form-data, as `curl -F files=@IMAGE` does",
        code="E-SERVICE-REQUEST",
    )
