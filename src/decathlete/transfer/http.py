"""Fetch one file over HTTP so that no byte comes twice: resumed where it broke off, tried again with growing pauses.

A request for the rest (``Range``) names the bytes it continues (``If-Range``, RFC 9110, 13.1.5), so that a file that
changed meanwhile comes anew instead of being glued to the old one. Standard library alone; proxies are those of the
system (``https_proxy``).
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

from decathlete.core.durations import say_duration
from decathlete.core.files import output_code, value_digest
from decathlete.core.sizes import say_bytes
from decathlete.errors import DownloadError, OutputError
from decathlete.transfer.part_file import PartFile, Whole
from decathlete.version import __version__

ByteProgress = Callable[[int, int | None], None]
"""Called with (bytes so far, bytes in all or None) after each piece."""

_PIECE = 1 << 18
_LONGEST_WAIT_S = 60.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that another time may be better
_AGAIN = "run the same command again, it goes on where it stopped; or give --url with the address of a mirror"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a broken connection is put up with.

    Attributes:
        tries: in a row that bring nothing new.
        first_wait_s: pause after the first; doubled after each further.
        timeout_s: of a silent connection.
    """

    tries: int = 5
    first_wait_s: float = 1.0
    timeout_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """The pause after so many failures in a row, seconds."""
        return min(self.first_wait_s * 2.0 ** (failures - 1), _LONGEST_WAIT_S)


class _Broken(Exception):
    """A try that failed in a way that may pass."""

    def __init__(self, reason: str, *, reached: bool) -> None:
        super().__init__(reason)
        self.reached = reached


class _Body(Protocol):
    """The part of a response that is used here."""

    status: int
    headers: http.client.HTTPMessage

    def read1(self, n: int = -1) -> bytes: ...
    def close(self) -> None: ...


def fetch(
    url: str,
    part: PartFile,
    *,
    patience: Patience,
    announced: Callable[[int], None],
    most: int,
    progress: ByteProgress | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Bring the whole of ``url`` into ``part``, which may hold its beginning already.

    Args:
        announced: told the whole file's size, bytes, before its first byte is taken; may raise.
        most: bytes that are taken where the server does not say how many there are.
        progress: told of each piece.
        say: told in a line of each pause.

    Raises:
        DownloadError: the server cannot be reached, refuses, or the connection broke off too often; what came is kept.
            Or it sends more than ``most``; of that nothing is kept.
        OutputError: ``part`` cannot be written.
    """
    start = furthest = part.size
    failures = 0
    while True:
        try:
            return _go_on(url, part, patience.timeout_s, announced, most, progress)
        except _Broken as trouble:
            # Bytes that were there before are no progress: a server without Range could break off for ever.
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if not trouble.reached and furthest == start and failures == 1:
                raise _unreachable(url, trouble) from trouble
            if failures >= patience.tries:
                raise _given_up(url, trouble, failures, part) from trouble
            wait_s = patience.wait_s(failures)
            if say is not None:
                say(f"{trouble}; trying again in {say_duration(wait_s)}")
            time.sleep(wait_s)


def shown(url: str) -> str:
    """``url`` without its query, which may be a signature, for messages."""
    return urlunsplit(urlsplit(url)._replace(query=""))


def _unreachable(url: str, trouble: _Broken) -> DownloadError:
    return DownloadError(
        f"cannot be reached ({trouble})",
        where=shown(url),
        remedy="check the network and its proxy; or give --url with a mirror's address, or with file:///path of the "
        "archive fetched elsewhere",
        code="E-DOWNLOAD-NETWORK",
    )


def _given_up(url: str, trouble: _Broken, failures: int, part: PartFile) -> DownloadError:
    of = "" if part.whole.size is None else f" of {say_bytes(part.whole.size)}"
    return DownloadError(
        f"{trouble}, {failures} times in a row; {say_bytes(part.size)}{of} have come and are kept",
        where=shown(url),
        remedy=_AGAIN,
        code="E-DOWNLOAD-NETWORK",
    )


def _go_on(
    url: str,
    part: PartFile,
    timeout_s: float,
    announced: Callable[[int], None],
    most: int,
    progress: ByteProgress | None,
) -> None:
    """One request for what is missing."""
    if part.complete:
        return
    source = value_digest(url)
    response = _ask(url, _request(url, part, source), timeout_s)
    if response is None:  # nothing lies behind what we have
        if part.whole.size is None:
            return  # the length was never told: the digest decides
        part.start_over()
        raise _Broken("the server's file is another", reached=True)
    with closing(response):
        whole = _placed(part, response, source)
        if whole.size is not None:
            announced(whole.size)
        part.expect(whole)
        within = _pour(response, part, whole.size, most if whole.size is None else whole.size, progress)
    if not within:
        part.start_over()  # it would lie in the way of whatever comes from elsewhere
        raise _too_much(url, whole.size, most)
    if whole.size is not None and part.size != whole.size:
        raise _Broken("the connection broke off", reached=True)


def _request(url: str, part: PartFile, source: str) -> Request:
    """For the rest of what ``part`` holds the beginning of."""
    request = Request(url, headers={"User-Agent": f"decathlete/{__version__}", "Accept-Encoding": "identity"})
    if part.size:
        request.add_header("Range", f"bytes={part.size}-")
        if part.whole.validator and part.whole.source == source:  # of another mirror the size must do
            request.add_header("If-Range", part.whole.validator)
    return request


def _ask(url: str, request: Request, timeout_s: float) -> _Body | None:
    """The server's answer, or None where it says that nothing is left to send (416)."""
    try:
        response: _Body = urlopen(request, timeout=timeout_s)
    except HTTPError as problem:
        with problem:
            answer = f"{problem.code} {problem.reason}"
        if problem.code == 416:
            return None
        if problem.code in _PASSING:
            raise _Broken(f"the server answers {answer}", reached=True) from problem
        raise DownloadError(
            f"the server answers {answer}",
            where=shown(url),
            remedy="check --url: it names the folder that holds the archive, or the archive itself",
        ) from problem
    except (OSError, http.client.HTTPException) as problem:
        raise _trouble(problem) from problem
    return response


def _trouble(problem: Exception) -> _Broken:
    """What went wrong with the connection, in words, and whether anyone was there."""
    cause = problem.reason if isinstance(problem, URLError) else problem
    if isinstance(cause, TimeoutError):
        return _Broken("no answer", reached=False)
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, ConnectionRefusedError) or not isinstance(cause, ConnectionError | http.client.HTTPException):
        return _Broken(words, reached=False)  # no name, no route, nobody there, or a certificate of someone else
    return _Broken(f"the connection failed: {words}", reached=True)


