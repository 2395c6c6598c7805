"""The HTTP server around the application."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import uvicorn

from decathlete.core.locks import locked_folder
from decathlete.errors import OptionError
from decathlete.serving.dicom_node.leftovers import NodeLeftovers
from decathlete.serving.dicom_node.model_segment import running_node
from decathlete.serving.dicom_node.settings import NODE_FOLDER, DicomNodeSettings
from decathlete.serving.http.app import create_app
from decathlete.serving.private_log import private_logging
from decathlete.serving.service import Service
from decathlete.serving.settings import ServiceSettings

_SHUTDOWN_S = 5
_KEEP_ALIVE_S = 30


def serve(
    settings: ServiceSettings,
    *,
    dicom_node: DicomNodeSettings | None = None,
    on_start: Callable[[str], None] = lambda _address: None,
) -> None:
    """Segment images that programs and people send over HTTP, until a signal ends it.

    The queue survives a restart: jobs that are not finished are computed at the next start with the same
    ``settings.data``.

    Args:
        settings: models, address, protection and limits.
        dicom_node: a DICOM node that runs beside the service with its first model; ``None``: none.
        on_start: called with the address, when it accepts connections.

    Raises:
        OptionError: the address cannot be used, two models have one name, or one is too large.
        ModelError: a model is missing or damaged.
        OutputError: ``settings.data`` cannot be written, or another service uses it.
    """
    with locked_folder(settings.data), _listen(settings) as listener, private_logging(), ExitStack() as stack:
        leftovers = None
        if dicom_node is None:
            node_folder = settings.data / NODE_FOLDER
            leftovers = NodeLeftovers(node_folder, keep_seconds=settings.limits.keep_seconds)
            stack.callback(leftovers.close)
        service = Service(settings)
        stack.callback(service.stop)
        if leftovers is not None:
            service.on_expiry.append(leftovers.delete_old)
        service.node = stack.enter_context(
            running_node(dicom_node, service.models, stopping=service.stopping, reading=settings.reading)
        )
        service.start()  # before the application does: it would end without a message
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        config = uvicorn.Config(
            create_app(settings, service),
            access_log=False,  # addresses may contain more than they should
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
            forwarded_allow_ips="127.0.0.1,::1",
            lifespan="on",
        )
        HttpServer(config, service, on_start=lambda: on_start(address)).run(sockets=[listener])


class HttpServer(uvicorn.Server):
    """A server that ends event streams when a signal arrives.

    Args:
        on_start: called when it accepts connections.
    """

    def __init__(self, config: uvicorn.Config, service: Service, *, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell the caller; before, a client that reads the address would be refused."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order at SIGINT and SIGTERM; uvicorn would raise the signal again when everything is closed."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Tell the service and its DICOM node before uvicorn waits for open connections."""
        self._service.stopping.set()
        super().handle_exit(sig, frame)


def _listen(settings: ServiceSettings) -> socket.socket:
    """Open the socket before the models are loaded, so that a port in use is found at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as problem:
        listener.close()
        raise OptionError(
            f"cannot listen at {settings.host}:{settings.port} ({problem.strerror or problem})",
            remedy="choose another --port or --host",
        ) from problem
    return listener
