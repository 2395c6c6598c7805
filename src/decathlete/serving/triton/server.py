"""Start Triton Inference Server for a model repository."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from decathlete.core.files import read_text
from decathlete.core.scratch import scratch_folder
from decathlete.errors import ModelError, OptionError, TritonError
from decathlete.export.triton_config import parse_config
from decathlete.export.triton_versions import CONFIG_FILE
from decathlete.serving.triton.backend_folder import python_library_folder, write_backends
from decathlete.serving.triton.installed_server import ServerInstallation, find_server

ModelControl = Literal["none", "poll", "explicit"]
LOOPBACK = "127.0.0.1"
CACHE_BYTES = 64 * 2**20
"""Size of the response cache, if a model uses it."""
_STOP_S = 20.0
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class TritonServerOptions:
    """How a server runs.

    Attributes:
        host: address that it listens on.
        http_port, grpc_port, metrics_port: of its three services.
        control: ``none``: all models are loaded at the start; ``poll``: changes of the repository are followed;
            ``explicit``: only ``load`` is loaded, and clients load and unload models.
        load: models to load at the start, with ``explicit``.
    """

    host: str = LOOPBACK
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    control: ModelControl = "none"
    load: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.load and self.control != "explicit":
            raise OptionError(
                f"--load has no effect with --model-control {self.control}",
                remedy="use --model-control explicit, or leave it out",
                code="E-OPTION-CONFLICT",
            )
        if self.control == "explicit" and not self.load:
            raise OptionError(
                "--model-control explicit loads no model by itself", remedy="name the models to load with --load"
            )
        ports = (self.http_port, self.grpc_port, self.metrics_port)
        if len(set(ports)) < len(ports):
            raise OptionError(f"the ports {ports} are not different", remedy="choose three ports")


def read_configs(repository: Path) -> dict[str, Any]:
    """Return the configuration of each model of a repository.

    Raises:
        ModelError: there is no repository, or a configuration is not valid.
    """
    files = sorted(repository.glob(f"*/{CONFIG_FILE}"))
    if not files:
        raise ModelError(
            "is not a model repository of Triton",
            where=repository,
            remedy="write one with `decathlete export triton`",
        )
    return {path.parent.name: parse_config(read_text(path)) for path in files}


def server_command(
    server: ServerInstallation, repository: Path, options: TritonServerOptions, *, backends: Path | None
) -> list[str]:
    """Return the command line of a server.

    The response cache and the rate limiter are switched on if a model of the repository uses them.

    Raises:
        ModelError: there is no repository, or a configuration is not valid.
        OptionError: a model to load is not in the repository, or the server cannot load it.
    """
    configs = read_configs(repository)
    unknown = sorted(set(options.load) - set(configs))
    if unknown:
        raise OptionError(
            f"the repository has no model {unknown[0]}", where=repository, remedy=f"choose of {', '.join(configs)}"
        )
    if server.stubs is not None:
        _check_platforms({name: configs[name] for name in options.load or configs}, repository)
    command = [str(server.program), f"--model-repository={repository.resolve()}", "--disable-auto-complete-config"]
    command += [f"--backend-directory={backends or server.backends}", f"--model-control-mode={options.control}"]
    command += [f"--load-model={name}" for name in options.load]
    for service in ("http", "grpc", "metrics"):
        command += [f"--{service}-address={options.host}", f"--{service}-port={getattr(options, f'{service}_port')}"]
    if any(config.response_cache.enable for config in configs.values()):
        command.append(f"--cache-config=local,size={CACHE_BYTES}")
        command += [f"--cache-directory={server.caches}"] if server.caches else []
    if any(group.HasField("rate_limiter") for config in configs.values() for group in config.instance_group):
        command.append("--rate-limit=execution_count")
    return command


def _check_platforms(configs: Mapping[str, Any], repository: Path) -> None:
    """Check that a wheel's server knows the platforms of the models to load."""
    for name, config in configs.items():
        if config.platform == "torch_aoti":
            raise OptionError(
                f"{name} is an AOTInductor package, which the server of nvidia-pytriton cannot load",
                where=repository,
                remedy="start the repository in NVIDIA's container, or name the other models with --model-control "
                "explicit --load NAME",
            )


