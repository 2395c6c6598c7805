"""``--config FILE`` and ``--preset``: defaults other than ours. Flags win over the file, the file over the preset.

Every command loads this module, most without a file: what reading one needs is loaded then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from decathlete.core.choices import PresetName
from decathlete.errors import OptionError, problems_found

ALTERNATIVES = (("epochs", "max_time"),)
"""Options of which one is given: on the command line it also wins over the other one in the file."""
UNCONFIGURABLE = frozenset({"config", "help"})

log = logging.getLogger("decathlete.config")


def take_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command's options.

    Raises:
        OptionError: with every unknown key and every value of a wrong type together.
    """
    if path is None:
        return None
    options, others = _options(context.command), _options_of_all(context)
    values: dict[str, Any] = {}
    problems: list[str] = []
    foreign: list[str] = []
    for key, value in _read(path).items():
        name = str(key).replace("_", "-")
        if name not in options:
            foreign.append(name) if name in others else problems.append(_unknown(str(key), {*options, *others}))
        elif options[name].name in values:
            problems.append(f"{key}: given twice")
        elif value is not None:
            try:
                values[options[name].name] = _taken(options[name], value, context)
            except ValueError as problem:
                problems.append(f"{key}: {problem}")
    if problems:
        raise problems_found(
            problems, where=path, remedy="mend these lines; `--help` lists the options", kind=OptionError
        )
    if foreign:
        log.info("%s: not options of this command, left to others: %s", path, ", ".join(foreign))
    context.default_map = _over(context.default_map or {}, values)
    return path


def take_preset(context: typer.Context, name: PresetName | None) -> PresetName | None:
    """Make a preset's values the defaults of the command's options, unless a file says otherwise."""
    if name is None:
        return None
    from decathlete.planning.presets import load_preset

    preset = load_preset(name)
    values = {k: v for k, v in (preset.plan | preset.train).items() if k in {p.name for p in context.command.params}}
    context.default_map = _over(values, context.default_map or {})
    return name


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above``, and of ``below`` what it says nothing about, nor about an alternative."""
    others = {name: other for pair in ALTERNATIVES for name, other in (pair, pair[::-1])}
    return {name: value for name, value in below.items() if others.get(name) not in above} | dict(above)


def flags_win(context: Any) -> None:
    """Forget what the file says about the other of two alternatives, one of which was given on the command line."""
    for pair in ALTERNATIVES:
        sources = {name: context.get_parameter_source(name) for name in pair if name in context.params}
        if {source.name for source in sources.values() if source} == {"COMMANDLINE", "DEFAULT_MAP"}:
            context.params |= {name: None for name, source in sources.items() if source.name == "DEFAULT_MAP"}


def _read(path: Path) -> dict[Any, Any]:
    from decathlete.core.files import read_text

    text = read_text(path, error=OptionError)
    try:
        content = _parse(text, path)
    except ValueError as problem:
        raise OptionError(f"cannot be read: {problem}", where=path, remedy="mend the file") from None
    if content is None:  # an empty file, or one of comments
        return {}
    if not isinstance(content, dict):
        raise OptionError("does not hold options", where=path, remedy="write one `option: value` per line")
    return content


def _parse(text: str, path: Path) -> Any:
    import json

    if path.suffix.lower() == ".json":
        return json.loads(text)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise OptionError("is neither YAML nor JSON", where=path, remedy="call it .yaml, .yml or .json")
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ValueError(" ".join(str(problem).split())) from None


def _options(command: Any) -> dict[str, Any]:
    """Spelling without hyphens in front -> option."""
    named = {
        spelling.removeprefix("--"): option
        for option in command.params
        if option.param_type_name == "option"
        for spelling in option.opts
        if spelling.startswith("--")
    }
    return {name: option for name, option in named.items() if name not in UNCONFIGURABLE}


def _options_of_all(context: typer.Context) -> frozenset[str]:
    commands: dict[str, Any] = getattr(context.parent.command, "commands", {}) if context.parent else {}
    return frozenset(name for command in commands.values() for name in _options(command))


def _unknown(key: str, names: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key.replace("_", "-"), sorted(names), n=1)
    return f"{key}: there is no such option" + (f"; did you mean {close[0]}?" if close else "")


def _taken(option: Any, value: Any, context: typer.Context) -> Any:
    """``value`` as the command line would have it.

    Raises:
        ValueError: it is not of the option's type.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        return value
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
    """Values as the command line has them; a number may be a word, as ``1e-3`` is in YAML."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is neither a number nor a word")
        whole = isinstance(value, float) and value.is_integer()
        yield str(int(value) if whole else value)
