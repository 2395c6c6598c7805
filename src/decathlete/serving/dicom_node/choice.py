"""Chooses the series that a model segments: each by itself, or one of a study for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from decathlete.errors import ImageError
from decathlete.io.dicom_series import DicomSeries, SeriesScan
from decathlete.io.folder_tree import count_unused
from decathlete.io.series_rules import SeriesRule, choose_channels, default_rules, parse_series_rules

Unit = Literal["series", "study"]
"""What a job segments: one series, or the series of one study that are the channels of the model."""


@dataclass(frozen=True, kw_only=True)
class SeriesChoice:
    """Rules for the series of each channel.

    Attributes:
        channels: names of the model's channels.
        rules: of each channel.
    """

    channels: tuple[str, ...] = ("image",)
    rules: tuple[SeriesRule, ...] = (SeriesRule(),)

    @classmethod
    def of_model(cls, channels: Sequence[str], rules: Sequence[str] = ()) -> SeriesChoice:
        """Return the choice by rules as those of ``decathlete predict --series``; others follow from the names.

        Raises:
            OptionError: a rule has another form, or names an unknown channel.
        """
        parsed = parse_series_rules(rules, channels) if rules else default_rules(channels)
        return cls(channels=tuple(channels), rules=parsed)

    @property
    def unit(self) -> Unit:
        """The unit that one job segments."""
        return "series" if len(self.channels) == 1 else "study"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of all channels; empty: a channel may have any."""
        found = [rule.modality for rule in self.rules]
        return () if None in found else tuple(dict.fromkeys(modality for modality in found if modality))

    def choose(self, scan: SeriesScan) -> tuple[tuple[DicomSeries, ...], ...]:
        """Return the images to segment, each with a series for each channel.

        Raises:
            ImageError: there is none, or a slice cannot be read (without it, a series would be another image). The
                message contains nothing of the patient.
        """
        if scan.damaged:
            slices = "1 slice" if len(scan.damaged) == 1 else f"{len(scan.damaged)} slices"
            raise ImageError(f"{slices} cannot be read", remedy="send the series again")
        if self.unit == "study" and scan.series:
            return (choose_channels(scan.series, self.rules, self.channels),)
        fitting = tuple((series,) for series in scan.series if self.rules[0].fits(series))
        if not fitting:
            reasons = [series.summary() for series in scan.series] or sorted(set(scan.skipped.values()))
            raise ImageError(
                f"not what the model segments: {'; '.join(reasons)}",
                remedy="change the rules of --series if it should be segmented",
                code="E-IMAGE-NOT-FOUND",
            )
        return fitting

    def left_out(self, scan: SeriesScan, images: Sequence[Sequence[DicomSeries]]) -> list[str]:
        """Return what is not segmented: series by their numbers, and numbers of files; nothing of the patient.

        Args:
            images: of :meth:`choose`.
        """
        reason = "not what the model segments" if self.unit == "series" else "no channel of the model"
        chosen = [series for image in images for series in image]
        series = [f"{series.summary()} ({reason})" for series in scan.series if series not in chosen]
        return series + count_unused(scan.skipped)
