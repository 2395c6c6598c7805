"""``--config FILE`` and ``--preset``: defaults other than ours. Flags win over the file, the file over the preset.

Every command loads this module, most without a file: what reading one needs is loaded then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from decathlete.cli.renamed_options import successor
from decathlete.core.choices import PresetName
from decathlete.errors import OptionError, problems_found

OVERRULES: dict[str, tuple[str, ...]] = {
    "max_time": ("epochs", "steps_per_epoch", "val_every"),
    "epochs": ("max_time",),
    "url": ("region",),
    "region": ("url",),
}
"""Option -> those that would contradict it, or do nothing beside it: said higher up (a flag is above the file, the file
above the preset), it makes them forgotten below."""
UNCONFIGURABLE = frozenset({"config", "help"})
SET = "set_"
"""The parameter of ``--set``; a nested section of a file becomes such assignments."""
FROM_FILE = "decathlete.from_file"
"""In a context's ``meta``: name -> value for what the file says, ``None`` for ``null``."""

log = logging.getLogger("decathlete.config")


def take_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command's options; ``null`` is our default, not a preset's.

    Raises:
        OptionError: with every unknown key and every value of a wrong type together.
    """
    if path is None:
        return None
    options, others = option_spellings(context.command), _spellings_of_all(context)
    values: dict[str, Any] = {}
    problems: list[str] = []
    foreign: list[str] = []
    assignments: list[str] = []
    for key, value in _read(path).items():
        name = str(key).replace("_", "-")
        if _is_section(value):
            if not _takes_section(name, options):
                foreign.append(name)
                continue
            if isinstance(value, dict) and name in options and isinstance(value.get("name"), str):
                values[options[name].name] = value["name"]
                value = {k: item for k, item in value.items() if k != "name"}
            assignments += _assignments(name.replace("-", "_"), value)
        elif name not in options:
            if new := successor(name, options):
                problems.append(f"{key}: the option was renamed, use {new}")
            else:
                foreign.append(name) if name in others else problems.append(_unknown(str(key), {*options, *others}))
        elif options[name].name in values:
            problems.append(f"{key}: given twice")
        else:
            try:
                values[options[name].name] = None if value is None else _taken(options[name], name, value, context)
            except ValueError as problem:
                problems.append(f"{key}: {problem}")
    if assignments:
        values[SET] = [*assignments, *(values.get(SET) or ())]
    if problems:
        raise problems_found(
            problems, where=path, remedy="fix these lines; `--help` lists the options", kind=OptionError
        )
    if foreign:
        log.info("%s: not options of this command, left to others: %s", path, ", ".join(foreign))
    context.meta[FROM_FILE] = values
    _set_defaults(context, below=context.default_map or {})
    return path


def take_preset(context: typer.Context, name: PresetName | None) -> PresetName | None:
    """Make a preset's values the defaults of the command's options, unless a file says otherwise."""
    if name is None:
        return None
    from decathlete.planning.presets import load_preset

    preset = load_preset(name)
    known = {parameter.name for parameter in context.command.params}
    _set_defaults(context, below={k: v for k, v in (preset.plan | preset.train).items() if k in known})
    return name


def _set_defaults(context: typer.Context, *, below: Mapping[str, Any]) -> None:
    """To what the file says, and of ``below`` what it says nothing about and does not contradict."""
    above: dict[str, Any] = context.meta.get(FROM_FILE, {})
    silent = {
        *above,
        *(loser for name, value in above.items() if value is not None for loser in OVERRULES.get(name, ())),
    }
    ours = {parameter.name: parameter.default for parameter in context.command.params if not parameter.required}
    from_file = {name: ours.get(name) if value is None else value for name, value in above.items()}
    context.default_map = {name: value for name, value in below.items() if name not in silent} | from_file


def _is_section(value: Any) -> bool:
    """Whether a file's value is nested: settings of a component or group, or a list of components."""
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _takes_section(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a command uses a nested section: the plan's with ``--set``, the training's where it trains, too."""
    from decathlete.planning.plan import Plan

    return "set" in options and (name.replace("-", "_") in Plan.model_fields or "optimizer" in options)


def _assignments(path: str, value: Any) -> Iterator[str]:
    """A nested section as ``--set`` has it: ``{gamma: {probability: 0.1}}`` is ``gamma.probability=0.1``."""
    if not isinstance(value, dict):
        yield f"{path}={json.dumps(value)}"
        return
    for key, item in value.items():
        yield from _assignments(path if key == "name" else f"{path}.{key}", item)


def flags_win(context: Any) -> None:
    """Forget what file and preset say against a flag: it is our default then. ``--set`` adds to the file's."""
    from_file = context.meta.get(FROM_FILE, {})
    if from_file.get(SET):
        chosen = [name for name in context.params if _source(context, name) == "COMMANDLINE"]
        kept = [
            text for text in from_file[SET] if text.partition(".")[0] not in chosen
        ]  # settings of another component
        context.params[SET] = [*kept, *(context.params[SET] if SET in chosen else ())]
    ours = {parameter.name: parameter.default for parameter in context.command.params}
    for winner, losers in OVERRULES.items():
        if _source(context, winner) == "COMMANDLINE":
            for loser in losers:
                if _source(context, loser) == "DEFAULT_MAP":
                    context.params[loser] = ours[loser]
                    from_file.pop(loser, None)


def said(context: Any) -> dict[str, Any]:
    """What the user says, on the command line or in the file (``None`` for ``null``), but not what a preset says."""
    from_file = context.meta.get(FROM_FILE, {})
    flags = {name: value for name, value in context.params.items() if _source(context, name) == "COMMANDLINE"}
    filed = {name: value if value is None else context.params[name] for name, value in from_file.items()}
    return filed | flags


def _source(context: Any, name: str) -> str | None:
    source = context.get_parameter_source(name) if name in context.params else None
    return source.name if source else None


def _read(path: Path) -> dict[Any, Any]:
    from decathlete.core.files import read_text

    text = read_text(path, error=OptionError)
    try:
        content = _parse(text, path)
    except ValueError as problem:
        raise OptionError(f"cannot be read: {problem}", where=path, remedy="fix the file") from None
    if content is None:  # an empty file, or one of comments
        return {}
    if not isinstance(content, dict):
        raise OptionError("does not hold options", where=path, remedy="write one `option: value` per line")
    return content


def _parse(text: str, path: Path) -> Any:
    if path.suffix.lower() == ".json":
        return json.loads(text)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise OptionError("is neither YAML nor JSON", where=path, remedy="call it .yaml, .yml or .json")
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ValueError(" ".join(str(problem).split())) from None


def option_spellings(command: Any) -> dict[str, Any]:
    """Return the options by spelling, without leading hyphens; ``no-adapt`` beside ``adapt``."""
    named = {
        spelling.removeprefix("--"): option
        for option in command.params
        if option.param_type_name == "option"
        for spelling in (*option.opts, *option.secondary_opts)
        if spelling.startswith("--")
    }
    return {name: option for name, option in named.items() if name not in UNCONFIGURABLE}


def _spellings_of_all(context: typer.Context) -> frozenset[str]:
    return frozenset(_spellings_below(context.find_root().command))


def _spellings_below(command: Any) -> Iterator[str]:
    for below in getattr(command, "commands", {}).values():
        yield from option_spellings(below)
        yield from _spellings_below(below)


def _unknown(key: str, names: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(key.replace("_", "-"), sorted(names), n=1)
    return f"{key}: there is no such option" + (f"; did you mean {close[0]}?" if close else "")


def _taken(option: Any, name: str, value: Any, context: typer.Context) -> Any:
    """``value``, which stands under ``name``, as the command line would have it.

    Raises:
        ValueError: it is not of the option's type.
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
    """Values as the command line has them; a number may be a word, as ``1e-3`` is in YAML."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is neither a number nor a word")
        whole = isinstance(value, float) and value.is_integer()
        yield str(int(value) if whole else value)
