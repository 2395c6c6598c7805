"""Regions of the system's shared memory for the inputs and outputs of one client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from decathlete.core.extras import import_optional
from decathlete.serving.triton.client import Arrays, TritonClient


@contextmanager
def shared_regions(
    client: TritonClient, inputs: Arrays, output_bytes: Mapping[str, int]
) -> Iterator[dict[str, tuple[str, int]]]:
    """Put inputs into shared memory and make room for outputs; yield the regions by name.

    Args:
        output_bytes: sizes of the outputs that lie in shared memory.

    Raises:
        MissingPackageError: tritonclient is missing.
        TritonError: the server cannot open the memory, for example because it runs on another machine.
    """
    module: Any = import_optional("tritonclient.utils.shared_memory", title="Triton's client", extra="triton")
    sizes = {name: array.nbytes for name, array in inputs.items()} | dict(output_bytes)
    regions: dict[str, tuple[str, int]] = {}
    with ExitStack() as stack:
        for name, n_bytes in sizes.items():
            region = f"decathlete-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            handle = module.create_shared_memory_region(region, f"/{region}", n_bytes)
            stack.callback(module.destroy_shared_memory_region, handle)
            if name in inputs:
                module.set_shared_memory_region(handle, [inputs[name]])
            client.register(region, f"/{region}", n_bytes)
            stack.callback(client.unregister, region)
            regions[name] = region, n_bytes
        yield regions
