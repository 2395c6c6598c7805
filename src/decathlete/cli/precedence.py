"""Precedence of options: the command line overrides the configuration file, which overrides the preset.

Every command loads this module, so that it imports what it needs only where there is a file or a preset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from decathlete.core.choices import PresetName

OVERRULES: dict[str, tuple[str, ...]] = {
    "max_time": ("epochs", "steps_per_epoch", "val_every"),
    "epochs": ("max_time",),
    "url": ("region",),
    "region": ("url",),
    "cluster": ("workers",),
}
"""Option -> options that contradict it or have no effect with it. If it is set on the command line, their values in the
file and the preset are ignored; if it is set in the file, their values in the preset are ignored."""
NAMES_FILES = ("input_", "calibration", "dataset")
"""Options that name files in commands which have an input. Without one, an export reads no files with the settings of a
configuration file, which it may share with commands that do."""
SET = "set_"
"""Parameter of ``--set``. A nested section of a file is converted to such assignments."""
FROM_FILE = "decathlete.from_file"
"""Key in the ``meta`` of a context: option name -> value in the file, ``None`` for ``null``."""


def apply_preset(context: typer.Context, name: PresetName | None) -> PresetName | None:
    """Make a preset's values the defaults of the command's options, unless a configuration file sets them."""
    if name is None:
        return None
    from decathlete.planning.presets import load_preset

    preset = load_preset(name)
    known = {parameter.name for parameter in context.command.params}
    set_defaults(context, lower={k: v for k, v in (preset.plan | preset.train).items() if k in known})
    return name


def set_defaults(context: typer.Context, *, lower: Mapping[str, Any]) -> None:
    """Set defaults to the values in the file, and to values of lower precedence that the file does not contradict."""
    file_values: dict[str, Any] = context.meta.get(FROM_FILE, {})
    ignored = {
        *file_values,
        *(loser for name, value in file_values.items() if value is not None for loser in OVERRULES.get(name, ())),
    }
    defaults = {parameter.name: parameter.default for parameter in context.command.params if not parameter.required}
    from_file = {name: defaults.get(name) if value is None else value for name, value in file_values.items()}
    context.default_map = {name: value for name, value in lower.items() if name not in ignored} | from_file


def apply_precedence(context: Any) -> None:
    """Reset options of file and preset that contradict an option on the command line to their own defaults.

    ``--set`` on the command line is added to the assignments of the file.
    """
    from_file = context.meta.get(FROM_FILE, {})
    if from_file.get(SET):
        flags = [name for name in context.params if _source(context, name) == "COMMANDLINE"]
        # Settings of a component do not apply to another component that the command line selects.
        paths = _paths_set_by(flags) if "optimizer" in context.params else set()
        assignments = [
            text
            for text in from_file[SET]
            if text.partition(".")[0] not in flags and text.partition("=")[0] not in paths
        ]
        context.params[SET] = [*assignments, *(context.params[SET] if SET in flags else ())]
    if from_file:
        _ignore_reading_without_files(context, from_file)
    defaults = {parameter.name: parameter.default for parameter in context.command.params}
    for winner, losers in OVERRULES.items():
        if _source(context, winner) == "COMMANDLINE":
            for loser in losers:
                if _source(context, loser) == "DEFAULT_MAP":
                    context.params[loser] = defaults[loser]
                    from_file.pop(loser, None)


def _ignore_reading_without_files(context: Any, from_file: dict[str, Any]) -> None:
    """Ignore what the file says of reading images in a command that may have an input, and has none."""
    params = context.params
    if not {"spacing", "input_"} <= params.keys() or any(params.get(name) is not None for name in NAMES_FILES):
        return
    if _source(context, "spacing") == "DEFAULT_MAP":
        params["spacing"] = None
        from_file.pop("spacing", None)
    of_file = [text for text in from_file.get(SET) or () if text.startswith("image_format.")]
    if of_file:
        params[SET] = [text for text in params[SET] if text not in of_file]


def _paths_set_by(flags: Sequence[str]) -> set[str]:
    """Return the dotted paths of training settings whose short forms are on the command line."""
    from decathlete.training.short_forms import SHORT_FORMS

    return {SHORT_FORMS[name] for name in flags if name in SHORT_FORMS}


def explicit_options(context: Any) -> dict[str, Any]:
    """Return the options that are set on the command line or in the file (``None`` for ``null``), not in a preset."""
    from_file = context.meta.get(FROM_FILE, {})
    flags = {name: value for name, value in context.params.items() if _source(context, name) == "COMMANDLINE"}
    file_options = {name: value if value is None else context.params[name] for name, value in from_file.items()}
    return file_options | flags


def _source(context: Any, name: str) -> str | None:
    source = context.get_parameter_source(name) if name in context.params else None
    return source.name if source else None
