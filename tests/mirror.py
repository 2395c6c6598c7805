"""A mirror of the Decathlon on this machine that can be told to misbehave, and the archives it serves."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import tarfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from guards import HANG_S

FOLDER = "Task04_Hippocampus"
ARCHIVE = f"{FOLDER}.tar"
MANIFEST = {
    "name": "Hippocampus",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    "test": [],
}
IMAGE = random.Random(0).randbytes(300_000)
FILES: Mapping[str, bytes] = {
    f"{FOLDER}/dataset.json": json.dumps(MANIFEST).encode(),
    f"{FOLDER}/imagesTr/a.nii.gz": IMAGE,
    f"{FOLDER}/labelsTr/a.nii.gz": b"label",
}


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member of an archive; ``attributes`` are those of ``TarInfo`` (``type``, ``linkname``, ``pax_headers``)."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def tar_of(*more: tuple[tarfile.TarInfo, bytes], files: Mapping[str, bytes] = FILES, mode: str = "w") -> bytes:
    """A tar file with ``more`` first, then ``files``."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for info, content in (*more, *(member(name, content) for name, content in files.items())):
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Mirror(ThreadingHTTPServer):
    """Serves one archive, and keeps count.

    Attributes:
        content: of the archive.
        asked: the ``Range`` of each request, ``""`` for the whole.
        served: bytes of bodies sent.
        breaks: after how many bytes each of the next answers breaks off.
        answers: status codes to give instead, request by request.
        etag: of ``content``; None for none.
        ranges, lengths: whether it knows ``Range``, and tells ``Content-Length``.
        stalled: if set, an answer that breaks off waits for it first.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.asked: list[str] = []
        self.served = 0
        self.breaks: deque[int] = deque()
        self.answers: deque[int] = deque()
        self.etag: str | None = '"one"'
        self.ranges = True
        self.lengths = True
        self.stalled: threading.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        mirror = self.server
        mirror.asked.append(self.headers.get("Range", ""))
        if mirror.answers:
            return self.send_error(mirror.answers.popleft())
        if self.path.split("?")[0] != f"/{ARCHIVE}":
            return self.send_error(404)
        start = self._start()
        if start >= len(mirror.content):
            return self.send_error(416)
        body = mirror.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(mirror.content) - 1}/{len(mirror.content)}")
        if mirror.lengths:
            self.send_header("Content-Length", str(len(body)))
        if mirror.etag:
            self.send_header("ETag", mirror.etag)
        self.end_headers()
        return self._send(body)

    def _start(self) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, self.server.etag)
        return int(wanted[1]) if wanted and same and self.server.ranges else 0

    def _send(self, body: bytes) -> None:
        until = self.server.breaks.popleft() if self.server.breaks else len(body)
        self.server.served += len(body[:until])  # before: the client may look as soon as it has the last byte
        with suppress(ConnectionError):
            self.wfile.write(body[:until])
        if self.server.stalled is not None and until < len(body):
            self.server.stalled.wait(HANG_S)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(content: bytes) -> Iterator[Mirror]:
    with Mirror(content) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield mirror
        finally:
            mirror.shutdown()
            thread.join()
