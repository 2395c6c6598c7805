"""Protection of the service: token and session cookie, Host and Origin, sizes of bodies, headers of answers.

One middleware sees every request before a route does, so that a route that is added later is protected, too.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decathlete.errors import ServiceError
from decathlete.serving.http.errors import error_response
from decathlete.serving.settings import ServiceSettings, host_name, is_loopback

COOKIE = "decathlete_session"
SESSION_SECONDS = 12 * 3600
"""How long a login lasts."""

MAX_BODY_BYTES = 1 << 20
"""Maximum size of the body of a request that is no upload."""

UPLOAD_PATHS = ("/api/v1/jobs", "/session", "/datastore", "/infer")
"""Paths below which files are uploaded; their routes or the size of ``--max-upload`` limit the body."""

OPEN_PATHS = (
    "/health/live",
    "/health/ready",
    "/api/v1/login",
    "/api/v1/logout",
    "/docs",
    "/openapi.json",
    "/auth/",
    "/auth/token",
)
"""Paths that need no token: they show nothing of any job or model."""

OPEN_PREFIXES = ("/page/",)
"""The files of the page, which are the same for everybody."""

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_ANSWER_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Sessions:
    """Cookies that stand for the token: an expiry, signed with the token. Nothing is stored, so a restart keeps them.

    Args:
        token: of the service; ``None``: everybody is logged in.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    @property
    def is_required(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def accepts_token(self, token: str) -> bool:
        """Whether ``token`` is the service's; the comparison takes the same time for every wrong one."""
        return self._token is None or hmac.compare_digest(_digest(token), _digest(self._token))

    def make_cookie(self) -> str:
        """Return the value of a cookie for somebody who sent the token."""
        expires = str(int(time.time()) + SESSION_SECONDS)
        return f"{expires}.{self._sign(expires)}"

    def accepts_cookie(self, value: str) -> bool:
        """Whether a cookie was made with this token and is not too old."""
        expires, _, signature = value.partition(".")
        if not hmac.compare_digest(self._sign(expires).encode(), signature.encode("utf-8", "replace")):
            return False
        return expires.isdecimal() and time.time() < int(expires)

    def accepts(self, connection: HTTPConnection) -> bool:
        """Whether a request has the token in its Authorization header, or a cookie."""
        if self._token is None:
            return True
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.accepts_token(token.strip()):
            return True
        return self.accepts_cookie(connection.cookies.get(COOKIE, ""))

    def _sign(self, expires: str) -> str:
        return hmac.new((self._token or "").encode(), f"session:{expires}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """Middleware that checks every request. See the module.

    Args:
        app: what it protects.
        settings: with names, origins and limits.
        sessions: check tokens and cookies.
    """

    def __init__(self, app: ASGIApp, *, settings: ServiceSettings, sessions: Sessions) -> None:
        self._app, self._settings, self._sessions = app, settings, sessions
        self._names = _host_names(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is not allowed; pass on every other one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refuse(HTTPConnection(scope))
        if refused is not None:
            await refused(scope, receive, _with_headers(send, scope))
            return
        await self._app(scope, self._limited(receive, scope), _with_headers(send, scope))

    def _refuse(self, connection: HTTPConnection) -> Response | None:
        headers, path = connection.headers, connection.scope["path"]
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._knows_host(host):
            return error_response(
                421,
                "E-SERVICE-ORIGIN",
                "the service does not know the name in the Host header",
                "use its own address, or start it with --allow-host NAME",
            )
        origin = headers.get("origin")
        if origin is not None and not self._allows_origin(origin, host):
            return error_response(
                403,
                "E-SERVICE-ORIGIN",
                "pages of other sites may not use this service",
                "start it with --allow-origin URL",
            )
        if connection.scope["method"] == "OPTIONS":  # a browser asks before it sends the token
            return None
        if not _is_open(path) and not self._sessions.accepts(connection):
            return error_response(
                401,
                "E-SERVICE-TOKEN",
                "the token is missing or wrong",
                "log in, or send Authorization: Bearer TOKEN",
            )
        return self._refuse_size(headers, path)

    def _refuse_size(self, headers: Headers, path: str) -> Response | None:
        limit, length = self._body_limit(path), headers.get("content-length", "0")
        if length.isdecimal() and len(length) < 20 and int(length) <= limit:
            return None
        return error_response(
            413, "E-SERVICE-SIZE", f"the body is larger than {limit} bytes", "crop the image, or see --max-upload"
        )

    def _body_limit(self, path: str) -> int:
        is_upload = any(path == p or path.startswith(f"{p}/") for p in UPLOAD_PATHS)
        return self._settings.limits.upload_bytes if is_upload else MAX_BODY_BYTES

    def _limited(self, receive: Receive, scope: Scope) -> Receive:
        """Return ``receive`` for bodies whose length is not declared: it raises a ServiceError for a longer one."""
        limit, received = self._body_limit(scope["path"]), 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise ServiceError(
                    f"the body is larger than {limit} bytes",
                    remedy="crop the image, or see --max-upload",
                    code="E-SERVICE-SIZE",
                )
            return message

        return receive_limited

    def _knows_host(self, host: str) -> bool:
        name = _host_name(host)
        if name is None:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self._settings.host)  # no name can be rebound to an address

    def _allows_origin(self, origin: str, host: str) -> bool:
        if origin in self._settings.allow_origins:
            return True
        parts = urlsplit(origin)
        default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
        return parts.scheme in ("http", "https") and parts.netloc.removesuffix(default) == host.removesuffix(default)


def _is_open(path: str) -> bool:
    return path == "/" or path in OPEN_PATHS or path.startswith(OPEN_PREFIXES)


def _host_names(settings: ServiceSettings) -> frozenset[str | None]:
    names = {host_name(name) for name in ("localhost", settings.host, *settings.allow_hosts)}
    if not is_loopback(settings.host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def _host_name(host: str) -> str | None:
    """Return the name in a Host header without its port; ``None``: it is not valid."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises, if it is no number
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def _with_headers(send: Send, scope: Scope) -> Send:
    """Return ``send`` that adds the protecting headers to every answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _headers_for(scope).items():
                headers.setdefault(name, value)
            if message["status"] == 307:
                headers["Location"] = _relative_location(scope["path"], headers["Location"])
        await send(message)

    return send_with_headers


def _relative_location(path: str, location: str) -> str:
    """Return a redirect that adds or removes the last slash, as an address relative to the requested one.

    The absolute one, which the router makes, lacks the path under which a proxy offers the service.

    >>> _relative_location("/datastore", "http://host/datastore/?id=1"), _relative_location("/a/b/", "http://host/a/b")
    ('datastore/?id=1', '../b')
    """
    target = urlsplit(location)
    name = target.path.rstrip("/").rsplit("/", 1)[-1]
    relative = f"../{name}" if path.endswith("/") else f"{name}/"
    return f"{relative}?{target.query}" if target.query else relative


def _headers_for(scope: Scope) -> Mapping[str, str]:
    shared = scope["path"].startswith(OPEN_PREFIXES)
    return _ANSWER_HEADERS | {"Cache-Control": "no-cache" if shared else "no-store"}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
