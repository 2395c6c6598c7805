"""Input loaders: how a training gets its batches. Each module is one loader, registered by its own name."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import Field

from decathlete.core.estimates import batch_bytes, batches_that_fit
from decathlete.core.machine import available_memory_bytes
from decathlete.core.registry import ComponentSettings, Registry
from decathlete.core.sizes import format_bytes
from decathlete.planning.network_spec import Dims

if TYPE_CHECKING:
    import torch

    from decathlete.augmentation.batch import RawBatch
    from decathlete.augmentation.config import AugmentationConfig
    from decathlete.augmentation.pipeline import Augmenter
    from decathlete.loading.samplers import Sampler
    from decathlete.preprocessing.store import PreparedStore


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoaderContext:
    """What batches are made of.

    Attributes:
        store: of the prepared cases.
        sampler: chooses the case and the place of each patch.
        augmenter: draws the augmentation of each sample, and says how large it is to be cut.
        n_channels: of an image, masks included.
        batch_size: samples per rank and step.
        steps: global steps.
        rank: of this process.
        device: of the training.
    """

    store: PreparedStore
    sampler: Sampler
    augmenter: Augmenter
    n_channels: int
    batch_size: int
    steps: range
    rank: int
    device: torch.device

    def n_ahead(self, prefetch: int) -> int:
        """Return how many batches are read ahead: at most ``prefetch``, and so many as fit into memory."""
        n_bytes = batch_bytes(
            batch_size=self.batch_size, patch_voxels=prod(self.augmenter.patch_size), n_channels=self.n_channels
        )
        available = available_memory_bytes()
        n_ahead = batches_that_fit(prefetch, n_bytes, available)
        if n_ahead < prefetch:
            log.info(
                "read %d instead of %d batches ahead: each needs about %s of memory, %s are free",
                n_ahead,
                prefetch,
                format_bytes(n_bytes),
                format_bytes(available),
            )
        return n_ahead


class ReaderSettings(ComponentSettings):
    """The settings of loaders that cut patches in threads."""

    free_on_resume: ClassVar[frozenset[str]] = frozenset({"readers", "prefetch"})

    readers: int = Field(default=2, ge=1)
    """Threads that read and cut patches, for each device."""
    prefetch: int = Field(default=4, ge=1)
    """Batches that are read ahead."""


class InputLoader(Protocol):
    """A loader is made with its settings."""

    def check(self, augmentation: AugmentationConfig | None) -> None:
        """Check that the loader can be used here, and with ``augmentation`` (``None``: its default).

        Raises:
            OptionError: it cannot.
        """
        ...

    def default_augmentation(self, dims: Dims) -> AugmentationConfig:
        """Return the augmentation that is used if the user chooses none."""
        ...

    def on_device(self, augmentation: AugmentationConfig) -> AugmentationConfig:
        """Return the part of ``augmentation`` that the training device does."""
        ...

    def batches(self, context: LoaderContext) -> Iterable[RawBatch]:
        """Yield the batches of this process, in order."""
        ...


LOADERS: Registry[InputLoader] = Registry("loader", package=__name__)
