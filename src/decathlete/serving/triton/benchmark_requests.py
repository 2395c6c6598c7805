"""The requests that a benchmark sends: random numbers or real images, over the connection or in shared memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decathlete.core.rng import stream
from decathlete.export.images import find_image_cases
from decathlete.export.windows import case_windows
from decathlete.io.images import read_channels
from decathlete.io.reading import Reading
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.comparison import volume_inputs
from decathlete.serving.triton.protocol import Arrays, InferenceRequest, ModelMetadata
from decathlete.serving.triton.shared_memory import SharedMemory, shared_regions

Kind = Literal["network", "pipeline"]
RequestData = Sequence[Arrays]
"""Inputs of single windows or images, with a first axis of size 1."""


def random_data(plan: Plan, kind: Kind) -> RequestData:
    """Return one input of random numbers: a window, or an image of the plan's median shape."""
    shape = (len(plan.channels), *(plan.patch_size if kind == "network" else plan.median_shape))
    values = stream(0, "triton benchmark").normal(size=(1, *shape)).astype(np.float32)
    return [{"windows": values}] if kind == "network" else [{"volume": values, "affine": np.eye(4)[None]}]


def real_data(inputs: Path, plan: Plan, kind: Kind, reading: Reading = Reading()) -> RequestData:
    """Return the images in ``inputs``, or the window in the middle of each.

    Raises:
        ImageError: there are none, or they cannot be read.
        OptionError: a setting of ``reading`` has no effect.
    """
    n_channels = len(plan.channels)
    images = {
        case.id: read_channels(case.images, spacing=case.spacing, formats=case.formats, n_channels=n_channels)
        for case in find_image_cases(inputs, n_channels=n_channels, reading=reading)
    }
    if kind == "pipeline":
        return [volume_inputs(image) for image in images.values()]
    return [
        {"windows": window.numpy()}
        for case_id, image in images.items()
        for window in case_windows(prepare(image, plan, case_id=case_id).image_CZYX, plan, 1)
    ]


def client_requests(
    client: TritonClient,
    name: str,
    data: RequestData,
    *,
    batch_size: int,
    n_clients: int,
    memory: SharedMemory,
    stack: ExitStack,
) -> Iterator[Sequence[InferenceRequest]]:
    """Yield the requests of each client, which it sends in turn. Each begins with another input.

    Args:
        name: of the model on the server.
        stack: frees the shared memory, where each client has one request, for a region holds one input.

    Raises:
        TritonError: the server has no such model, or cannot open the shared memory.
    """
    metadata = client.metadata(name)
    outputs = ("label", "report") if metadata.is_pipeline else tuple(metadata.outputs)
    batches = [_batch(each, batch_size, metadata) for each in data]
    for number in range(n_clients):
        first = number % len(batches)
        order = [*batches[first:], *batches[:first]]
        sizes = _output_bytes(order[0], metadata)
        regions = stack.enter_context(shared_regions(client, order[0], sizes, memory=memory))
        if regions:
            order = order[:1]
        yield [InferenceRequest(model=name, inputs=each, outputs=outputs, regions=regions) for each in order]


def _batch(data: Arrays, batch_size: int, metadata: ModelMetadata) -> dict[str, NDArray[Any]]:
    """Return an input repeated to a batch, by the names of the model."""
    if metadata.is_pipeline:
        return dict(data)
    (input_name,) = metadata.inputs
    return {input_name: np.repeat(data["windows"], batch_size, axis=0)}


def _output_bytes(inputs: Arrays, metadata: ModelMetadata) -> Mapping[str, int]:
    """Return the size of the logits; sizes of a pipeline's outputs depend on the image, so they are sent."""
    if metadata.is_pipeline:
        return {}
    (windows,) = inputs.values()
    return {
        name: 4 * len(windows) * shape[1] * int(np.prod(windows.shape[2:])) for name, shape in metadata.outputs.items()
    }
