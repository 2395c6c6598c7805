"""``--config FILE``: its values become the defaults of a command's options.

Every command loads this module, so that it imports what it needs to read a file only when there is one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from decathlete.cli.precedence import FROM_FILE, SET, set_defaults
from decathlete.cli.renamed_options import successor
from decathlete.errors import OptionError, problems_found

UNCONFIGURABLE = frozenset({"config", "help"})
log = logging.getLogger("decathlete.config")


def load_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Read a configuration file and make its values the defaults of the command's options.

    ``null`` selects the option's own default, also with a preset.

    Raises:
        OptionError: keys are unknown or values have the wrong type; the message lists all of them.
    """
    if path is None:
        return None
    content = _FileContent(context)
    for key, value in _read(path).items():
        content.add(str(key), value)
    if content.assignments:
        content.values[SET] = [*content.assignments, *(content.values.get(SET) or ())]
    if content.problems:
        raise problems_found(
            content.problems, where=path, remedy="fix these lines; `--help` lists the options", kind=OptionError
        )
    if content.foreign:
        log.info("%s: options of other commands, ignored here: %s", path, ", ".join(content.foreign))
    context.meta[FROM_FILE] = content.values
    set_defaults(context, lower=context.default_map or {})
    return path


class _FileContent:
    """The content of a configuration file, sorted by what it sets in one command.

    Attributes:
        values: name of an option -> its value.
        assignments: values of ``--set``, from nested sections.
        foreign: options of other commands.
        problems: unknown keys and wrong values, in words.
    """

    def __init__(self, context: typer.Context) -> None:
        self.context = context
        self.options = option_spellings(context.command)
        self.all_names = frozenset(_spellings_below(context.find_root().command))
        self.values: dict[str, Any] = {}
        self.assignments: list[str] = []
        self.foreign: list[str] = []
        self.problems: list[str] = []

    def add(self, key: str, value: Any) -> None:
        """Add one entry of the file."""
        name = key.replace("_", "-")
        if _is_section(value):
            self._add_section(name, value)
        elif name not in self.options:
            self._add_unknown(key, name)
        elif name == "set" and not _sets_plan_or_training(self.options):
            self._add_assignments(key, name, value)
        elif self.options[name].name in self.values:
            self.problems.append(f"{key}: is set twice")
        else:
            self._add_option(key, name, value)

    def _add_section(self, name: str, value: Any) -> None:
        if not _accepts_section(name, self.options):
            self.foreign.append(name)
            return
        if isinstance(value, dict) and name in self.options and isinstance(value.get("name"), str):
            self.values[self.options[name].name] = value["name"]
            value = {k: item for k, item in value.items() if k != "name"}
        given = list(_assignments(name.replace("-", "_"), value))
        self.assignments += [text for text in given if _accepts_assignment(text, self.options)]
        self.foreign += [text for text in given if not _accepts_assignment(text, self.options)]

    def _add_assignments(self, key: str, name: str, value: Any) -> None:
        """Add those values of ``set`` that this command has; the others belong to commands that train."""
        given = [str(item) for item in (value if isinstance(value, list | tuple) else [value])]
        own = [text for text in given if _accepts_assignment(text, self.options)]
        self.foreign += [f"set {text}" for text in given if text not in own]
        if own:
            self._add_option(key, name, own)

    def _add_unknown(self, key: str, name: str) -> None:
        if new := successor(name, self.options):
            self.problems.append(f"{key}: the option was renamed, use {new}")
        elif name in self.all_names:
            self.foreign.append(name)
        else:
            self.problems.append(_unknown(key, {*self.options, *self.all_names}))

    def _add_option(self, key: str, name: str, value: Any) -> None:
        option = self.options[name]
        try:
            self.values[option.name] = None if value is None else _to_command_line(option, name, value, self.context)
        except ValueError as problem:
            self.problems.append(f"{key}: {problem}")