def server_environment(server: ServerInstallation, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server: the Python backend finds its interpreter by the PATH.

    Args:
        environment: of this process.

    Raises:
        TritonError: Python's shared library is not installed, which the Python backend of a wheel's server loads.
    """
    found = dict(environment)
    libraries = [server.libraries]
    if server.stubs is not None:
        found["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), found.get("PATH", os.defpath)])
        libraries.append(python_library_folder())
    folders = [*(str(folder) for folder in libraries if folder is not None), found.get("LD_LIBRARY_PATH", "")]
    if any(folders):
        found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
    return found


@contextmanager
def running_server(
    repository: Path,
    *,
    options: TritonServerOptions = TritonServerOptions(),
    server: ServerInstallation | None = None,
    environment: Mapping[str, str],
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, and stop it at the end of the ``with`` block.

    Args:
        server: ``None``: the one that :func:`find_server` finds.
        environment: variables of this process.
        log: file for what the server writes; ``None``: this process's output.

    Raises:
        TritonError: no server is installed. ModelError: there is no repository.
    """
    server = server or find_server()
    with scratch_folder() as scratch:
        backends = write_backends(server, scratch / "backends")
        command = server_command(server, repository, options, backends=backends)
        stream = None if log is None else log.open("wb")
        try:
            process = subprocess.Popen(
                command, env=server_environment(server, environment), stdout=stream, stderr=stream and subprocess.STDOUT
            )
            try:
                yield process
            finally:
                stop(process)
        finally:
            if stream is not None:
                stream.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and kill it if it does not."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_ready(
    process: subprocess.Popen[bytes], options: TritonServerOptions, *, timeout_s: float = 300.0
) -> None:
    """Wait until a server has loaded its models.

    Raises:
        TritonError: it exited, or is not ready within the time limit.
    """
    url = f"http://{options.host}:{options.http_port}/v2/health/ready"
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _exited(process.returncode)
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    raise TritonError(
        f"the server was not ready after {timeout_s:g} s",
        remedy="read its log: a model that cannot be loaded keeps it from being ready",
        code="E-TRITON-SERVER",
    )


def free_ports(n: int) -> Sequence[int]:
    """Return TCP ports of the loopback address that are free now."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def triton_start(
    repository: str | Path,
    *,
    options: TritonServerOptions = TritonServerOptions(),
    server: str | Path | None = None,
    environment: Mapping[str, str],
) -> int:
    """Run a server until it ends or this process is asked to end; return its exit status.

    Args:
        repository: folder that :func:`decathlete.export_triton` wrote.
        server: program ``tritonserver``, or a Python environment with nvidia-pytriton; ``None``: see
            :func:`~decathlete.serving.triton.installed_server.find_server`.
        environment: variables of this process, e.g. ``os.environ``.

    Raises:
        TritonError: no server is installed, or it fails.
        ModelError: there is no repository.
    """
    installation = find_server(None if server is None else Path(server))
    with (
        _forwarding_signals() as signals,  # before the start: a signal in between must not leave a server behind
        running_server(Path(repository), options=options, server=installation, environment=environment) as process,
    ):
        signals.forward_to(process)
        status = process.wait()
    if status != 0 and not signals.received:
        raise _exited(status)
    return 0


class _EndSignals:
    """The signals that ask this process to end, for the server."""

    def __init__(self) -> None:
        self.received = False
        self._process: subprocess.Popen[bytes] | None = None

    def forward_to(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the server to end when a signal arrives, or at once if one has arrived."""
        self._process = process
        if self.received:
            process.terminate()

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        """Note a signal, and forward it."""
        self.received = True
        if self._process is not None:
            self._process.terminate()


@contextmanager
def _forwarding_signals() -> Iterator[_EndSignals]:
    """Provide the signals that ask this process to end; at the end, they are handled as before."""
    signals = _EndSignals()
    before = {number: signal.signal(number, signals.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exited(status: int) -> TritonError:
    return TritonError(
        f"the server exited unexpectedly (status {status})",
        remedy="read what it wrote above: often a model cannot be loaded, or a port is in use",
        code="E-TRITON-SERVER",
    )
