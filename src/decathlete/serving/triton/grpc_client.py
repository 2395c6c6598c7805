"""A client of a Triton Inference Server over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from decathlete.serving.triton.client import ConnectionLostError, TritonClient
from decathlete.serving.triton.protocol import (
    ClientOptions,
    CudaRegion,
    InferenceRequest,
    SharedRegion,
    infer_inputs,
    requested_outputs,
)


class GrpcClient(TritonClient):
    """A client over gRPC."""

    module_name = "tritonclient.grpc"

    def __init__(self, options: ClientOptions) -> None:
        super().__init__(options)
        self._client = self.module.InferenceServerClient(options.address)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]:
        outputs = requested_outputs(self.module, request)
        with _GrpcErrors(self):
            result = self._client.infer(
                request.model,
                infer_inputs(self.module, request),
                outputs=outputs or None,
                parameters=dict(request.parameters or {}),
                client_timeout=self.options.timeout_s,
            )
        names = [output.name for output in result.get_response().outputs]
        return {name: result.as_numpy(name) for name in names if name not in request.regions}

    def _metadata(self, model: str) -> Mapping[str, Any]:
        return self._json(self._client.get_model_metadata, model)

    def _statistics(self, model: str) -> Mapping[str, Any]:
        return self._json(self._client.get_inference_statistics, model)

    def _config(self, model: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._json(self._client.get_model_config, model)["config"]
        return found

    def _json(self, ask: Callable[..., Any], model: str) -> Mapping[str, Any]:
        with _GrpcErrors(self):
            found: Mapping[str, Any] = ask(model, as_json=True, client_timeout=self.options.timeout_s)
        return found

    def _register(self, region: SharedRegion) -> None:
        limit = self.options.timeout_s
        with _GrpcErrors(self):
            if isinstance(region, CudaRegion):
                self._client.register_cuda_shared_memory(
                    region.name, region.raw_handle, region.device_id, region.n_bytes, client_timeout=limit
                )
            else:
                self._client.register_system_shared_memory(
                    region.name, region.key, region.n_bytes, client_timeout=limit
                )

    def _unregister(self, region: SharedRegion) -> None:
        unregister = getattr(self._client, f"unregister_{region.kind}_shared_memory")
        with _GrpcErrors(self):
            unregister(region.name, client_timeout=self.options.timeout_s)


class _GrpcErrors(AbstractContextManager[None]):
    """Translates the errors of gRPC."""

    _LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
    _UNKNOWN_MODEL = "Request for unknown model"  # the server's words, also with the status UNAVAILABLE

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
        if status in self._LOST and not message.startswith(self._UNKNOWN_MODEL):
            raise ConnectionLostError(f"{status.lower()}: {message[:200]}") from None
        raise self._client.rejected(message) from None
