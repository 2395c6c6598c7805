"""Downloads from a DICOMweb server: files as they were sent, and an end at the limit, however large an instance is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from decathlete.errors import ServiceError
from decathlete.serving.dicomweb import DicomWebServer
from decathlete.serving.monai_label.image_sources import DicomWebImages
from dicom_node_support import Clock, MakeNode, Web, content_of, poll_twice, slices

PARTS = 'multipart/related; type="application/dicom"; boundary="a b"'
HEAD = b"\r\n--a b\r\nContent-Type: application/dicom\r\nContent-Length: 7\r\n\r\n"
END = b"\r\n--a b--\r\n"
BLOCK = bytes(1 << 16)
HUGE = 10**12


class Sent:
    """What a server has sent."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self.requests: list[tuple[str, str | None]] = []
        self.ended = threading.Event()


@contextmanager
def server_of(content_type: str, blocks: Callable[[], Iterable[bytes]]) -> Iterator[tuple[str, Sent]]:
    """A server that answers every request with these bytes; its address, and what it sent."""
    sent = Sent()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.requests.append((self.path, self.headers["Accept"]))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            try:
                for block in blocks():
                    self.wfile.write(block)
                    sent.n_bytes += len(block)
            except OSError:  # the client has closed the connection
                pass
            sent.ended.set()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def download(url: str, folder: Path, *, study: str = "1.2") -> list[Path]:
    return list(DicomWebServer(url).download(study, "1.2.3", folder, check=lambda _: None))


def huge() -> Iterator[bytes]:
    """One instance without an end."""
    yield HEAD
    yield from repeat(BLOCK, HUGE // len(BLOCK))


def test_instances_are_written_as_they_were_sent(tmp_path: Path) -> None:
    contents = [b"DICM\r\n--a\r\n-", b"", BLOCK * 40]
    with server_of(PARTS, lambda: [HEAD + one for one in contents] + [END]) as (url, sent):
        paths = download(f"{url}/", tmp_path)
    assert [path.read_bytes() for path in paths] == contents
    assert sent.requests == [
        ("/dicom-web/studies/1.2/series/1.2.3", 'multipart/related; type="application/dicom"; transfer-syntax=*')
    ]


def test_an_answer_without_parts_is_one_instance(tmp_path: Path) -> None:
    with server_of("application/dicom", lambda: [b"DICM", b"1"]) as (url, _):
        (path,) = download(url, tmp_path)
    assert path.read_bytes() == b"DICM1"


@pytest.mark.parametrize(
    ("content_type", "content", "said"),
    [
        (PARTS, HEAD + b"cut", "ends before the series is complete"),
        (PARTS, b"no parts", "sends parts that cannot be parsed"),
        ("text/html", b"log in", "sends no DICOM"),
    ],
)
def test_an_answer_that_is_no_series_is_an_error(tmp_path: Path, content_type: str, content: bytes, said: str) -> None:
    with server_of(content_type, lambda: [content]) as (url, _), pytest.raises(ServiceError, match=said) as caught:
        download(url, tmp_path)
    assert caught.value.code == "E-SERVICE-DICOMWEB"


def test_an_identifier_is_no_path(tmp_path: Path) -> None:
    with server_of(PARTS, lambda: [END]) as (url, sent), pytest.raises(ServiceError, match="is not valid"):
        download(url, tmp_path, study="1.2/../../system")
    assert sent.requests == []


def test_an_instance_without_an_end_is_not_kept_in_memory_or_on_the_disk(
    make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path
) -> None:
    web.series = [slices(tmp_path, "ct", n_slices=1)]
    with server_of(PARTS, huge) as (url, sent):
        node = make_node(max_bytes=1 << 22)
        assert node._archive
        node._archive.download = DicomWebServer(url).download
        poll_twice(node, clock)
        assert sent.ended.wait(600)  # against a test that hangs
    (failed,) = node.status().failed_copies
    assert "no room for it: limit of the stored series" in failed.reason
    assert sent.n_bytes < 1 << 28  # what was stored, and what the sockets hold
    assert (list((tmp_path / "node" / "arriving").iterdir()), node.store.stored_bytes()) == ([], 0)


def test_a_series_of_a_server_is_stored(make_node: MakeNode, web: Web, clock: Clock, tmp_path: Path) -> None:
    (series,) = web.series = [slices(tmp_path, "ct")]
    with server_of(PARTS, lambda: [HEAD + content_of(one) for one in series] + [END]) as (url, _):
        node = make_node()
        assert node._archive
        node._archive.download = DicomWebServer(url).download
        poll_twice(node, clock)
    assert node.status().failed_copies == ()
    stored = {path.read_bytes() for path in node.store.files(series[0].SeriesInstanceUID)}
    assert stored == {content_of(one) for one in series}


def test_an_image_of_viewers_ends_at_its_limit(tmp_path: Path) -> None:
    with server_of(PARTS, huge) as (url, sent):
        images = DicomWebImages(url, limit_bytes=1 << 22)
        images._studies_of = lambda _: ["1.2"]  # type: ignore[method-assign]
        with pytest.raises(ServiceError, match=r"the series is larger than 4\.2 MB") as caught:
            images.copy_files("1.2.3", tmp_path)
        assert sent.ended.wait(600)  # against a test that hangs
    assert caught.value.code == "E-SERVICE-SIZE"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 22
