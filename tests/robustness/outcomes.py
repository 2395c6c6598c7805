"""What can become of one input, and the table of all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

EQUAL, DIFFERENT, CLEAN = "equal", "different", "clean-error"
VAGUE, TRACEBACK, CRASH, HANG = "vague-error", "traceback", "native-crash", "hang"
WRONG, BATCH, MEMORY, ESCAPE = "silent-wrong", "batch-lost", "memory", "escape"
LOST, LEFT, FINISHED, SKIPPED = "lost", "leftover", "finished", "skipped"
HARNESS = "harness"

CLASSES: dict[str, str] = {
    EQUAL: "accepted; equal to the honest input",
    DIFFERENT: "accepted; what the file says was read, as far as an independent reader can tell",
    CLEAN: "rejected with a code of the catalogue and the name of the file",
    VAGUE: "rejected without a known code, or without the name of the file",
    TRACEBACK: "an exception that no command may end with",
    CRASH: "the process ended by a signal",
    HANG: "more than 30 s of processor time, or blocked for 30 s",
    WRONG: "accepted although the file contradicts itself, or read as something else than it says",
    BATCH: "an honest case beside it got no result",
    MEMORY: "more than twice the memory of an honest input, or told to need a larger computer",
    ESCAPE: "something was written outside, or code was run",
    LOST: "the repeated command fails, or its results are not those of an undisturbed one",
    LEFT: "temporary files or processes stay",
    FINISHED: "the command had finished before the signal came",
    SKIPPED: "not possible on this machine",
    HARNESS: "the harness itself failed, so that nothing is known",
}
"""Class -> meaning."""

ACCEPTABLE = (EQUAL, DIFFERENT, CLEAN, FINISHED, SKIPPED)
_ONLY_IF_ANY = (ESCAPE, VAGUE, LOST, LEFT, FINISHED, SKIPPED, HARNESS)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One malformed input and what is done with it; equal cases are equal inputs, on every machine."""

    format: str
    kind: str
    number: int
    action: str

    def __str__(self) -> str:
        return f"{self.format}/{self.kind}/{self.number}/{self.action}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case.

    Attributes:
        result: one of :data:`CLASSES`.
        cause: a short text that is equal for equal causes.
        detail: the whole message.
        peak_mb: additional resident memory, MB.
        cpu_s: processor time, s.
    """

    case: Case
    result: str
    cause: str = ""
    detail: str = ""
    peak_mb: float = 0.0
    cpu_s: float = 0.0

    @property
    def is_fault(self) -> bool:
        """Whether this must not happen."""
        return self.result not in ACCEPTABLE


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the number of outcomes by format and class, as a Markdown table with the sums."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.case.format, Counter())[outcome.result] += 1
    shown = [name for name in CLASSES if any(c[name] for c in counts.values()) or name not in _ONLY_IF_ANY]
    rows = [["format", "inputs", *shown], ["---"] + ["---:"] * (len(shown) + 1)]
    total = sum(counts.values(), Counter())
    for name, count in [*sorted(counts.items()), ("all", total)]:
        rows.append([name, str(count.total()), *(str(count[c]) if count[c] else "" for c in shown)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def causes(outcomes: Iterable[Outcome]) -> str:
    """Return the faults, grouped by class and cause, each with its number and one case."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.is_fault:
            groups.setdefault((outcome.result, outcome.cause), []).append(outcome)
    lines = []
    for (result, cause), members in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
        formats = ", ".join(sorted({m.case.format for m in members}))
        lines.append(f"{result} x{len(members)}: {cause}\n    {formats}; e.g. {members[0].case}")
    return "\n".join(lines)


def save(outcomes: Iterable[Outcome], path: Path, **facts: Any) -> None:
    """Write all faults, the counts and ``facts`` as JSON."""
    outcomes = list(outcomes)
    counts = Counter((o.case.format, o.result) for o in outcomes)
    content = {
        **facts,
        "counts": [{"format": f, "result": r, "n": n} for (f, r), n in sorted(counts.items())],
        "faults": [asdict(o) for o in outcomes if o.is_fault],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
