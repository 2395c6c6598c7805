"""Download one file over HTTP: resume after interruptions, retry with growing pauses.

A request for the rest of a file (``Range``) names the version that it continues (``If-Range``, RFC 9110, 13.1.5), so
that a file that changed in the meantime is downloaded again instead of being appended to the old bytes. Only the
standard library is used; proxies are those of the system (``https_proxy``).
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from decathlete.core.digits import parse_digits
from decathlete.core.durations import format_duration
from decathlete.core.files import output_code, value_digest
from decathlete.core.sizes import format_bytes
from decathlete.errors import DownloadError, OutputError
from decathlete.transfer.part_file import PartFile, RemoteFile
from decathlete.version import __version__

ByteProgress = Callable[[int, int | None], None]
"""Called with (bytes so far, total bytes or None) after each chunk."""

_CHUNK = 1 << 18
_LONGEST_WAIT_S = 60.0
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # status codes of errors that may pass
_RETRY_REMEDY = "run the same command again to resume; or use --url with the address of a mirror"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Limits of retrying a broken connection.

    Attributes:
        tries: greatest number of attempts in a row that add no bytes.
        first_wait_s: pause after the first failure, seconds; doubled after each further failure.
        timeout_s: longest silence of a connection, seconds.
    """

    tries: int = 5
    first_wait_s: float = 1.0
    timeout_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """Return the pause after ``failures`` failures in a row, seconds."""
        return min(self.first_wait_s * 2.0 ** (failures - 1), _LONGEST_WAIT_S)


class _TemporaryFailure(Exception):
    """A failure that another attempt may not have.

    Attributes:
        reached: whether a server answered.
    """

    def __init__(self, reason: str, *, reached: bool) -> None:
        super().__init__(reason)
        self.reached = reached


class _Body(Protocol):
    """The attributes of a response that this module uses."""

    status: int
    headers: http.client.HTTPMessage

    def read1(self, n: int = -1) -> bytes: ...
    def close(self) -> None: ...


def download_file(
    url: str,
    part: PartFile,
    *,
    patience: Patience,
    check_size: Callable[[int], None],
    limit_bytes: int,
    progress: ByteProgress | None = None,
    log: Callable[[str], None] | None = None,
) -> None:
    """Download ``url`` to ``part``, which may already contain its beginning.

    Args:
        check_size: called with the size of the whole file, bytes, before its first byte is read; it may raise.
        limit_bytes: greatest size of a file whose size the server does not give.
        progress: called after each chunk.
        log: called with a line of text before each pause.

    Raises:
        DownloadError: the server cannot be reached or returns an error, or the connection failed too often; the
            downloaded bytes are kept. Or the file is larger than ``limit_bytes``; then nothing is kept.
        OutputError: ``part`` cannot be written.
    """
    start = furthest = part.size
    failures = 0
    while True:
        try:
            return _request_rest(url, part, patience.timeout_s, check_size, limit_bytes, progress)
        except _TemporaryFailure as failure:
            # Only new bytes count as progress: a server without Range could send the same bytes forever.
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if not failure.reached and furthest == start and failures == 1:
                raise _unreachable_error(url, failure) from failure
            if failures >= patience.tries:
                raise _retries_error(url, failure, failures, part) from failure
            wait_s = patience.wait_s(failures)
            if log is not None:
                log(f"{failure}; next attempt in {format_duration(wait_s)}")
            time.sleep(wait_s)


def without_query(url: str) -> str:
    """Return ``url`` without its query, which may be a signature, for messages."""
    return urlunsplit(urlsplit(url)._replace(query=""))


def _unreachable_error(url: str, failure: _TemporaryFailure) -> DownloadError:
    return DownloadError(
        f"cannot be reached ({failure})",
        where=without_query(url),
        remedy="check the network and its proxy; or use --url with the address of a mirror, or with file:///path of "
        "an archive that was downloaded elsewhere",
        code="E-DOWNLOAD-NETWORK",
    )


def _retries_error(url: str, failure: _TemporaryFailure, failures: int, part: PartFile) -> DownloadError:
    total = "" if part.remote.size is None else f" of {format_bytes(part.remote.size)}"
    return DownloadError(
        f"{failure}, {failures} times in a row; the downloaded {format_bytes(part.size)}{total} are kept",
        where=without_query(url),
        remedy=_RETRY_REMEDY,
        code="E-DOWNLOAD-NETWORK",
    )


