"""Input loaders, which provide the batches of a training. Each module is one loader, registered by its own name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import Field

from decathlete.core.registry import ComponentSettings, Registry
from decathlete.planning.network_spec import Dims

if TYPE_CHECKING:
    import torch

    from decathlete.augmentation.batch import RawBatch
    from decathlete.augmentation.config import AugmentationConfig
    from decathlete.augmentation.pipeline import Augmenter
    from decathlete.loading.samplers import Sampler
    from decathlete.preprocessing.store import PreparedStore


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
        """The augmentation where the user chooses none."""
        ...

    def on_device(self, augmentation: AugmentationConfig) -> AugmentationConfig:
        """What is left of ``augmentation`` to be done on the training device."""
        ...

    def batches(self, context: LoaderContext) -> Iterable[RawBatch]:
        """This process's batches, in order."""
        ...


LOADERS: Registry[InputLoader] = Registry("loader", package=__name__)
