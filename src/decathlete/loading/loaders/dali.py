"""NVIDIA DALI augments the patches that threads cut, as NVIDIA's nnU-Net for PyTorch does."""

from __future__ import annotations

from collections.abc import Iterable

from decathlete.augmentation.batch import RawBatch
from decathlete.augmentation.config import AugmentationConfig
from decathlete.loading.dali import DaliLoader, check_dali
from decathlete.loading.loaders import LOADERS, LoaderContext, ReaderSettings
from decathlete.loading.patch_loader import PatchLoader
from decathlete.planning.network_spec import Dims


@LOADERS.register("dali")
class DaliInputLoader:
    """Threads cut patches; NVIDIA DALI augments them, without rotation, gamma and low resolution."""

    class Settings(ReaderSettings):
        pass

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def check(self, augmentation: AugmentationConfig | None) -> None:
        """See :func:`~decathlete.loading.dali.check_dali`."""
        check_dali(augmentation)

    def default_augmentation(self, dims: Dims) -> AugmentationConfig:
        """Return the augmentation of NVIDIA's recipe."""
        return AugmentationConfig.recipe(dims)

    def on_device(self, augmentation: AugmentationConfig) -> AugmentationConfig:  # noqa: ARG002
        """Return an empty augmentation, because DALI has done it."""
        return AugmentationConfig.none()

    def batches(self, context: LoaderContext) -> Iterable[RawBatch]:
        """See :class:`~decathlete.loading.loaders.InputLoader`."""
        reader = PatchLoader(
            context.store,
            context.sampler,
            context.augmenter,
            batch_size=context.batch_size,
            steps=context.steps,
            rank=context.rank,
            n_readers=self.settings.readers,
            prefetch=context.n_ahead(self.settings.prefetch),
        )
        return DaliLoader(reader, n_channels=context.n_channels, device=context.device, n_threads=self.settings.readers)