def _is_section(value: Any) -> bool:
    """Return whether a value in the file is nested: settings of a component or group, or a list of components."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _sets_plan_or_training(options: Mapping[str, Any]) -> bool:
    """Return whether ``--set`` of a command sets a plan, a training or a plug-in's exporter.

    Other commands have only settings of prediction and files.
    """
    is_exporter = _form_of_set(options) == "NAME"
    if is_exporter or "optimizer" in options or "architecture" in options:
        return True
    return not any(name in options for name in ("engine", "metrics", "save-probabilities", "spacing", "suffix"))


def _form_of_set(options: Mapping[str, Any]) -> str:
    """Return what is assigned to by ``--set``, as the help says: ``engine.SETTING`` if it sets the engine alone."""
    return str(options["set"].metavar).partition("=")[0] if "set" in options else ""


def _accepts_section(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a command uses a nested section: of the engine, formats, the training, metrics, or the plan."""
    section = name.replace("-", "_")
    if "set" not in options:
        return False
    if (only := _form_of_set(options).partition(".")[0]) in ("engine", "image_format"):
        return section == only
    if section == "engine":
        return "engine" in options
    if section == "image_format":
        return "spacing" in options  # a command that reads images
    if "optimizer" in options:
        return True
    if "metrics" in options:
        from decathlete.evaluation.metrics import METRICS

        return section in METRICS.names()
    if not _sets_plan_or_training(options):
        return False
    from decathlete.planning.plan import Plan

    return section in Plan.model_fields


def _accepts_assignment(text: str, options: Mapping[str, Any]) -> bool:
    """Return whether a command uses an assignment: one that writes no images only those that change reading."""
    path = text.partition("=")[0].strip().replace("-", "_").split(".")
    if not _accepts_section(path[0], options):
        return False
    writes_images = "save-probabilities" in options or "suffix" in options  # predictions, or a dataset
    if path[0] != "image_format" or len(path) != 3 or writes_images:
        return True
    from decathlete.io.format_settings import changes_reading

    try:
        return changes_reading(path[1], path[2])
    except OptionError:
        return True  # an unknown format, which the command reports


def _assignments(path: str, value: Any) -> Iterator[str]:
    """Convert a nested section to values of ``--set``: ``{gamma: {probability: 0.1}}`` to ``gamma.probability=0.1``."""
    if not isinstance(value, dict):
        yield f"{path}={json.dumps(value)}"
        return
    for key, item in value.items():
        yield from _assignments(path if key == "name" else f"{path}.{key}", item)


def _read(path: Path) -> dict[Any, Any]:
    content = _parse(path)
    if content is None:  # the file is empty or contains only comments
        return {}
    if not isinstance(content, dict):
        raise OptionError("contains no options", where=path, remedy="write one `option: value` per line")
    return content


def _parse(path: Path) -> Any:
    from decathlete.core.documents import read_json, read_yaml

    if path.suffix.lower() == ".json":
        return read_json(path, error=OptionError)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise OptionError("is neither YAML nor JSON", where=path, remedy="name it .yaml, .yml or .json")
    return read_yaml(path, error=OptionError)


def option_spellings(command: Any) -> dict[str, Any]:
    """Return the options by spelling, without leading hyphens; both ``adapt`` and ``no-adapt`` have an entry."""
    spellings = {
        spelling.removeprefix("--"): option
        for option in command.params
        if option.param_type_name == "option"
        for spelling in (*option.opts, *option.secondary_opts)
        if spelling.startswith("--")
    }
    return {name: option for name, option in spellings.items() if name not in UNCONFIGURABLE}


def _spellings_below(command: Any) -> Iterator[str]:
    for subcommand in getattr(command, "commands", {}).values():
        yield from option_spellings(subcommand)
        yield from _spellings_below(subcommand)


def _unknown(key: str, names: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key.replace("_", "-"), sorted(names), n=1)
    return f"{key}: there is no such option" + (f"; did you mean {close[0]}?" if close else "")


def _to_command_line(option: Any, name: str, value: Any, context: typer.Context) -> Any:
    """Convert a value of the file, with the key ``name``, to the form that the command line has.

    Raises:
        ValueError: the value does not have the option's type.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value != (f"--{name}" in option.secondary_opts)
    if option.multiple:
        words: Any = list(_words(value if isinstance(value, list) else [value]))
    elif isinstance(value, list) and "," in (option.metavar or ""):
        words = ",".join(_words(value))
    else:
        (words,) = _words([value])
    try:
        option.process_value(context, words)
    except typer.BadParameter as problem:
        raise ValueError(f"{value!r}: {' '.join(problem.message.split())}") from None
    return words


def _words(values: list[Any]) -> Iterator[str]:
    """Convert values to words of the command line. A number may be a string: YAML reads ``1e-3`` as one."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is neither a number nor a word")
        whole = isinstance(value, float) and value.is_integer()
        yield str(int(value) if whole else value)
