"""Requests over gRPC: a lost connection is retried, whatever its message says; an unknown model is an error."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from decathlete.errors import TritonError
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.protocol import ClientOptions

grpc = pytest.importorskip("grpc")
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")
service_pb2_grpc = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")


@contextmanager
def connected(*problems: str, retries: int = 2) -> Iterator[TritonClient]:
    """A client of a server that answers these problems first, as not available."""
    left = list(problems)

    class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelMetadata(self, request: object, context: grpc.ServicerContext) -> object:
            if left:
                context.abort(grpc.StatusCode.UNAVAILABLE, left.pop(0))
            tensor = service_pb2.ModelMetadataResponse.TensorMetadata(name="a", shape=[-1, 1])
            return service_pb2.ModelMetadataResponse(inputs=[tensor], outputs=[tensor])

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            options = ClientOptions(address=f"127.0.0.1:{port}", retries=retries)
            with TritonClient.connect(options) as client:
                yield client
        finally:
            server.stop(0).wait()


def test_a_lost_connection_is_retried_also_to_a_host_named_model() -> None:
    lost = "DNS resolution failed for model-server:8001"
    with connected(lost, lost) as client:
        assert client.metadata("a").inputs == {"a": (-1, 1)}
    with connected(lost, lost, retries=1) as client, pytest.raises(TritonError, match="after 2 attempts") as caught:
        client.metadata("a")
    assert caught.value.code == "E-TRITON-SERVER"


def test_an_unknown_model_is_not_asked_for_again() -> None:
    with (
        connected("Request for unknown model: 'a' is not found") as client,
        pytest.raises(TritonError, match="unknown model") as caught,
    ):
        client.metadata("a")
    assert caught.value.code == "E-TRITON-REQUEST"