def _placed(part: PartFile, response: _Body, source: str) -> Whole:
    """Make ``part`` end where the response begins; what the response says of the whole."""
    headers = response.headers
    size = _whole_size(response)
    if response.status != 206:
        part.start_over()
    elif _first_byte(headers) != part.size or (part.whole.size is not None and size != part.whole.size):
        part.start_over()
        raise _Broken("the server's file is another", reached=True)
    etag = headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    return Whole(size=size, validator=strong or headers.get("Last-Modified"), source=source)


def _first_byte(headers: http.client.HTTPMessage) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _whole_size(response: _Body) -> int | None:
    """Bytes of the whole file, whichever part of it comes now; None if not said."""
    if response.status == 206:
        said = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        said = response.headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else None


def _too_much(url: str, announced: int | None, most: int) -> DownloadError:
    if announced is not None:
        problem = f"the server sends more than the {say_bytes(announced)} that it announced"
    else:
        problem = f"more than {say_bytes(most)} come, and the server does not say how many there are: no more are taken"
    return DownloadError(
        problem, where=shown(url), remedy="make room on the disk, or give --url with the address of another mirror"
    )


def _pour(response: _Body, part: PartFile, size: int | None, most: int, progress: ByteProgress | None) -> bool:
    """Append the response to ``part``, each piece as it comes: what has come survives a kill.

    Returns whether ``part`` has stayed within ``most`` bytes.
    """
    done = part.size
    with part.path.open("ab", buffering=0) as stream:
        while piece := _next_piece(response):
            if done + len(piece) > most:
                return False
            try:
                stream.write(piece)
            except OSError as problem:
                raise OutputError(
                    f"cannot be written ({problem.strerror or problem})",
                    where=part.path,
                    remedy="free disk space, then run the same command again: it resumes the download",
                    code=output_code(problem),
                ) from problem
            done += len(piece)
            if progress is not None:
                progress(done, size)
    return True


def _next_piece(response: _Body) -> bytes:
    try:
        return response.read1(_PIECE)
    except (OSError, http.client.HTTPException) as problem:
        raise _Broken("the connection broke off", reached=True) from problem
