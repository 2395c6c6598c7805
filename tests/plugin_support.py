"""A plug-in package outside the repository: the examples of docs/how-to/extend.md, as files of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


def decathlete(*arguments: object, plugin: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in ``folder`` with the plug-in's folder on the path."""
    paths = [str(plugin), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "decathlete", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONWARNINGS": "default"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
