"""Measure the latency and throughput of a model on a Triton Inference Server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.core.progress import CaseProgress
from decathlete.core.rng import stream
from decathlete.core.schema import Schema
from decathlete.errors import OptionError
from decathlete.export.exporters.triton import model_base_name
from decathlete.export.windows import case_windows
from decathlete.inference.windows.sweep import window_grid
from decathlete.io.images import read_channels
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare
from decathlete.serving.triton.cases import find_cases
from decathlete.serving.triton.client import ClientOptions, InferenceRequest, ServerStatistics, TritonClient
from decathlete.serving.triton.comparison import volume_inputs
from decathlete.serving.triton.load import ClosedLoop, Latency, LoadOptions
from decathlete.serving.triton.shared_memory import shared_regions

Mode = Literal["offline", "online"]
_RANDOM = "random numbers"


class BenchmarkRow(Schema):
    """The figures of one batch size and number of clients.

    Attributes:
        mode: ``offline``: one client sends batches; ``online``: several clients send single windows or images.
        latency_ms: of a request, as the client sees it.
        inferences_per_s: windows, or images of a pipeline.
        volumes_per_min: whole images; of a network, images of the plan's median shape.
        queue_ms, input_ms, infer_ms, output_ms: the server's own times of one inference: waiting for its batch, reading
            inputs, computing, writing outputs.
        mean_batch: inferences that the server computed together, on average.
        stable: whether the last three measurement windows agree.
    """

    mode: Mode
    batch_size: int
    clients: int
    latency_ms: Latency
    inferences_per_s: float
    volumes_per_min: float
    queue_ms: float
    input_ms: float
    infer_ms: float
    output_ms: float
    mean_batch: float
    requests: int
    stable: bool


class BenchmarkReport(Schema):
    """What ``decathlete triton benchmark`` measured.

    Attributes:
        has_gpu: whether this machine has one: the recipe's published figures are shown beside ours then.
    """

    model: str
    protocol: str
    shared_memory: bool
    data: str
    input_shape: tuple[int, ...]
    has_gpu: bool
    rows: tuple[BenchmarkRow, ...]


@dataclass(frozen=True, kw_only=True)
class TritonBenchmarkOptions:
    """What is measured.

    Attributes:
        name: of the models, without ``_network`` and ``_pipeline``; empty: the dataset's.
        kind: ``network`` or ``pipeline``.
        client: protocol, address and time limit.
        batch_sizes: of the offline mode, which only networks have; empty: it is left out; ``None``: 1, 2 and 4.
        clients: numbers of clients of the online mode; empty: it is left out.
        shared_memory: put tensors into the system's shared memory instead of the connection.
        load: how long is measured.
    """

    name: str = ""
    kind: Literal["network", "pipeline"] = "network"
    client: ClientOptions = ClientOptions()
    batch_sizes: tuple[int, ...] | None = None
    clients: tuple[int, ...] = (1, 2, 4)
    shared_memory: bool = False
    load: LoadOptions = LoadOptions()

    def __post_init__(self) -> None:
        if self.kind == "pipeline" and self.batch_sizes:
            raise OptionError(
                "a pipeline receives one image in each request, so it has no batch sizes",
                remedy="leave out --batch-sizes, or use --models network",
            )
        if not self.offline and not self.clients:
            raise OptionError("nothing is measured", remedy="name batch sizes or numbers of clients")
        if min((*self.offline, *self.clients)) < 1:
            raise OptionError("batch sizes and numbers of clients are at least 1")

    @property
    def offline(self) -> tuple[int, ...]:
        """Batch sizes of the offline mode."""
        if self.kind == "pipeline":
            return ()
        return (1, 2, 4) if self.batch_sizes is None else self.batch_sizes


def triton_benchmark(
    model: str | Path,
    *,
    inputs: str | Path | None = None,
    options: TritonBenchmarkOptions = TritonBenchmarkOptions(),
    progress: CaseProgress | None = None,
) -> BenchmarkReport:
    """Send windows or images to a server as fast as it answers, and measure.

    Args:
        model: a run's folder or a model folder, from which the repository was exported.
        inputs: an image or a folder of images; ``None``: random numbers of the plan's size.
        progress: called after each row.

    Raises:
        TritonError: the server does not answer, has no such model, or rejects a request.
        ModelError: there is no model. ImageError: there are no images.
        OptionError: the pipeline cannot be measured in batches.
    """
    folder = Path(model)
    bundle = ModelBundle.load(folder)
    plan = bundle.members[0].plan
    name = f"{options.name or model_base_name(bundle)}_{options.kind}"
    data = _real(folder, Path(inputs), plan, options.kind) if inputs is not None else _random(plan, options.kind)
    levels: list[tuple[Mode, int, int]] = [
        *[("offline", n, 1) for n in options.offline],
        *[("online", 1, n) for n in options.clients],
    ]
    rows = []
    for done, (mode, batch_size, clients) in enumerate(levels, start=1):
        rows.append(_measure(name, mode, batch_size, clients, data, plan, options))
        if progress is not None:
            progress(done, len(levels), f"{mode}, batch {batch_size}, {clients} clients")
    shape = next(iter(data[0].values())).shape[1:]
    origin = _RANDOM if inputs is None else f"{len(data)} inputs from {Path(inputs).name}"
    return BenchmarkReport(
        model=name,
        protocol=options.client.protocol,
        shared_memory=options.shared_memory,
        data=origin,
        input_shape=shape,
        has_gpu=torch.cuda.is_available(),
        rows=tuple(rows),
    )


_Data = Sequence[Mapping[str, NDArray[Any]]]


def _random(plan: Plan, kind: str) -> _Data:
    """Return one request of random numbers: a window, or an image of the plan's median shape."""
    shape = (len(plan.channels), *(plan.patch_size if kind == "network" else plan.median_shape))
    values = stream(0, "triton benchmark").normal(size=(1, *shape)).astype(np.float32)
    return [{"windows": values}] if kind == "network" else [{"volume": values, "affine": np.eye(4)[None]}]


