"""Rules that choose the DICOM series of each channel: by modality, description, orientation and number of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from decathlete.core.digits import parse_digits
from decathlete.errors import ImageError, OptionError
from decathlete.io.dicom_series import DicomSeries

_ORIENTATIONS = ("axial", "coronal", "sagittal", "oblique")
_KEYS = ("modality", "description", "orientation", "slices")
_HELP = "write e.g. --series modality:CT,slices:20 or, for one channel of several, --series PET=modality:PT"
_MODALITIES = {
    **dict.fromkeys(("ct",), "CT"),
    **dict.fromkeys(("pet", "pt"), "PT"),
    **dict.fromkeys(("mr", "mri", "t1", "t1w", "t1c", "t1ce", "t2", "t2w", "flair", "dwi", "adc"), "MR"),
}
"""First word of a channel's name -> modality of its series in DICOM."""


@dataclass(frozen=True, kw_only=True)
class SeriesRule:
    """Rules for the series of a channel; ``None``: anything.

    Attributes:
        description: pattern with ``*`` for the series' description, in any case.
        slices: least number of slices.
    """

    modality: str | None = None
    description: str | None = None
    orientation: str | None = None
    slices: int = 1

    def fits(self, series: DicomSeries) -> bool:
        """Return whether a series is one of this rule."""
        return (
            self.modality in (None, series.modality)
            and (self.description is None or fnmatchcase(series.description.lower(), self.description.lower()))
            and self.orientation in (None, series.orientation)
            and series.n_slices >= self.slices
        )


def default_rules(channels: Sequence[str]) -> tuple[SeriesRule, ...]:
    """Return a rule for each channel by its name: the modality; and the name itself where several share one."""
    modalities = [_modality(name) for name in channels]
    return tuple(
        SeriesRule(
            modality=modality, description=f"*{name}*" if modality is None or modalities.count(modality) > 1 else None
        )
        if len(channels) > 1
        else SeriesRule(modality=modality)
        for name, modality in zip(channels, modalities, strict=True)
    )


def parse_series_rules(texts: Sequence[str], channels: Sequence[str]) -> tuple[SeriesRule, ...]:
    """Parse ``modality:CT,slices:20`` or ``CHANNEL=...`` to a rule for each channel; others have their default.

    Raises:
        OptionError: a text has another form, or names an unknown channel.
    """
    rules = dict(zip(channels, default_rules(channels), strict=True))
    given: set[str] = set()
    for text in texts:
        name, equals, conditions = text.partition("=")
        channel, conditions = (name.strip(), conditions) if equals else (channels[0], text)
        if channel not in rules or channel in given or (not equals and len(channels) > 1):
            raise OptionError(
                f"--series {text!r} names no channel of the model, or one that has a rule already "
                f"(channels: {', '.join(channels)})",
                remedy=_HELP,
                code="E-OPTION-SYNTAX",
            )
        given.add(channel)
        rules[channel] = _parse(conditions, text)
    return tuple(rules.values())


def choose_channels(
    of_study: Sequence[DicomSeries], rules: Sequence[SeriesRule], channels: Sequence[str], *, where: Path | None = None
) -> tuple[DicomSeries, ...]:
    """Return the series of a study for each channel: of several that fit, the one with the most slices.

    No series is used twice: a channel that few series fit is chosen first, so that ``T1c`` is not also ``T1``.

    Raises:
        ImageError: no series fits a channel, several fit it equally, or the same ones fit two channels. The message
            does not contain descriptions.
    """
    fitting = {name: [s for s in of_study if rule.fits(s)] for name, rule in zip(channels, rules, strict=True)}
    chosen: dict[str, DicomSeries] = {}
    for name in sorted(channels, key=lambda name: len(fitting[name])):
        if fitting[name] and any(fitting[name] == fitting[other] for other in chosen):
            raise _channel_error("the same series of a study fit two channels, one of them", name, of_study, where)
        free = [s for s in fitting[name] if s not in chosen.values()]
        chosen[name] = _longest(free, name, of_study, where)
    return tuple(chosen[name] for name in channels)


def _longest(
    fitting: Sequence[DicomSeries], channel: str, of_study: Sequence[DicomSeries], where: Path | None
) -> DicomSeries:
    longest = sorted(fitting, key=lambda s: s.n_slices, reverse=True)
    if longest and (len(longest) == 1 or longest[0].n_slices > longest[1].n_slices):
        return longest[0]
    problem = "several series of a study fit the channel" if longest else "no series of a study fits the channel"
    raise _channel_error(problem, channel, of_study, where)


def _channel_error(problem: str, channel: str, of_study: Sequence[DicomSeries], where: Path | None) -> ImageError:
    listed = "; ".join(series.summary() for series in of_study)
    return ImageError(
        f"{problem} {channel} (the study has {listed})",
        where=where,
        remedy=f"choose it with --series, such as --series '{channel}=description:*{channel}*'",
        code="E-IMAGE-CHANNELS",
    )


def _parse(conditions: str, text: str) -> SeriesRule:
    parts = [tuple(part.strip() for part in entry.partition(":")) for entry in conditions.split(",")]
    values = {key: value for key, _, value in parts}
    orientation, n_slices = values.get("orientation"), parse_digits(values.get("slices", "1"))
    if (
        any(key not in _KEYS or not value for key, _, value in parts)
        or len(values) < len(parts)
        or orientation not in (None, *_ORIENTATIONS)
        or not n_slices
    ):
        raise OptionError(
            f"--series {text!r} is not a list of conditions ({', '.join(_KEYS)}; orientations: "
            f"{', '.join(_ORIENTATIONS)})",
            remedy=_HELP,
            code="E-OPTION-SYNTAX",
        )
    modality = values.get("modality")
    return SeriesRule(
        modality=modality.upper() if modality else None,
        description=values.get("description"),
        orientation=orientation,
        slices=n_slices,
    )


def _modality(channel: str) -> str | None:
    words = channel.lower().replace("-", " ").replace("_", " ").split()
    return _MODALITIES.get(words[0]) if words else None
