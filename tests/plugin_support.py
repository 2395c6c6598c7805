"""A plug-in package outside the repository: the examples of docs/how-to/extend.md, as files of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cli_support import CommandResult, run_command

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "extend.md"
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def write_plugin(folder: Path, *, entry_points: bool) -> Path:
    """Write the page's package ``my_components`` into ``folder``, which is to be on ``PYTHONPATH``.

    Args:
        entry_points: as an installed distribution has them.
    """
    package = folder / "my_components"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    blocks = dict(BLOCK.findall(PAGE.read_text("utf-8")))
    for name, text in blocks.items():
        if name.startswith("my_components/"):
            (folder / name).write_text(text)
    if entry_points:
        listed = re.findall(r'^"([\w. ]+)" = "([\w.]+)"$', blocks["pyproject.toml"], re.MULTILINE)
        info = folder / "my_components-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-components\nVersion: 1.2\n")
        (info / "top_level.txt").write_text("my_components\n")
        (info / "RECORD").write_text("my_components/__init__.py,,\n")
        lines = "".join(f"{name} = {module}\n" for name, module in listed)
        (info / "entry_points.txt").write_text(f"[decathlete.components]\n{lines}")
    return folder


def decathlete(*commands: Sequence[object], plugin: Path, folder: Path) -> list[CommandResult]:
    """Run commands of the command line in ``folder``, one after the other, with the plug-in's folder on the path.

    They share one process of their own: most of a short command's time are imports.
    """
    paths = [str(plugin), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([[str(word) for word in command] for command in commands]),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONWARNINGS": "default"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [CommandResult(**said) for said in json.loads(done.stdout)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(run_command(*command)) for command in json.load(sys.stdin)]))
