"""One contender, once, in a process of its own: reads what to do as JSON, prints what it measured as JSON.

    python worker.py '{"workload": "resample", "contender": "skimage", "work": {...}, "folder": "..."}'

Runs in our environment or in the peers'.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]

from common.processes import peak_bytes, tell
from workload import NotInstalled


def main() -> None:
    task = json.loads(sys.argv[1])
    workload = importlib.import_module(f"workloads.{task['workload']}").WORKLOAD
    folder = Path(task["folder"])
    if task["contender"] is None:
        workload.prepare(task["work"], folder)
        return
    contender = next(c for c in workload.contenders if c.name == task["contender"])
    try:
        measured = contender.run(task["work"], folder)
    except NotInstalled as problem:
        tell({"absent": str(problem)})
        return
    tell({"amounts": measured.amounts, "notes": measured.notes, "peak_bytes": peak_bytes()})


if __name__ == "__main__":
    main()