def _real(folder: Path, inputs: Path, plan: Plan, kind: str) -> _Data:
    """Return one request for each image."""
    cases = find_cases(folder, inputs, n_channels=len(plan.channels), limit=None)
    images = {case_id: read_channels(files) for case_id, files in cases.items()}
    if kind == "pipeline":
        return [volume_inputs(image) for image in images.values()]
    return [
        {"windows": window.numpy()}
        for case_id, image in images.items()
        for window in case_windows(prepare(image, plan, case_id=case_id).image_CZYX, plan, 1)
    ]


def _measure(
    name: str, mode: Mode, batch_size: int, clients: int, data: _Data, plan: Plan, options: TritonBenchmarkOptions
) -> BenchmarkRow:
    """Measure one batch size and number of clients."""
    client_options = replace(options.client, at_once=clients)
    before: list[ServerStatistics] = []
    with ExitStack() as stack:
        client = stack.enter_context(TritonClient.connect(client_options))
        requests = list(_requests(client, name, data, batch_size, clients, options, stack))
        loop = ClosedLoop([partial(_send_next, client, each, [0]) for each in requests])
        measured = loop.measure(options.load, on_start=lambda: before.append(client.statistics(name)))
        spent = client.statistics(name).since(before[0])
    per_s = measured.requests_per_s * batch_size
    n = max(spent.inferences, 1)
    return BenchmarkRow(
        mode=mode,
        batch_size=batch_size,
        clients=clients,
        latency_ms=Latency.of(measured.seconds),
        inferences_per_s=per_s,
        volumes_per_min=60 * per_s / _windows_per_volume(plan, options.kind),
        queue_ms=1000 * spent.queue_s / n,
        input_ms=1000 * spent.input_s / n,
        infer_ms=1000 * spent.infer_s / n,
        output_ms=1000 * spent.output_s / n,
        mean_batch=spent.inferences / max(spent.executions, 1),
        requests=len(measured.seconds),
        stable=measured.stable,
    )


def _requests(
    client: TritonClient,
    name: str,
    data: _Data,
    batch_size: int,
    clients: int,
    options: TritonBenchmarkOptions,
    stack: ExitStack,
) -> Iterator[Sequence[InferenceRequest]]:
    """Yield the requests of each client, which it sends in turn."""
    metadata = client.metadata(name)
    outputs = tuple(metadata.outputs) if options.kind == "network" else ("label", "report")
    batches = [{key: np.repeat(value, batch_size, axis=0) for key, value in each.items()} for each in data]
    if options.kind == "network":
        (input_name,) = metadata.inputs
        batches = [{input_name: each["windows"]} for each in batches]
    for number in range(clients):
        order = [*batches[number % len(batches) :], *batches[: number % len(batches)]]
        if options.shared_memory:
            order = order[:1]  # a region holds one input
            sizes = _output_bytes(outputs, metadata.outputs, order[0], options.kind)
            regions = stack.enter_context(shared_regions(client, order[0], sizes))
        else:
            regions = {}
        yield [InferenceRequest(model=name, inputs=each, outputs=outputs, regions=regions) for each in order]


def _output_bytes(
    outputs: Sequence[str], shapes: Mapping[str, tuple[int, ...]], inputs: Mapping[str, NDArray[Any]], kind: str
) -> dict[str, int]:
    """Return the size of the logits; sizes of a pipeline's outputs depend on the image, so they are sent."""
    if kind == "pipeline":
        return {}
    (windows,) = inputs.values()
    return {name: 4 * len(windows) * shapes[name][1] * int(np.prod(windows.shape[2:])) for name in outputs}


def _send_next(client: TritonClient, requests: Sequence[InferenceRequest], place: list[int]) -> None:
    client.infer(requests[place[0] % len(requests)])
    place[0] += 1


def _windows_per_volume(plan: Plan, kind: str) -> int:
    """Return the number of windows of an image of the plan's median shape; 1 for a pipeline, which receives images."""
    return 1 if kind == "pipeline" else len(window_grid(plan.median_shape, plan=plan).boxes)
