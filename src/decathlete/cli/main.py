"""Entry point of ``decathlete COMMAND``. Commands import heavy packages when they run."""

from __future__ import annotations

import gc
import logging
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from decathlete.cli.command_groups import CommandGroup, command_group
from decathlete.cli.command_table import COMMANDS, GROUPS
from decathlete.cli.export_group import ExportGroup
from decathlete.cli.terminal import echo
from decathlete.core.error_codes import documentation_of
from decathlete.core.log_format import stderr_handler
from decathlete.core.memory import is_out_of_memory
from decathlete.errors import DecathleteError, InsufficientMemoryError
from decathlete.version import __version__

_INTERRUPTED = 130  # 128 + SIGINT, the convention of shells

# Imports make a million objects that live until the end. Looking through them for garbage as often as Python does by
# default is a sixth of a start. Here, not in main(): the processes that a training starts import this module as well.
gc.set_threshold(20_000, 10, 10)

HELP = """nnU-Net for PyTorch: from a folder of CT or MRI volumes with label maps to a trained, evaluated model.

Start with `decathlete demo` (no data needed) or `decathlete run FOLDER --max-time 20m`.
Research use only.
"""

app = typer.Typer(
    name="decathlete",
    cls=command_group(COMMANDS),
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "max_content_width": 110,
    },
)
for _name, (_help, _sources) in GROUPS.items():
    _class = command_group(_sources, base=ExportGroup if _name == "export" else CommandGroup)
    app.add_typer(typer.Typer(cls=_class, help=_help, no_args_is_help=True, rich_markup_mode=None), name=_name)


def _print_version(requested: bool) -> None:
    if requested:
        echo(f"decathlete {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print more messages.")] = False,
    version: Annotated[  # noqa: ARG001 - the callback prints it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[stderr_handler()])
    logging.getLogger("decathlete").setLevel(logging.INFO)
    if not verbose:  # it warns about values that are too long, without a file; what matters is checked here
        logging.getLogger("pydicom").addFilter(_is_error)  # a level would be set again when pydicom is imported
    logging.captureWarnings(capture=True)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # our own errors name the file
    logging.getLogger("py.warnings").setLevel(logging.ERROR if not verbose else logging.WARNING)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def main() -> None:
    """Run the command line. A user's mistake ends in one message and an exit code, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # the arrow in a message must not fail on a terminal without it
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except DecathleteError as problem:
        _print_error(problem)
        sys.exit(problem.exit_code)
    except OSError as problem:
        _print_error(
            DecathleteError(
                problem.strerror or str(problem),
                where=problem.filename or None,
                remedy="check the path and its permissions",
                code="E-FILE",
            )
        )
        sys.exit(2)
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        _print_error(
            InsufficientMemoryError("out of memory", remedy="close other programs, or use a computer with more memory")
        )
        sys.exit(2)
    except KeyboardInterrupt:
        _print_interrupted()
        sys.exit(_INTERRUPTED)
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:  # Typer exits like this after ctrl-C, without a message
            _print_interrupted()
        raise


def _print_error(problem: DecathleteError) -> None:
    """Print the code, the message with its remedy, and where the documentation explains the code."""
    echo(f"error {problem.code}: {problem}\n  (documentation: {documentation_of(problem.code)})", err=True)


def _print_interrupted() -> None:
    echo("interrupted\n  → run the same command again to resume; finished results are kept", err=True)


if __name__ == "__main__":
    main()
