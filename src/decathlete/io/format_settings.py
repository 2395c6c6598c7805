"""Settings of image formats: how the files of a format are read, and how those that a command writes are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from decathlete.core.registry import ComponentSettings
from decathlete.errors import OptionError
from decathlete.io.format_lookup import find_format, format_of_suffix, suffix_of
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat

ImageFormats = dict[str, dict[str, JsonValue]]
"""Settings of image formats in a file: the format's name -> its settings."""
FormatSettings = Sequence[ComponentSettings]
"""Settings of image formats, at most one for each format; a format without settings among them has its defaults."""


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


def changed_reading(settings: Iterable[ComponentSettings]) -> dict[str, dict[str, Any]]:
    """Return those settings that differ from the defaults and change how images are read, by the format's name."""
    changed = changed_settings(settings)
    reading = {name: {k: v for k, v in values.items() if changes_reading(name, k)} for name, values in changed.items()}
    return {name: values for name, values in reading.items() if values}


def changes_reading(name: str, setting: str) -> bool:
    """Return whether a setting of the format called ``name`` changes how its images are read.

    Raises:
        OptionError: an unknown format.
    """
    return setting in IMAGE_FORMATS.resolve(name).cls.reading_settings


def check_effect(settings: FormatSettings, *, read: Iterable[Path] = (), written: Iterable[Path] = ()) -> None:
    """Check that settings are those of files that are read or written.

    Args:
        read: images that are read.
        written: files that are written.

    Raises:
        OptionError: no file that is read or written has the format of a setting that changes reading; or none that is
            written has the format of another setting.
    """
    if not settings:
        return
    suffixes = {suffix for path in written if (suffix := suffix_of(path.name)) is not None}
    written_formats = {format_of_suffix(suffix).settings.component for suffix in suffixes}
    read_formats = {found.settings.component for path in read if (found := find_format(path)) is not None}
    for given in settings:
        name = given.component
        for setting in sorted(given.model_fields_set) or [""]:
            reads = changes_reading(name, setting)
            used = read_formats | written_formats if reads else written_formats
            if name not in used:
                raise _no_effect(name, setting, "read or written" if reads else "written", used)


def _no_effect(name: str, setting: str, done: str, used: Iterable[str]) -> OptionError:
    what = f"the setting {setting}" if setting else "the settings"
    verb = "has" if setting else "have"
    others = f" (but in {', '.join(sorted(used))})" if used else ""
    return OptionError(
        f"{what} of the image format {name} {verb} no effect: no file is {done} in it{others}",
        remedy=f"leave out image_format.{name}{'.' if setting else ''}{setting}, or choose the format of the files",
        code="E-OPTION-CONFLICT",
    )


def with_settings(found: ImageFormat, settings: Iterable[ComponentSettings]) -> ImageFormat:
    """Return a format with its settings among ``settings``, or else with its defaults."""
    chosen = [given for given in settings if given.component == found.settings.component]
    return IMAGE_FORMATS.build(chosen[-1]) if chosen else found
