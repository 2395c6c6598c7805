"""Send requests to a Triton Inference Server, over HTTP or gRPC, several at a time."""

from __future__ import annotations

import http.client
import json
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from decathlete.core.documents import parse_json
from decathlete.core.extras import import_optional
from decathlete.errors import TritonError

Protocol = Literal["http", "grpc"]
Arrays = Mapping[str, NDArray[Any]]
Answer = TypeVar("Answer")
_BACKOFF_S = 0.2
_TYPES = {"float32": "FP32", "float64": "FP64", "uint8": "UINT8"}


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How requests are sent.

    Attributes:
        protocol: ``http`` or ``grpc``.
        address: host and port of this protocol.
        at_once: most requests under way at a time.
        timeout_s: time limit of one request, s.
        retries: times that a request is sent again after the connection failed or the time limit passed.
    """

    protocol: Protocol = "grpc"
    address: str = "127.0.0.1:8001"
    at_once: int = 4
    timeout_s: float = 300.0
    retries: int = 2


@dataclass(frozen=True, kw_only=True)
class InferenceRequest:
    """One request to a model.

    Attributes:
        inputs: by name.
        outputs: names of those that are wanted; empty: all.
        regions: inputs and outputs that lie in shared memory: name -> registered region and number of bytes.
        parameters: of the request.
    """

    model: str
    inputs: Arrays
    outputs: tuple[str, ...] = ()
    regions: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    parameters: Mapping[str, bool | int | str] | None = None


class ConnectionLostError(Exception):
    """The server did not answer, or not in time: the request may be sent again."""


class TritonClient(ABC):
    """A connection to a server. Its methods may be called by several threads. Use it in a ``with`` block.

    Raises:
        MissingPackageError: tritonclient is missing.
    """

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._pool = ThreadPoolExecutor(options.at_once, thread_name_prefix="triton-client")

    @classmethod
    def connect(cls, options: ClientOptions) -> TritonClient:
        """Return a client for the protocol of the options."""
        return HttpClient(options) if options.protocol == "http" else GrpcClient(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.close()

    def infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]:
        """Send one request and return the outputs by name.

        Raises:
            TritonError: the server rejected it, or did not answer after all retries.
        """
        return self._with_retries(lambda: self._infer(request))

    def submit(self, request: InferenceRequest) -> Future[dict[str, NDArray[Any]]]:
        """Send a request in another thread."""
        return self._pool.submit(self.infer, request)

    def infer_all(self, requests: Iterable[InferenceRequest]) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the outputs of many requests in their order; at most ``at_once`` are under way, and as many wait.

        Raises:
            TritonError: as of :meth:`infer`; the requests that were not sent yet are dropped.
        """
        pending: deque[Future[dict[str, NDArray[Any]]]] = deque()
        try:
            for request in requests:
                if len(pending) >= self.options.at_once:
                    yield pending.popleft().result()
                pending.append(self.submit(request))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def metadata(self, model: str) -> ModelMetadata:
        """Return the inputs and outputs of a model.

        Raises:
            TritonError: the server has no such model, or does not answer.
        """
        return self._with_retries(lambda: self._metadata(model))

    def parameters(self, model: str) -> dict[str, str]:
        """Return the parameters in the configuration of a model.

        Raises:
            TritonError: the server has no such model, or does not answer.
        """
        config = self._with_retries(lambda: self._config(model))
        return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}

    def register(self, name: str, key: str, n_bytes: int) -> None:
        """Let the server use a region of this machine's shared memory.

        Raises:
            TritonError: the server cannot open it, for example because it runs on another machine.
        """
        self._with_retries(lambda: self._register(name, key, n_bytes))

    def unregister(self, name: str) -> None:
        """Let the server forget a region of shared memory."""
        self._with_retries(lambda: self._unregister(name))

    def statistics(self, model: str) -> ServerStatistics:
        """Return the sums of times that the server has spent on a model.

        Raises:
            TritonError: the server has no such model, or does not answer.
        """
        return ServerStatistics.of(self._with_retries(lambda: self._statistics(model)))

    def _with_retries(self, call: Callable[[], Answer]) -> Answer:
        for attempt in range(self.options.retries + 1):
            try:
                return call()
            except ConnectionLostError as problem:
                reason = str(problem)
                if attempt < self.options.retries:
                    time.sleep(_BACKOFF_S * 2**attempt)
        raise TritonError(
            f"no answer from the server after {self.options.retries + 1} attempts ({reason})",
            where=f"{self.options.protocol}://{self.options.address}",
            remedy="check that it runs at this address, or raise --timeout",
            code="E-TRITON-SERVER",
        )

    def rejected(self, reason: str) -> TritonError:
        """Return the error of a request that the server rejected."""
        return TritonError(
            f"the server rejected a request: {reason}",
            where=f"{self.options.protocol}://{self.options.address}",
            remedy="check the model's name, and that it was exported from this model",
            code="E-TRITON-REQUEST",
        )

    @abstractmethod
    def _infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def _metadata(self, model: str) -> ModelMetadata: ...

    @abstractmethod
    def _statistics(self, model: str) -> Mapping[str, Any]: ...

    @abstractmethod
    def _config(self, model: str) -> Mapping[str, Any]: ...

    @abstractmethod
    def _register(self, name: str, key: str, n_bytes: int) -> None: ...

    @abstractmethod
    def _unregister(self, name: str) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """Names and shapes (with the batch axis) of a model's inputs and outputs."""

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read the answer of a server."""
        found = [{t["name"]: tuple(int(n) for n in t["shape"]) for t in fields[end]} for end in ("inputs", "outputs")]
        return cls(inputs=found[0], outputs=found[1])

    @property
    def is_pipeline(self) -> bool:
        """Whether it is a pipeline of Decathlete."""
        return {"volume", "affine", "file"} <= set(self.inputs)


@dataclass(frozen=True, kw_only=True)
class ServerStatistics:
    """Sums over all requests since a model was loaded: inferences, batches, and seconds of each part."""

    inferences: int
    executions: int
    queue_s: float
    input_s: float
    infer_s: float
    output_s: float

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read the answer of a server."""
        model = fields["model_stats"][0]
        times = {
            key: int(model["inference_stats"].get(key, {}).get("ns", 0)) / 1e9
            for key in ("queue", "compute_input", "compute_infer", "compute_output")
        }
        return cls(
            inferences=int(model.get("inference_count", 0)),
            executions=int(model.get("execution_count", 0)),
            queue_s=times["queue"],
            input_s=times["compute_input"],
            infer_s=times["compute_infer"],
            output_s=times["compute_output"],
        )

    def since(self, before: ServerStatistics) -> ServerStatistics:
        """Return what was added after ``before``."""
        return ServerStatistics(
            **{name: getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__}
        )


