"""Batches that NVIDIA DALI augments, on a GPU or on the CPU.

What is cut and what happens to it is drawn as without DALI, and DALI applies it: a sample depends on seed, step
and index in the global batch alone. So a resumed run gives the same result, and ranks share a global batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from decathlete.augmentation.batch import RawBatch, SpatialParams
from decathlete.augmentation.config import CASCADE_TRANSFORMS, AugmentationConfig
from decathlete.core.extras import how_to_install
from decathlete.errors import OptionError
from decathlete.loading.dali_feed import Feed, make_feed
from decathlete.loading.patch_loader import PatchLoader

SUPPORTED = frozenset({"scaling", "mirroring", "noise", "blur", "brightness", "contrast"})
"""Transforms that DALI applies; the recipe has no others."""
QUEUE = 2
"""Batches that DALI is ahead of the training; the readers are ahead of DALI."""


def check_dali(augmentation: AugmentationConfig | None) -> None:
    """Check that DALI is installed and can do all of ``augmentation`` (``None``: the recipe's).

    The masks of a cascade are changed on the training device, whichever loader is used.

    Raises:
        OptionError: it is not.
    """
    enabled = [name for name in augmentation.names if augmentation[name].chance] if augmentation else []
    supported = SUPPORTED.union(CASCADE_TRANSFORMS)
    unsupported = [name.replace("_", " ") for name in enabled if name not in supported]
    if unsupported:
        raise OptionError(
            f"the loader dali has no {', no '.join(unsupported)}, which the augmentation uses",
            remedy="leave the augmentation unset (it is then the recipe's), switch these off in it, or use the loader "
            "threads",
        )
    try:
        import_module("nvidia.dali")
    except ImportError as problem:
        why = "is not installed" if isinstance(problem, ModuleNotFoundError) else f"does not load: {problem}"
        raise OptionError(
            f"the loader dali needs NVIDIA DALI, which {why}",
            remedy=f"{how_to_install('dali')} (Linux only), or use the loader threads",
        ) from problem


class DaliLoader:
    """The batches of a :class:`PatchLoader`, augmented as its augmenter draws; only masks are still to be rounded.

    They are :class:`RawBatch` as the reader's are, with nothing left to be done in space: what augments on the training
    device must change nothing.

    Args:
        reader: cuts the patches; not into page-locked memory.
        n_channels: of the images, with masks.
        device: where it is a CUDA device, DALI computes there and leaves the batches there; else on the CPU.
        n_threads: of DALI on the CPU.

    Raises:
        OptionError: see :func:`check_dali`; while iterating: DALI cannot use the device.
        StoreError: (while iterating) a case cannot be read; it is named.
    """

    def __init__(self, reader: PatchLoader, *, n_channels: int, device: torch.device, n_threads: int = 2) -> None:
        check_dali(reader.augmenter.config)
        self._reader = reader
        self._n_channels = n_channels
        self._device = device if device.type == "cuda" else None
        self._n_threads = n_threads

    def __len__(self) -> int:
        return len(self._reader)

    def __iter__(self) -> Iterator[RawBatch]:
        read = self._reader.ahead(self._read)
        fed: deque[RawBatch] = deque()
        try:
            pipeline = self._pipeline(_feeds(read, fed))
            while True:
                try:
                    images, labels = pipeline.run()
                except StopIteration:
                    return
                yield self._to_raw_batch(fed.popleft(), images, labels)
        finally:
            read.close()

    def _read(self, step: int) -> tuple[RawBatch, Feed]:
        raw = self._reader.read(step)
        return raw, make_feed(raw, self._reader.augmenter)

    def _pipeline(self, source: Iterator[Feed]) -> Any:
        from decathlete.loading.dali_graph import augmentation_graph

        augmenter = self._reader.augmenter
        try:
            pipeline = augmentation_graph(
                source,
                augmenter.patch_size,
                self._n_channels - augmenter.n_masks,
                augmenter.n_masks,
                self._device is not None,
                batch_size=self._reader.batch_size,
                num_threads=self._n_threads,
                device_id=None if self._device is None else self._device.index or 0,
                prefetch_queue_depth=QUEUE,
            )
            pipeline.build()
        except RuntimeError as problem:
            raise OptionError(
                f"DALI cannot work on {self._device or 'this CPU'}: {str(problem).strip().splitlines()[0]}",
                remedy="use the loader threads",
            ) from problem
        return pipeline

    def _to_raw_batch(self, raw: RawBatch, images: Any, labels: Any) -> RawBatch:
        image_BCZYX, label_BZYX = _tensor(images), _tensor(labels).squeeze(1)
        patch_size = self._reader.augmenter.patch_size
        as_it_is = SpatialParams(size=patch_size, flips=(False,) * len(patch_size))
        return RawBatch(
            step=raw.step,
            indices=raw.indices,
            draws=(as_it_is,) * len(raw),
            case_ids=raw.case_ids,
            plain_PCZYX=image_BCZYX,
            plain_label_PZYX=label_BZYX,
            warped_WCZYX=image_BCZYX[:0],
            warped_label_WZYX=label_BZYX[:0],
        )


def _tensor(output: Any) -> Tensor:
    """Wrap an output as a tensor; it shares DALI's memory, which DALI does not reuse while the tensor lives."""
    return torch.utils.dlpack.from_dlpack(output.as_tensor())


def _feeds(read: Iterable[tuple[RawBatch, Feed]], fed: deque[RawBatch]) -> Iterator[Feed]:
    """Yield the inputs of DALI and record in ``fed`` which batches are being processed."""
    for raw, feed in read:
        fed.append(raw)
        yield feed
