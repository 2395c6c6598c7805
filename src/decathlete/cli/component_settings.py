"""``--set`` of commands that read images, predict or convert: settings of the engine and of image formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlete.core.assignments import parse_assignments, split_assignments_of
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.inference.options import EngineChoice

ENGINE, IMAGE_FORMAT = "engine", "image_format"


def _set_option(metavar: str, text: str) -> Any:
    """Declare ``--set`` of a command, whose help is ``text``."""
    return typer.Option("--set", metavar=metavar, show_default=False, help=text)


EngineSettings = Annotated[
    list[str] | None,
    _set_option(
        "engine.SETTING=VALUE",
        "Setting of the inference engine, e.g. engine.threads=2 (`decathlete components engine` lists them). Can "
        "be repeated.",
    ),
]
EngineAndMetricSettings = Annotated[
    list[str] | None,
    _set_option(
        "NAME.SETTING=VALUE",
        "Setting of a metric, e.g. nsd.tolerance_mm=2, or of the inference engine, e.g. engine.threads=2. Can be "
        "repeated.",
    ),
]
EngineAndReadingSettings = Annotated[
    list[str] | None,
    _set_option(
        "NAME.SETTING=VALUE",
        "Setting of the inference engine, e.g. engine.threads=2, or of an image format that changes how "
        "images are read, image_format.NAME.SETTING=VALUE. Can be repeated.",
    ),
]
EngineAndFormatSettings = Annotated[
    list[str] | None,
    _set_option(
        "NAME.SETTING=VALUE",
        "Setting of the inference engine, e.g. engine.threads=2, or of the image format of images or label maps, "
        "e.g. image_format.nifti.compression_level=9. Can be repeated.",
    ),
]
FormatSettings = Annotated[
    list[str] | None,
    _set_option(
        "image_format.NAME.SETTING=VALUE",
        "Setting of the image format of the source or of the new files, e.g. "
        "image_format.nifti.compression_level=9. Can be repeated.",
    ),
]
ReadingSettings = Annotated[
    list[str] | None,
    _set_option(
        "image_format.NAME.SETTING=VALUE",
        "Setting of a plug-in's image format that changes how its files are read (`decathlete components "
        "image-format` lists settings). Can be repeated.",
    ),
]
MetricAndFormatSettings = Annotated[
    list[str] | None,
    _set_option(
        "NAME.SETTING=VALUE",
        "Setting of a metric, e.g. nsd.tolerance_mm=2, or of an image format that changes how its files are read, "
        "image_format.NAME.SETTING=VALUE. Can be repeated.",
    ),
]


def choose_engine(name: str, assignments: Sequence[str]) -> EngineChoice:
    """Return the engine called ``name`` with the settings of ``engine.SETTING=VALUE``.

    Raises:
        OptionError: an assignment that is malformed, or none to a setting of the engine.
    """
    settings = parse_engine_settings(assignments)
    return {"name": name, **settings} if settings else name


def parse_engine_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``engine.SETTING=VALUE`` by the setting's name.

    Raises:
        OptionError: an assignment that is malformed, or none to a setting of the engine.
    """
    settings = _settings_of(ENGINE, assignments, example="engine.threads=2")
    if "name" in settings:
        raise OptionError("the name of the engine is not a setting", remedy="use --engine NAME", code="E-OPTION-SYNTAX")
    return settings


def engine_assignments(assignments: Sequence[str] | None, *, forms: str = "engine.SETTING=VALUE") -> list[str]:
    """Return the assignments of a command that has settings of the engine alone.

    Args:
        forms: of all assignments that the command has, for the message.

    Raises:
        OptionError: an assignment to something else.
    """
    own, others = split_assignments_of([ENGINE], assignments or ())
    reject_others(others, forms)
    return own


def image_format_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the settings of ``image_format.NAME.SETTING=VALUE`` by the format's name.

    Raises:
        OptionError: an assignment is malformed.
    """
    return _settings_of(IMAGE_FORMAT, assignments, example="image_format.nifti.compression_level=9")


def split_image_formats(assignments: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of image formats by the format's name, and the assignments to other settings.

    Raises:
        OptionError: an assignment to a setting of an image format is malformed.
    """
    own, others = split_assignments_of([IMAGE_FORMAT], assignments or ())
    return image_format_settings(own), others


def only_image_formats(assignments: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings of image formats, for a command that has no other settings.

    Raises:
        OptionError: an assignment to something else, or one that is malformed.
    """
    settings, others = split_image_formats(assignments)
    reject_others(others, "image_format.NAME.SETTING=VALUE")
    return settings


def reject_others(assignments: Sequence[str], forms: str) -> None:
    """Reject assignments that a command does not have.

    Args:
        forms: assignments that it has, e.g. ``engine.SETTING=VALUE``.

    Raises:
        OptionError: there are such assignments.
    """
    if assignments:
        raise OptionError(f"--set {assignments[0]}: this command has no such setting", remedy=f"write --set {forms}")


def _settings_of(group: str, assignments: Sequence[str], *, example: str) -> dict[str, Any]:
    settings = parse_assignments(assignments, example=example).get(group, {})
    if not isinstance(settings, dict):
        raise OptionError(
            f"--set {group}={settings} is not the value of a setting",
            remedy=f"write e.g. --set {example}",
            code="E-OPTION-SYNTAX",
        )
    return settings
