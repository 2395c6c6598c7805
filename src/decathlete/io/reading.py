"""How images are read: as the user says, or as a record says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from decathlete.core.geometry import Triple
from decathlete.core.registry import ComponentSettings
from decathlete.errors import OptionError
from decathlete.io.format_settings import FormatSettings, changes_reading, check_effect, format_settings


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images are read.

    Attributes:
        spacing: z, y, x in mm, for axes whose spacing a file does not contain.
        formats: settings of image formats.
        must_apply: whether each of these settings must change how a file is read, since the user chose them.
    """

    spacing: Triple | None = None
    formats: FormatSettings = ()
    must_apply: bool = False

    def revised(self, spacing: Triple | None, image_formats: Mapping[str, Mapping[str, Any]] | None) -> Self:
        """Return a copy with what the user chose.

        Args:
            spacing: ``None``: as before.
            image_formats: settings by the name of the format; those that are not named stay as before.

        Raises:
            OptionError: settings that a format does not have or allow.
        """
        chosen = format_settings(image_formats or {})
        recorded = {given.component: given for given in self.formats}
        merged = recorded | {given.component: _merge(recorded.get(given.component), given) for given in chosen}
        return type(self)(
            spacing=self.spacing if spacing is None else spacing,
            formats=tuple(merged.values()),
            must_apply=bool(chosen) or self.must_apply,
        )

    def require_reading_settings(self) -> None:
        """Check that every setting changes how files are read, before any file is known.

        Raises:
            OptionError: a setting changes only how files are written.
        """
        for given in self.formats:
            for setting in sorted(given.model_fields_set):
                if not changes_reading(given.component, setting):
                    raise OptionError(
                        f"image_format.{given.component}.{setting} only changes how files are written: no effect here",
                        remedy="leave it out",
                        code="E-OPTION-CONFLICT",
                    )

    def check(self, files: Iterable[Path]) -> None:
        """Check that the settings that the user chose change how some of ``files`` are read.

        Raises:
            OptionError: one of them does not.
        """
        if self.must_apply:
            check_effect(self.formats, read=files)

    def check_unused(self, where: Path) -> None:
        """Check that nothing was chosen, since ``where`` contains prepared cases, which are read in one way alone.

        Raises:
            OptionError: a spacing or a setting was chosen.
        """
        if self.spacing is not None or self.must_apply:
            raise OptionError(
                "--spacing and settings of image formats have no effect on prepared cases",
                where=where,
                remedy="leave them out, or name the images themselves",
                code="E-OPTION-CONFLICT",
            )


def _merge(recorded: ComponentSettings | None, chosen: ComponentSettings) -> ComponentSettings:
    if recorded is None:
        return chosen
    values = recorded.model_dump(exclude_unset=True) | chosen.model_dump(exclude_unset=True)
    return type(chosen).model_validate(values)


def require_named_files(
    spacing: Triple | None, image_formats: Mapping[str, Mapping[str, Any]] | None, *, are_named: bool, options: str
) -> None:
    """Check that options about the reading of files come with an option that names files.

    Args:
        are_named: whether such an option is used.
        options: the options that name files, for the message.

    Raises:
        OptionError: nothing is read with these settings.
    """
    given = ["--spacing"] if spacing is not None else []
    given += [f"image_format.{name}" for name in image_formats or ()]
    if given and not are_named:
        raise OptionError(
            f"{' and '.join(given)} without {options} has no effect: it is for the files that {options} names",
            remedy=f"leave it out, or name files with {options}; cases of a run are read as in its training",
            code="E-OPTION-CONFLICT",
        )
