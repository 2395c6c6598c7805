"""Send requests to a Triton Inference Server, over HTTP or gRPC, several at a time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from numpy.typing import NDArray

from decathlete.core.extras import import_optional
from decathlete.errors import TritonError
from decathlete.serving.triton.protocol import (
    ClientOptions,
    InferenceRequest,
    ModelMetadata,
    ServerStatistics,
    SharedRegion,
)

Answer = TypeVar("Answer")
_BACKOFF_S = 0.2


class ConnectionLostError(Exception):
    """The server did not answer, or not in time: the request may be sent again."""


class TritonClient(ABC):
    """A connection to a server. Its methods may be called by several threads. Use it in a ``with`` block.

    Attributes:
        module_name: module of tritonclient for the protocol.
        module: that module.

    Raises:
        MissingPackageError: tritonclient is missing.
    """

    module_name: ClassVar[str]

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self.module: Any = import_optional(self.module_name, title="Triton's client", extra="triton")
        self._pool = ThreadPoolExecutor(options.at_once, thread_name_prefix="triton-client")

    @classmethod
    def connect(cls, options: ClientOptions) -> TritonClient:
        """Return a client for the protocol of the options."""
        from decathlete.serving.triton.grpc_client import GrpcClient  # here, for they are made from this class
        from decathlete.serving.triton.http_client import HttpClient

        return HttpClient(options) if options.protocol == "http" else GrpcClient(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.close()

    def infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]:
        """Send one request and return the outputs by name, without those in shared memory.

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
        found = self._with_retries(lambda: self._metadata(model))
        with self.reading_answer():
            return ModelMetadata.of(found)

    def parameters(self, model: str) -> dict[str, str]:
        """Return the parameters in the configuration of a model.

        Raises:
            TritonError: the server has no such model, or does not answer.
        """
        config = self._with_retries(lambda: self._config(model))
        with self.reading_answer():
            return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}

    def has_gpu(self, model: str) -> bool:
        """Return whether the server computes a model on a GPU.

        Raises:
            TritonError: the server has no such model, or does not answer.
        """
        config = self._with_retries(lambda: self._config(model))
        with self.reading_answer():
            return any(group.get("kind") == "KIND_GPU" for group in config.get("instance_group", ()))

    def register(self, region: SharedRegion) -> None:
        """Let the server use a region of this machine's shared memory.

        Raises:
            TritonError: the server cannot open it, for example because it runs on another machine.
        """
        self._with_retries(lambda: self._register(region))

    def unregister(self, region: SharedRegion) -> None:
        """Let the server forget a region of shared memory."""
        self._with_retries(lambda: self._unregister(region))

    def statistics(self, model: str) -> ServerStatistics:
        """Return the sums of times that the server has spent on a model.

        Raises:
            TritonError: the server has no such model, or does not answer.
        """
        found = self._with_retries(lambda: self._statistics(model))
        with self.reading_answer():
            return ServerStatistics.of(found)

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
            where=self._url,
            remedy="check that it runs at this address, or raise --timeout",
            code="E-TRITON-SERVER",
        )

    def rejected(self, reason: str) -> TritonError:
        """Return the error of a request that the server rejected."""
        return TritonError(
            f"the server rejected a request: {reason}",
            where=self._url,
            remedy="check the model's name, and that it was exported from this model",
            code="E-TRITON-REQUEST",
        )

    @contextmanager
    def reading_answer(self) -> Iterator[None]:
        """Translate the errors of an answer that is not one of Triton, such as a web page.

        Raises:
            TritonError: it is not.
        """
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as problem:
            raise TritonError(
                f"the answer is not one of Triton Inference Server ({type(problem).__name__})",
                where=self._url,
                remedy="check the address",
                code="E-TRITON-SERVER",
            ) from problem

    @property
    def _url(self) -> str:
        return f"{self.options.protocol}://{self.options.address}"

    @abstractmethod
    def _infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def _metadata(self, model: str) -> Mapping[str, Any]: ...

    @abstractmethod
    def _statistics(self, model: str) -> Mapping[str, Any]: ...

    @abstractmethod
    def _config(self, model: str) -> Mapping[str, Any]: ...

    @abstractmethod
    def _register(self, region: SharedRegion) -> None: ...

    @abstractmethod
    def _unregister(self, region: SharedRegion) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""
