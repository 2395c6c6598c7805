"""Threads that cut patches; augmentation is done on the training device."""

from __future__ import annotations

from collections.abc import Iterable

from decathlete.augmentation.batch import RawBatch
from decathlete.augmentation.config import AugmentationConfig
from decathlete.loading.loaders import LOADERS, LoaderContext, ReaderSettings
from decathlete.loading.patch_loader import PatchLoader
from decathlete.planning.network_spec import Dims


@LOADERS.register("threads")
class ThreadLoader:
    """Threads read and cut patches; the training device augments them."""

    class Settings(ReaderSettings):
        pass

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def check(self, augmentation: AugmentationConfig | None) -> None:
        """Accept every augmentation; no other package is needed."""

    def default_augmentation(self, dims: Dims) -> AugmentationConfig:
        """Return the augmentation of nnU-Net."""
        return AugmentationConfig.default(dims)

    def on_device(self, augmentation: AugmentationConfig) -> AugmentationConfig:
        """Return the whole augmentation."""
        return augmentation

    def batches(self, context: LoaderContext) -> Iterable[RawBatch]:
        """See :class:`~decathlete.loading.loaders.InputLoader`."""
        return PatchLoader(
            context.store,
            context.sampler,
            context.augmenter,
            batch_size=context.batch_size,
            steps=context.steps,
            rank=context.rank,
            n_readers=self.settings.readers,
            prefetch=context.n_ahead(self.settings.prefetch),
            pin_for=context.device if context.device.type == "cuda" else None,
        )
