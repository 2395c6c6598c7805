"""Where the notebooks are, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """The ``code`` or ``markdown`` cells of a notebook."""
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    """What is written in a cell."""
    return "".join(cell["source"])


def is_parameters(cell: dict[str, Any]) -> bool:
    """Whether a cell is the one whose values others may replace."""
    return "parameters" in cell["metadata"].get("tags", [])
