"""What a client and a Triton Inference Server exchange: requests, shared memory, metadata and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from decathlete.core.digits import parse_digits
from decathlete.errors import OptionError

Protocol = Literal["http", "grpc"]
Arrays = Mapping[str, NDArray[Any]]
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

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not host or "/" in host or not parse_digits(port):
            raise OptionError(
                f"{self.address!r} is no address of a {self.protocol} service",
                remedy="write host and port, such as 127.0.0.1:8000",
                code="E-OPTION-SYNTAX",
            )


@dataclass(frozen=True, kw_only=True)
class SystemRegion:
    """A region of the system's shared memory.

    Attributes:
        key: of the memory in the system.
    """

    kind: ClassVar[str] = "system"
    name: str
    n_bytes: int
    key: str


@dataclass(frozen=True, kw_only=True)
class CudaRegion:
    """A region in the memory of a GPU that processes share.

    Attributes:
        raw_handle: CUDA's handle of the memory for other processes, in base64.
        device_id: number of the GPU.
    """

    kind: ClassVar[str] = "cuda"
    name: str
    n_bytes: int
    raw_handle: bytes
    device_id: int


SharedRegion = SystemRegion | CudaRegion


@dataclass(frozen=True, kw_only=True)
class InferenceRequest:
    """One request to a model.

    Attributes:
        inputs: by name.
        outputs: names of those that are wanted; empty: all.
        regions: inputs and outputs that lie in shared memory, by name; they are registered.
        parameters: of the request.
    """

    model: str
    inputs: Arrays
    outputs: tuple[str, ...] = ()
    regions: Mapping[str, SharedRegion] = field(default_factory=dict)
    parameters: Mapping[str, bool | int | str] | None = None


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


def infer_inputs(module: Any, request: InferenceRequest) -> Sequence[Any]:
    """Return the inputs of a request as objects of ``tritonclient.http`` or ``.grpc``."""
    inputs = []
    for name, array in request.inputs.items():
        made = module.InferInput(name, list(array.shape), _TYPES[array.dtype.name])
        if name in request.regions:
            made.set_shared_memory(request.regions[name].name, request.regions[name].n_bytes)
        else:
            made.set_data_from_numpy(np.ascontiguousarray(array))
        inputs.append(made)
    return inputs


def requested_outputs(module: Any, request: InferenceRequest) -> Sequence[Any]:
    """Return the wanted outputs of a request as objects of ``tritonclient.http`` or ``.grpc``."""
    outputs = []
    for name in request.outputs:
        made = module.InferRequestedOutput(name)
        if name in request.regions:
            made.set_shared_memory(request.regions[name].name, request.regions[name].n_bytes)
        outputs.append(made)
    return outputs
