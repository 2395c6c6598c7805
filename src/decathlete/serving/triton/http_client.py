"""A client of a Triton Inference Server over HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from decathlete.core.documents import parse_json
from decathlete.serving.triton.client import ConnectionLostError, TritonClient
from decathlete.serving.triton.protocol import (
    ClientOptions,
    CudaRegion,
    InferenceRequest,
    SharedRegion,
    infer_inputs,
    requested_outputs,
)


class HttpClient(TritonClient):
    """A client over HTTP with one connection for each thread; tritonclient's own fails in threads."""

    module_name = "tritonclient.http"

    def __init__(self, options: ClientOptions) -> None:
        super().__init__(options)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in self._connections:
                connection.close()

    def _infer(self, request: InferenceRequest) -> dict[str, NDArray[Any]]:
        outputs = requested_outputs(self.module, request)
        body, header_length = self.module.InferenceServerClient.generate_request_body(
            infer_inputs(self.module, request),
            outputs=outputs or None,
            parameters=dict(request.parameters or {}) or None,
        )
        headers = {"Inference-Header-Content-Length": str(header_length)} if header_length is not None else {}
        answer, answer_headers = self._request("POST", f"/v2/models/{request.model}/infer", body, headers)
        length = answer_headers.get("Inference-Header-Content-Length")
        with self.reading_answer():
            result = self.module.InferenceServerClient.parse_response_body(
                answer, header_length=int(length) if length is not None else None
            )
            names = [output["name"] for output in result.get_response()["outputs"]]
        return {name: result.as_numpy(name) for name in names if name not in request.regions}

    def _metadata(self, model: str) -> Mapping[str, Any]:
        return self._json(f"/v2/models/{model}")

    def _statistics(self, model: str) -> Mapping[str, Any]:
        return self._json(f"/v2/models/{model}/stats")

    def _config(self, model: str) -> Mapping[str, Any]:
        return self._json(f"/v2/models/{model}/config")

    def _register(self, region: SharedRegion) -> None:
        fields: dict[str, Any] = {"byte_size": region.n_bytes}
        if isinstance(region, CudaRegion):
            fields |= {"raw_handle": {"b64": region.raw_handle.decode()}, "device_id": region.device_id}
        else:
            fields |= {"key": region.key, "offset": 0}
        self._request("POST", f"{_region_path(region)}/register", json.dumps(fields).encode(), {})

    def _unregister(self, region: SharedRegion) -> None:
        self._request("POST", f"{_region_path(region)}/unregister", b"", {})

    def _json(self, path: str) -> Mapping[str, Any]:
        content, _ = self._request("GET", path, None, {})
        with self.reading_answer():
            found: Mapping[str, Any] = parse_json(content.decode())
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


def _region_path(region: SharedRegion) -> str:
    return f"/v2/{region.kind}sharedmemory/region/{region.name}"