class GrpcClient(TritonClient):
    """A client over gRPC."""

    def __init__(self, options: ClientOptions) -> None:
        super().__init__(options)
        self._module = import_optional("tritonclient.grpc", title="Triton's client", extra="triton")
        self._client = self._module.InferenceServerClient(options.address)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]:
        outputs = _outputs(self._module, request)
        with _GrpcErrors(self):
            result = self._client.infer(
                request.model,
                _inputs(self._module, request),
                outputs=outputs or None,
                parameters=dict(request.parameters or {}),
                client_timeout=self.options.timeout_s,
            )
        names = [output.name for output in result.get_response().outputs]
        return {name: value for name in names if (value := result.as_numpy(name)) is not None}

    def _metadata(self, model: str) -> ModelMetadata:
        with _GrpcErrors(self):
            return ModelMetadata.of(
                self._client.get_model_metadata(model, as_json=True, client_timeout=self.options.timeout_s)
            )

    def _statistics(self, model: str) -> Mapping[str, Any]:
        with _GrpcErrors(self):
            found: Mapping[str, Any] = self._client.get_inference_statistics(
                model, as_json=True, client_timeout=self.options.timeout_s
            )
        return found

    def _config(self, model: str) -> Mapping[str, Any]:
        with _GrpcErrors(self):
            found: Mapping[str, Any] = self._client.get_model_config(
                model, as_json=True, client_timeout=self.options.timeout_s
            )["config"]
        return found

    def _register(self, name: str, key: str, n_bytes: int) -> None:
        with _GrpcErrors(self):
            self._client.register_system_shared_memory(name, key, n_bytes, client_timeout=self.options.timeout_s)

    def _unregister(self, name: str) -> None:
        with _GrpcErrors(self):
            self._client.unregister_system_shared_memory(name, client_timeout=self.options.timeout_s)


