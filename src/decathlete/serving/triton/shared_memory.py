"""Regions of shared memory, of the system or of a GPU, for the inputs and outputs of one client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from decathlete.core.extras import import_optional
from decathlete.errors import OptionError
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.protocol import Arrays, CudaRegion, SharedRegion, SystemRegion

SharedMemory = Literal["none", "system", "cuda"]
"""Where tensors lie: sent over the connection, in the system's shared memory, or in the memory of a GPU."""
_USE_SYSTEM = "use --shared-memory system"


def check_shared_memory(memory: SharedMemory) -> None:
    """Import what a kind of shared memory needs.

    Raises:
        OptionError: there is no GPU for ``cuda``.
        MissingPackageError: a package is missing.
    """
    if memory == "system":
        _system_module()
    elif memory == "cuda":
        _cuda_module()


@contextmanager
def shared_regions(
    client: TritonClient, inputs: Arrays, output_bytes: Mapping[str, int], *, memory: SharedMemory = "system"
) -> Iterator[dict[str, SharedRegion]]:
    """Put inputs into shared memory and make room for outputs; yield the regions by name.

    Args:
        output_bytes: sizes of the outputs that lie in shared memory.
        memory: ``none``: there are no regions.

    Raises:
        OptionError: there is no GPU for ``cuda``.
        MissingPackageError: a package is missing.
        TritonError: the server cannot open the memory, for example because it runs on another machine.
    """
    if memory == "none":
        yield {}
        return
    make = _system_region if memory == "system" else _cuda_region
    sizes = {name: array.nbytes for name, array in inputs.items()} | dict(output_bytes)
    regions: dict[str, SharedRegion] = {}
    with ExitStack() as stack:
        for name, n_bytes in sizes.items():
            region = make(n_bytes, inputs.get(name), stack)
            client.register(region)
            stack.callback(client.unregister, region)
            regions[name] = region
        yield regions


def _region_name() -> str:
    return f"decathlete-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _system_region(n_bytes: int, content: NDArray[Any] | None, stack: ExitStack) -> SharedRegion:
    """Return a region of the system's shared memory, which ``stack`` frees."""
    module, name = _system_module(), _region_name()
    handle = module.create_shared_memory_region(name, f"/{name}", n_bytes)
    stack.callback(module.destroy_shared_memory_region, handle)
    if content is not None:
        module.set_shared_memory_region(handle, [content])
    return SystemRegion(name=name, n_bytes=n_bytes, key=f"/{name}")


def _cuda_region(n_bytes: int, content: NDArray[Any] | None, stack: ExitStack) -> SharedRegion:
    """Return a region in the memory of the first GPU, which ``stack`` frees."""
    module, name, device_id = _cuda_module(), _region_name(), 0
    handle = module.create_shared_memory_region(name, n_bytes, device_id)
    stack.callback(module.destroy_shared_memory_region, handle)
    if content is not None:
        module.set_shared_memory_region(handle, [content])
    return CudaRegion(name=name, n_bytes=n_bytes, raw_handle=module.get_raw_handle(handle), device_id=device_id)


def _system_module() -> Any:
    return import_optional("tritonclient.utils.shared_memory", title="Triton's client", extra="triton")


def _cuda_module() -> Any:
    if not torch.cuda.is_available():
        raise OptionError(
            "--shared-memory cuda needs a CUDA GPU (and a torch that uses it), and there is none here",
            remedy=_USE_SYSTEM,
        )
    # Triton's client raises RuntimeError without it.
    import_optional("cuda.bindings.runtime", title="cuda-python", package="cuda-python", alternative=_USE_SYSTEM)
    return import_optional("tritonclient.utils.cuda_shared_memory", title="Triton's client", extra="triton")
