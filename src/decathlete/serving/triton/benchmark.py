"""Measure the latency and throughput of a model on a Triton Inference Server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

from decathlete.core.geometry import Triple
from decathlete.core.latency import Latency
from decathlete.core.progress import CaseProgress
from decathlete.core.schema import Schema
from decathlete.errors import OptionError
from decathlete.export.exporters.triton import model_base_name
from decathlete.inference.windows.sweep import window_grid
from decathlete.io.reading import Reading, require_named_files
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import Plan
from decathlete.serving.triton.benchmark_requests import Kind, RequestData, client_requests, random_data, real_data
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.load import ClosedLoop, LoadOptions
from decathlete.serving.triton.protocol import ClientOptions, InferenceRequest, ServerStatistics
from decathlete.serving.triton.shared_memory import SharedMemory, check_shared_memory

Mode = Literal["offline", "online"]


class BenchmarkRow(Schema):
    """The figures of one batch size and number of clients, all of the same windows: the last three.

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
        has_gpu: whether the server computes the model on a GPU: the recipe's published figures are shown beside ours
            then.
    """

    model: str
    protocol: str
    shared_memory: SharedMemory
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
        shared_memory: what holds the tensors instead of the connection.
        load: how long is measured.
    """

    name: str = ""
    kind: Kind = "network"
    client: ClientOptions = ClientOptions()
    batch_sizes: tuple[int, ...] | None = None
    clients: tuple[int, ...] = (1, 2, 4)
    shared_memory: SharedMemory = "none"
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
            raise OptionError(
                "batch sizes and numbers of clients are at least 1", remedy="change --batch-sizes or --clients"
            )

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
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    options: TritonBenchmarkOptions = TritonBenchmarkOptions(),
    progress: CaseProgress | None = None,
) -> BenchmarkReport:
    """Send windows or images to a server as fast as it answers, and measure.

    Args:
        model: a run's folder or a model folder, from which the repository was exported.
        inputs: an image or a folder of images; ``None``: random numbers of the plan's size.
        spacing: z, y, x in mm, for images in ``inputs`` whose files do not contain their spacing.
        image_formats: settings of image formats that change how these images are read, by the name of the format.
        progress: called after each row.

    Raises:
        TritonError: the server does not answer, has no such model, or rejects a request.
        ModelError: there is no model. ImageError: there are no images.
        OptionError: there is no GPU, whose memory is to be shared; or ``spacing`` or a setting of an image format has
            no effect.
    """
    require_named_files(spacing, image_formats, are_named=inputs is not None, options="--input")
    check_shared_memory(options.shared_memory)
    bundle = ModelBundle.load(Path(model))
    plan = bundle.members[0].plan
    name = f"{options.name or model_base_name(bundle)}_{options.kind}"
    reading = Reading().revised(spacing, image_formats)
    data = random_data(plan, options.kind) if inputs is None else real_data(Path(inputs), plan, options.kind, reading)
    levels: list[tuple[Mode, int, int]] = [
        *[("offline", n, 1) for n in options.offline],
        *[("online", 1, n) for n in options.clients],
    ]
    with TritonClient.connect(options.client) as client:
        has_gpu = client.has_gpu(name)
    rows = []
    for done, (mode, batch_size, clients) in enumerate(levels, start=1):
        rows.append(_measure(name, mode, batch_size, clients, data, plan, options))
        if progress is not None:
            progress(done, len(levels), f"{mode}, batch {batch_size}, {clients} clients")
    shape = next(iter(data[0].values())).shape[1:]
    origin = "random numbers" if inputs is None else f"{len(data)} inputs from {Path(inputs).name}"
    return BenchmarkReport(
        model=name,
        protocol=options.client.protocol,
        shared_memory=options.shared_memory,
        data=origin,
        input_shape=shape,
        has_gpu=has_gpu,
        rows=tuple(rows),
    )


def _measure(
    name: str, mode: Mode, batch_size: int, clients: int, data: RequestData, plan: Plan, options: TritonBenchmarkOptions
) -> BenchmarkRow:
    """Measure one batch size and number of clients."""
    client_options = replace(options.client, at_once=clients)
    at_boundaries: list[ServerStatistics] = []
    with ExitStack() as stack:
        client = stack.enter_context(TritonClient.connect(client_options))
        requests = client_requests(
            client,
            name,
            data,
            batch_size=batch_size,
            n_clients=clients,
            memory=options.shared_memory,
            stack=stack,
        )
        loop = ClosedLoop([partial(_send_next, client, cycle(each)) for each in requests])
        measured = loop.measure(options.load, on_boundary=lambda: at_boundaries.append(client.statistics(name)))
    spent = at_boundaries[-1].since(at_boundaries[-1 - measured.windows])
    per_s = measured.requests_per_s * batch_size
    n = max(spent.inferences, 1)
    return BenchmarkRow(
        mode=mode,
        batch_size=batch_size,
        clients=clients,
        latency_ms=Latency.from_seconds(measured.seconds),
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


def _send_next(client: TritonClient, requests: Iterator[InferenceRequest]) -> None:
    client.infer(next(requests))


def _windows_per_volume(plan: Plan, kind: Kind) -> int:
    """Return the number of windows of an image of the plan's median shape; 1 for a pipeline, which receives images."""
    return 1 if kind == "pipeline" else len(window_grid(plan.median_shape, plan=plan).boxes)