def _request_rest(
    url: str,
    part: PartFile,
    timeout_s: float,
    check_size: Callable[[int], None],
    limit_bytes: int,
    progress: ByteProgress | None,
) -> None:
    """Request the missing bytes once."""
    if part.is_complete:
        return
    source = value_digest(url)
    response = _send(url, _request(url, part, source), timeout_s)
    if response is None:  # no bytes follow those in ``part``
        if part.remote.size is None:
            return  # the size is unknown: the checksum decides
        part.start_over()
        raise _TemporaryFailure("the file on the server has changed", reached=True)
    with closing(response):
        remote = _align(part, response, source)
        if remote.size is not None:
            check_size(remote.size)
        part.write_note(remote)
        limit_bytes = limit_bytes if remote.size is None else remote.size
        fits = _append(response, part, remote.size, limit_bytes, progress)
    if not fits:
        part.start_over()  # these bytes cannot be continued from another server
        raise _size_error(url, remote.size, limit_bytes)
    if remote.size is not None and part.size != remote.size:
        raise _TemporaryFailure("the connection was interrupted", reached=True)


def _request(url: str, part: PartFile, source: str) -> Request:
    """Make the request for the bytes that ``part`` lacks."""
    request = Request(url, headers={"User-Agent": f"decathlete/{__version__}", "Accept-Encoding": "identity"})
    if part.size:
        request.add_header("Range", f"bytes={part.size}-")
        if part.remote.validator and part.remote.source == source:  # for another mirror, only the size is compared
            request.add_header("If-Range", part.remote.validator)
    return request


def _send(url: str, request: Request, timeout_s: float) -> _Body | None:
    """Send the request; return the response, or ``None`` if the server has no more bytes (416)."""
    try:
        response: _Body = urlopen(request, timeout=timeout_s)
    except HTTPError as problem:
        with problem:
            status = f"{problem.code} {problem.reason}"
        if problem.code == 416:
            return None
        if problem.code in _TEMPORARY:
            raise _TemporaryFailure(f"the server answers {status}", reached=True) from problem
        raise DownloadError(
            f"the server answers {status}",
            where=without_query(url),
            remedy="check --url: it is the address of the archive or of its folder",
        ) from problem
    except (OSError, http.client.HTTPException) as problem:
        raise _connection_failure(problem) from problem
    return response


def _connection_failure(problem: Exception) -> _TemporaryFailure:
    """Describe what went wrong with the connection, and whether a server was reached."""
    cause = problem.reason if isinstance(problem, URLError) else problem
    if isinstance(cause, TimeoutError):
        return _TemporaryFailure("no answer", reached=False)
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, ConnectionRefusedError) or not isinstance(cause, ConnectionError | http.client.HTTPException):
        return _TemporaryFailure(reason, reached=False)  # no address, no route, no server, or a wrong certificate
    return _TemporaryFailure(f"the connection failed: {reason}", reached=True)


def _align(part: PartFile, response: _Body, source: str) -> RemoteFile:
    """Make ``part`` end where the response begins; return the facts that the response gives about the whole file."""
    headers = response.headers
    size = _full_size(response)
    if response.status != 206:
        part.start_over()
    elif _first_byte(headers) != part.size or (part.remote.size is not None and size != part.remote.size):
        part.start_over()
        raise _TemporaryFailure("the file on the server has changed", reached=True)
    etag = headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    return RemoteFile(size=size, validator=strong or headers.get("Last-Modified"), source=source)


def _first_byte(headers: http.client.HTTPMessage) -> int | None:
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _full_size(response: _Body) -> int | None:
    """Return the size of the whole file, bytes, even if the response is a part of it; ``None`` if it is not given."""
    if response.status == 206:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = response.headers.get("Content-Length", "")
    return parse_digits(size)


def _size_error(url: str, announced: int | None, limit_bytes: int) -> DownloadError:
    if announced is not None:
        problem = f"the server sends more than the {format_bytes(announced)} that it announced"
    else:
        problem = f"the file is larger than {format_bytes(limit_bytes)}, and the server does not give its size"
    return DownloadError(
        problem, where=without_query(url), remedy="free disk space, or use --url with the address of another mirror"
    )


def _append(response: _Body, part: PartFile, size: int | None, limit_bytes: int, progress: ByteProgress | None) -> bool:
    """Append the response to ``part``; each chunk is written at once, so that it survives a kill.

    Returns:
        Whether ``part`` has at most ``limit_bytes`` bytes.
    """
    done = part.size
    with part.path.open("ab", buffering=0) as stream:
        while chunk := _read_chunk(response):
            if done + len(chunk) > limit_bytes:
                return False
            try:
                stream.write(chunk)
            except OSError as problem:
                raise OutputError(
                    f"cannot be written ({problem.strerror or problem})",
                    where=part.path,
                    remedy="free disk space, then run the same command again: it resumes the download",
                    code=output_code(problem),
                ) from problem
            done += len(chunk)
            if progress is not None:
                progress(done, size)
    return True


def _read_chunk(response: _Body) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as problem:
        raise _TemporaryFailure("the connection was interrupted", reached=True) from problem
