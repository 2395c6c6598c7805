"""A process that runs one case after another. It may crash or hang: its parent watches and replaces it.

It reads cases as lines of JSON and answers each with an outcome.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from robustness.actions import Input, Shared, load_actions
from robustness.datasets import write_files
from robustness.formats import Files, Format, load_formats
from robustness.judging import Finding
from robustness.outcomes import MEMORY, Case, Outcome

_MOST_MORE_MB = 4096
"""Address space beyond that of a process that has torch; more is a MemoryError, and no danger to the machine."""

_SLACK_MB = 48.0
"""Of the comparison of memory: allocators and caches differ by some MB from call to call."""


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


class Runner:
    """Runs cases in a temporary folder."""

    def __init__(self, folder: Path, cache: Path, *, memory: bool) -> None:
        self.folder = folder
        self.cache = cache
        self.memory = memory
        self.formats = load_formats()
        self.actions = load_actions()
        self.shared = Shared(folder / "shared")
        self.shared.folder.mkdir(parents=True)
        self.honest_peaks: dict[tuple[str, str], float] = {}

    def run(self, case: Case) -> Outcome:
        """Run a case; the memory of the honest input is measured before the first of its kind."""
        if not self.memory:
            return self._run(case)
        key = (case.format, case.action)
        if key not in self.honest_peaks:
            honest = Case(format=case.format, kind="honest", number=0, action=case.action)
            self._run(honest)  # what is imported and cached at first is not the input's
            self.honest_peaks[key] = self._run(honest).peak_mb
        outcome = self._run(case)
        allowed = 2 * self.honest_peaks[key] + _SLACK_MB
        if not outcome.is_fault and outcome.peak_mb > allowed:
            cause = f"used more than {allowed:.0f} MB, an honest input {self.honest_peaks[key]:.0f} MB"
            return Outcome(
                **(vars(outcome) | {"result": MEMORY, "cause": f"{case.action}: resident memory", "detail": cause})
            )
        return outcome

    def _run(self, case: Case) -> Outcome:
        folder = self.folder / "case"
        form = self.formats[case.format]
        self._fill_from_cache(form)
        files = form.inputs(case.kind, case.number)
        try:
            write_files(files, folder)
            names = _changed_names(form.honest, files) | {"mutant"}
            entry = Input(
                folder=folder,
                entry=folder / form.entry,
                kind=case.kind,
                names=names,
                honest=form.honest,
                shared=self.shared,
            )
            return self._measured(case, entry)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _measured(self, case: Case, entry: Input) -> Outcome:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident memory
        before, started = _status_mb("VmRSS"), time.process_time()
        found: Finding = self.actions[case.action](entry)
        return Outcome(
            case=case,
            result=found.result,
            cause=f"{case.action}: {found.cause}" if found.cause else "",
            detail=found.detail[-3000:],
            peak_mb=round(_status_mb("VmHWM") - before, 1),
            cpu_s=round(time.process_time() - started, 3),
        )

    def _fill_from_cache(self, form: Format) -> None:
        """Read the honest input from the cache of all processes: that of a trained run takes seconds to make."""
        path = self.cache / f"{form.make.__module__}.{form.make.__name__}"
        if not form.honest and path.exists():
            form.honest.update(pickle.loads(path.read_bytes()))
        if not path.exists():
            form.honest.update(form.make())
            with tempfile.NamedTemporaryFile(dir=self.cache, delete=False) as file:
                file.write(pickle.dumps(form.honest))
            Path(file.name).rename(path)


def _changed_names(honest: Files, files: Files) -> set[str]:
    """Return the names of changed files, and of their folders."""
    changed = [name for name in honest.keys() | files.keys() if honest.get(name) != files.get(name)]
    return {part for name in changed for part in (Path(name).name, Path(name).parent.name) if part}


def main() -> None:
    """Answer cases until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="robustness-") as temporary:
        os.chdir(temporary)
        runner = Runner(Path(temporary), Path(sys.argv[1]), memory=sys.argv[2:] != ["no-memory"])
        limit = int((_status_mb("VmSize") + _MOST_MORE_MB) * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        for line in sys.stdin:
            outcome = runner.run(Case(**json.loads(line)))
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # threads of a service must not keep a process that has failed
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