class _GrpcErrors(AbstractContextManager[None]):
    """Translates the errors of gRPC."""

    _LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")

    def __init__(self, client: TritonClient) -> None:
        self._client = client

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        from tritonclient.utils import InferenceServerException

        if not isinstance(problem, InferenceServerException):
            return
        status = str(problem.status() or "").removeprefix("StatusCode.")
        message = str(problem.message())
        if status in self._LOST and "model" not in message:
            raise ConnectionLostError(f"{status.lower()}: {message[:200]}") from None
        raise self._client.rejected(message) from None


class HttpClient(TritonClient):
    """A client over HTTP with one connection for each thread; tritonclient's own fails in threads."""

    def __init__(self, options: ClientOptions) -> None:
        super().__init__(options)
        self._module = import_optional("tritonclient.http", title="Triton's client", extra="triton")
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in self._connections:
                connection.close()

    def _infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]:
        outputs = _outputs(self._module, request)
        body, header_length = self._module.InferenceServerClient.generate_request_body(
            _inputs(self._module, request), outputs=outputs or None, parameters=dict(request.parameters or {}) or None
        )
        headers = {"Inference-Header-Content-Length": str(header_length)} if header_length is not None else {}
        answer, answer_headers = self._request("POST", f"/v2/models/{request.model}/infer", body, headers)
        length = answer_headers.get("Inference-Header-Content-Length")
        result = self._module.InferenceServerClient.parse_response_body(
            answer, header_length=int(length) if length is not None else None
        )
        names = [output["name"] for output in result.get_response()["outputs"]]
        return {name: value for name in names if (value := result.as_numpy(name)) is not None}

    def _metadata(self, model: str) -> ModelMetadata:
        return ModelMetadata.of(self._json(f"/v2/models/{model}"))

    def _statistics(self, model: str) -> Mapping[str, Any]:
        return self._json(f"/v2/models/{model}/stats")

    def _config(self, model: str) -> Mapping[str, Any]:
        return self._json(f"/v2/models/{model}/config")

    def _register(self, name: str, key: str, n_bytes: int) -> None:
        body = json.dumps({"key": key, "offset": 0, "byte_size": n_bytes}).encode()
        self._request("POST", f"/v2/systemsharedmemory/region/{name}/register", body, {})

    def _unregister(self, name: str) -> None:
        self._request("POST", f"/v2/systemsharedmemory/region/{name}/unregister", b"", {})

    def _json(self, path: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = parse_json(self._request("GET", path, None, {})[0].decode())
        return found

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[bytes, http.client.HTTPMessage]:
        connection = self._connection()
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as problem:
            connection.close()  # it connects again with the next request
            raise ConnectionLostError(str(problem) or type(problem).__name__) from None
        if response.status == 503:
            raise ConnectionLostError("the server is not ready")
        if response.status != 200:
            raise self.rejected(_reason(content, response.status))
        return content, response.headers

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self.options.address, timeout=self.options.timeout_s)
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection


def _reason(content: bytes, status: int) -> str:
    try:
        return str(parse_json(content.decode())["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"


def _inputs(module: Any, request: InferenceRequest) -> Sequence[Any]:
    inputs = []
    for name, array in request.inputs.items():
        made = module.InferInput(name, list(array.shape), _TYPES[array.dtype.name])
        if name in request.regions:
            made.set_shared_memory(*request.regions[name])
        else:
            made.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(made)
    return inputs


def _outputs(module: Any, request: InferenceRequest) -> Sequence[Any]:
    outputs = []
    for name in request.outputs:
        made = module.InferRequestedOutput(name)
        if name in request.regions:
            made.set_shared_memory(*request.regions[name])
        outputs.append(made)
    return outputs
