"""Normalisations: how the intensities of one channel are scaled before the network reads them.

A normalisation is one module: a subclass of :class:`Normalization` with nested ``Settings``, registered in
:data:`NORMALIZATIONS`. The plan holds the settings of each channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from decathlete.core.component_field import ComponentField
from decathlete.core.registry import ComponentSettings, Registry
from decathlete.planning.fingerprint import Fingerprint, IntensityStatistics

SettingsT = TypeVar("SettingsT", bound=ComponentSettings)

CHANNEL_NORMALIZATIONS = {"ct": "ct", "nonorm": "none", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rescale"}
"""Channel name (in lower case, without blanks around it) -> normalisation.

All other channels get :data:`DEFAULT_NORMALIZATION`.
"""
DEFAULT_NORMALIZATION = "zscore"


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """What the fingerprint says about one channel.

    Attributes:
        intensity: of the foreground voxels of all training cases.
        crop_ratio: median share of an image that the non-zero crop keeps, 0 to 1.
    """

    intensity: IntensityStatistics
    crop_ratio: float

    @classmethod
    def of(cls, fingerprint: Fingerprint, channel: int) -> ChannelStatistics:
        """Return the statistics of a channel, counted from 0."""
        return cls(intensity=fingerprint.intensity[channel], crop_ratio=median_crop_ratio(fingerprint))


def median_crop_ratio(fingerprint: Fingerprint) -> float:
    """Return the median share of an image that the non-zero crop keeps, 0 to 1."""
    return float(np.median([case.crop_ratio for case in fingerprint.cases]))


class Normalization(ABC, Generic[SettingsT]):
    """Maps the intensities of one channel to network input."""

    Settings: ClassVar[type[ComponentSettings]]

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    @classmethod
    @abstractmethod
    def fit(cls, channel: ChannelStatistics) -> SettingsT:
        """Return the settings for a channel of a dataset."""

    @abstractmethod
    def apply(self, channel_ZYX: NDArray[np.float32], mask_ZYX: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Return the normalised channel.

        Args:
            mask_ZYX: voxels of the object, see :func:`decathlete.preprocessing.normalize.object_mask`; ``None`` unless
                ``needs_mask``.
        """

    @property
    def needs_mask(self) -> bool:
        """Whether :meth:`apply` uses the mask of the object."""
        return False

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """Lowest and highest intensity that remain distinct, if the normalisation clips."""
        return None

    def describe(self) -> str:
        """Return the normalisation in a few words, for the printed plan."""
        settings = self.settings.model_dump(mode="json")
        listed = ", ".join(f"{name} {value}" for name, value in settings.items())
        return f"{self.settings.component} ({listed})" if listed else self.settings.component

    def reason(self, channel: ChannelStatistics) -> str:  # noqa: ARG002
        """Return why a channel is normalised like this, in words; empty if the channel's name is the only reason."""
        return ""


NORMALIZATIONS: Registry[Normalization[Any]] = Registry(
    "normalization", package="decathlete.preprocessing.normalizations", home=__name__
)

AnyNormalization = Annotated[ComponentSettings, ComponentField(NORMALIZATIONS)]
"""Type of a schema's field that holds the settings of any normalisation."""


def normalization_for_channel(name: str, channel: ChannelStatistics) -> ComponentSettings:
    """Return the fitted settings of the normalisation that belongs to a channel's name."""
    chosen = CHANNEL_NORMALIZATIONS.get(name.strip().casefold(), DEFAULT_NORMALIZATION)
    return NORMALIZATIONS.resolve(chosen).cls.fit(channel)  # type: ignore[no-any-return]
