"""Reading the batches of a range of steps in threads, ahead of the training."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.augmentation.batch import RawBatch, SpatialParams, collate
from decathlete.augmentation.pipeline import Augmenter
from decathlete.core.memory import is_out_of_memory
from decathlete.errors import DecathleteError, InsufficientMemoryError, OptionError, StoreError
from decathlete.loading.cache import CaseCache
from decathlete.loading.patches import box_start, read_patch
from decathlete.loading.samplers import Sampler
from decathlete.preprocessing.store import PreparedStore
from decathlete.preprocessing.stored_arrays import AGAIN

DEFAULT_CACHE_BYTES = 512 * 2**20

Batch = TypeVar("Batch")


class PatchLoader:
    """The training batches of ``steps``, in order; usable wherever a ``DataLoader`` is.

    A sample depends on seed, step and index in the global batch alone. Rank r gets the samples ``r * batch_size`` to
    ``(r + 1) * batch_size - 1``: together the ranks see what one process with all their samples sees.

    Threads are enough: what takes time (decompressing, copying) is done without Python's lock. They end when iteration
    ends, is abandoned, or fails.

    Args:
        sampler: chooses the case and the place of each patch.
        augmenter: says how large each sample is to be cut.
        batch_size: samples per rank and step.
        steps: global steps; as long as one likes, batches are only made as they are asked for.
        n_readers: threads.
        prefetch: batches read ahead.
        cache_bytes: of whole cases held in memory.
        pin_for: the CUDA device the batches go to: they are made in page-locked memory.

    Raises:
        OptionError: numbers that do not fit.
        StoreError: (while iterating) a case cannot be read; it is named.
    """

    def __init__(
        self,
        store: PreparedStore,
        sampler: Sampler,
        augmenter: Augmenter,
        *,
        batch_size: int,
        steps: range,
        rank: int = 0,
        n_readers: int = 2,
        prefetch: int = 4,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        pin_for: torch.device | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("n_readers", n_readers), ("prefetch", prefetch)):
            if value < 1:
                raise OptionError(f"{name} must be at least 1, it is {value}")
        self._store = store
        self.augmenter = augmenter
        self.batch_size = batch_size
        self._steps = steps
        self._indices = range(rank * batch_size, (rank + 1) * batch_size)
        self._sampler = sampler
        self._n_readers, self._prefetch = n_readers, prefetch
        self._cache = CaseCache(cache_bytes)
        self._pin_for = pin_for

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[RawBatch]:
        return self.ahead(self.read)

    def ahead(self, read: Callable[[int], Batch]) -> Generator[Batch, None, None]:
        """Yield the results of ``read`` for each step, in order; it runs ahead, in the reader threads."""
        pool = ThreadPoolExecutor(self._n_readers, thread_name_prefix="decathlete-reader")
        steps = iter(self._steps)
        ahead: deque[Future[Batch]] = deque()
        try:
            ahead.extend(pool.submit(read, step) for step in islice(steps, self._prefetch))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(pool.submit(read, step) for step in islice(steps, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def read(self, step: int) -> RawBatch:
        """Read this rank's samples of one step."""
        draws, case_ids, images, labels = [], [], [], []
        for index in self._indices:
            case_id = self._sampler.case_id(step, index)
            draw = self.augmenter.draw(step, index)
            image, label = self._cut(case_id, draw, step, index)
            draws.append(draw)
            case_ids.append(case_id)
            images.append(image)
            labels.append(label)
        batch = collate(step, self._indices, draws, case_ids, images, labels)
        if self._pin_for is None:
            return batch
        with torch.cuda.device(self._pin_for):  # else each rank would also open the first GPU
            return batch.pin_memory()

    def _cut(
        self, case_id: str, draw: SpatialParams, step: int, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        try:
            case = self._cache.get(self._store.case(case_id))
            start = self._sampler.start(case.shape, case.foreground, step, index)
            image, label = read_patch(case, box_start(start, draw.size, self.augmenter.patch_size), draw.size)
            return self.augmenter.swap_sides(image, label, draw)
        except DecathleteError:
            raise
        except (OSError, ValueError, RuntimeError, MemoryError) as problem:
            if is_out_of_memory(problem):
                raise InsufficientMemoryError(
                    f"out of memory for reading case {case_id}",
                    remedy="close other programs, or use a computer with more memory",
                ) from problem
            raise StoreError(
                f"case {case_id} cannot be read ({type(problem).__name__}: {problem})",
                where=self._store.folder,
                remedy=AGAIN,
                code="E-STORE-DAMAGED",
            ) from problem
