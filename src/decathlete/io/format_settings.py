"""Settings of image formats: how the files that a command writes are written. They change no voxel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decathlete.core.registry import ComponentSettings
from decathlete.errors import OptionError
from decathlete.io.format_lookup import format_of_suffix, suffix_of
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat


def format_settings(given: Mapping[str, Any]) -> tuple[ComponentSettings, ...]:
    """Return the validated settings of formats.

    Args:
        given: the settings of a format by its registered name, e.g. ``{"nifti": {"compression_level": 9}}``.

    Raises:
        OptionError: an unknown format, or settings that it does not have or allow.
    """
    for name, settings in given.items():
        if not isinstance(settings, Mapping):
            raise OptionError(
                f"the settings of the image format {name} are not {settings!r}",
                remedy="write --set image_format.NAME.SETTING=VALUE",
                code="E-OPTION-SYNTAX",
            )
    return tuple(IMAGE_FORMATS.settings({**settings, "name": name}) for name, settings in given.items())


def changed_settings(settings: Iterable[ComponentSettings]) -> dict[str, dict[str, Any]]:
    """Return the settings that differ from the defaults, by the format's name, for a record."""
    dumped = {given.component: given.model_dump(mode="json", exclude_defaults=True) for given in settings}
    return {name: values for name, values in dumped.items() if values}


def check_effect(settings: Sequence[ComponentSettings], files: Iterable[Path]) -> None:
    """Check that settings are those of files that are written.

    Args:
        files: that are written.

    Raises:
        OptionError: none of them has the format of some settings.
    """
    if not settings:
        return
    suffixes = {suffix for path in files if (suffix := suffix_of(path.name)) is not None}
    written = {format_of_suffix(suffix).settings.component for suffix in suffixes}
    for given in settings:
        if given.component not in written:
            raise OptionError(
                f"the settings of the image format {given.component} have no effect: no file is written in it"
                + (f" (but in {', '.join(sorted(written))})" if written else ""),
                remedy=f"leave out image_format.{given.component}, or choose the format of the files",
                code="E-OPTION-CONFLICT",
            )


def writer_of_suffix(suffix: str, settings: Iterable[ComponentSettings] = ()) -> ImageFormat:
    """Return the format that has ``suffix``, with its settings among ``settings``, or else with its defaults."""
    found = format_of_suffix(suffix)
    chosen = [given for given in settings if given.component == found.settings.component]
    return IMAGE_FORMATS.build(chosen[-1]) if chosen else found
