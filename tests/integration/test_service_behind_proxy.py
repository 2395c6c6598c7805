"""The service behind a reverse proxy with TLS, as `docs/how-to/serve-a-model.md` sets it up."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from decathlete.serving.settings import ServiceSettings
from service_support import (
    JOBS,
    TOKEN,
    image_bytes,
    save_model,
    send,
    service_client,
    settings_for,
)
from viewer_support import browser_page

SITE = "seg.example.org"
_HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "content-length"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> ServiceSettings:
    return settings_for(model, tmp_path / "data", token=TOKEN, allow_hosts=(SITE,))


@contextmanager
def proxy_before(service: httpx.URL, *, prefix: str = "", host: str | None = None) -> Iterator[str]:
    """A proxy that says that its clients use HTTPS; its address.

    Args:
        prefix: path under which it offers the service; it is removed from requests.
        host: name in the requests to the service; ``None``: that of the client.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            headers |= {
                "Host": host or self.headers["Host"],
                "X-Forwarded-Proto": "https",
                "X-Forwarded-For": "192.0.2.9",
            }
            connection = http.client.HTTPConnection(service.host, service.port, timeout=600)
            connection.request(self.command, self.path.removeprefix(prefix), body=body or None, headers=headers)
            self._answer(connection.getresponse())
            connection.close()

        do_POST = do_DELETE = do_PUT = do_GET

        def _answer(self, answer: http.client.HTTPResponse) -> None:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while piece := answer.read1(65536):  # each event at once
                self.wfile.write(piece)
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def client_of(address: str, **headers: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers=headers, timeout=600) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/tools/seg"])
@pytest.mark.parametrize("site", [SITE, f"{SITE}:8443"])
def test_people_and_programs_use_the_name_of_the_proxy(settings: ServiceSettings, prefix: str, site: str) -> None:
    with (
        service_client(settings) as direct,
        proxy_before(direct.base_url, prefix=prefix) as address,
        client_of(address, Host=site, Origin=f"https://{site}") as page,
        client_of(address, Host=site, Authorization=f"Bearer {TOKEN}") as program,
    ):
        assert page.get("/api/v1/models").status_code == 401
        login = page.post("/api/v1/login", json={"token": TOKEN})
        assert "Secure" in login.headers["set-cookie"]
        cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0]}
        assert page.get("/api/v1/models", headers=cookie).status_code == 200
        job_id = send(program, image_bytes()).json()["id"]
        with program.stream("GET", f"{JOBS}/{job_id}/events") as events:
            lines = [line for line in events.iter_lines() if line.startswith("data:")]
        assert json.loads(lines[-1].removeprefix("data:"))["state"] == "done"
        assert page.get(f"{JOBS}/{job_id}/result", headers=cookie).status_code == 200
        for path in ("/info", "/api/v1/models/"):  # of a client that forgets a slash, or adds one
            assert program.get(path, follow_redirects=True).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("Seg.Example.org", "seg.example.org"),
        ("2001:DB8:0:0::1", "[2001:db8::1]:8443"),
        ("[2001:db8::1]", "[2001:db8::1]"),
    ],
)
def test_names_and_addresses_are_allowed_at_every_port(model: Path, tmp_path: Path, allowed: str, host: str) -> None:
    settings = settings_for(model, tmp_path / "data", allow_hosts=(allowed,))
    with service_client(settings) as client:
        assert client.get("/api/v1/models", headers={"Host": host}).status_code == 200


def test_a_name_that_is_not_allowed_is_refused_behind_a_proxy_too(settings: ServiceSettings) -> None:
    with service_client(settings) as direct, proxy_before(direct.base_url) as address:
        for host, origin, status in (("evil.example", None, 421), (SITE, "https://evil.example", 403)):
            headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"} | ({"Origin": origin} if origin else {})
            with client_of(address, **headers) as client:
                assert client.get("/api/v1/models").status_code == status


def test_a_proxy_that_changes_the_host_needs_its_site_allowed(model: Path, tmp_path: Path) -> None:
    """Such as Apache without ProxyPreserveHost."""
    for allowed, status in (((), 403), ((f"https://{SITE}",), 200)):
        settings = settings_for(model, tmp_path / f"data{status}", token=TOKEN, allow_origins=allowed)
        with (
            service_client(settings) as direct,
            proxy_before(direct.base_url, host="127.0.0.1") as address,
            client_of(address, Host=SITE, Origin=f"https://{SITE}", Authorization=f"Bearer {TOKEN}") as client,
        ):
            assert client.get("/api/v1/models").status_code == status


@pytest.mark.full
def test_the_page_works_below_a_path(model: Path, tmp_path: Path) -> None:
    (tmp_path / "image.nii.gz").write_bytes(image_bytes())
    with (
        service_client(settings_for(model, tmp_path / "data")) as direct,
        proxy_before(direct.base_url, prefix="/tools/seg") as address,
        browser_page() as page,
    ):
        page.goto(f"{address}/")
        page.wait_for_selector("#start:not([hidden])")
        page.set_input_files("#files", tmp_path / "image.nii.gz")
        page.wait_for_selector("body[data-viewer='ready']")
        page.goto(f"{address}/docs")
        page.click("text=openapi.json")
        assert page.url == f"{address}/openapi.json"
