"""The table of the ladder: means of each program, and their paired difference with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cells import NNUNET, OURS, CellResult

from decathlete.evaluation.comparison import Difference

CaseDice = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """All results of one dataset and training time.

    Attributes:
        seeds: program -> Dice of each seed's cases, those of all folds together; of nnU-Net in its better precision.
        patients: case id -> patient.
    """

    dataset: str
    minutes: float
    seeds: dict[str, dict[int, CaseDice]]
    patients: dict[str, str]
    results: Sequence[CellResult]

    def means(self, program: str) -> list[float]:
        """Return the mean Dice of each seed that has all cases."""
        seeds = self.seeds.get(program, {}).values()
        means = (_mean(cases.values()) for cases in seeds if cases.keys() == self.patients.keys())
        return [value for value in means if value is not None]

    def difference(self) -> Difference | None:
        """Return ours minus nnU-Net's, paired by case; ``None`` unless every seed of both has all cases."""
        ours, theirs = self._per_case(OURS), self._per_case(NNUNET)
        if not ours.keys() == theirs.keys() == self.patients.keys():
            return None
        return Difference.of(theirs, ours, patients=self.patients)

    def _per_case(self, program: str) -> CaseDice:
        """Return the mean over the seeds of each case that every seed has."""
        seeds = list(self.seeds.get(program, {}).values())
        common = set.intersection(*(set(cases) for cases in seeds)) if seeds else set()
        return {case: _mean(cases[case] for cases in seeds) for case in sorted(common)}


def make_rungs(results: Sequence[CellResult]) -> Iterator[Rung]:
    """Group results by dataset and training time, in this order."""
    keys = sorted({(result.cell.dataset, result.cell.minutes) for result in results})
    for dataset, minutes in keys:
        own = [r for r in results if (r.cell.dataset, r.cell.minutes) == (dataset, minutes)]
        seeds = {program: _choose_better(_by_precision(own, program)) for program in (OURS, NNUNET)}
        patients = {case: patient for result in own for case, patient in result.patients.items()}
        yield Rung(dataset=dataset, minutes=minutes, seeds=seeds, patients=patients, results=own)


def _by_precision(results: Sequence[CellResult], program: str) -> list[dict[int, CaseDice]]:
    """Return the Dice of each seed's cases for each precision."""
    found: dict[str, dict[int, CaseDice]] = {}
    for result in results:
        if result.cell.program == program:
            seeds = found.setdefault(result.cell.precision, {})
            seeds.setdefault(result.cell.seed, {}).update(result.dice)
    return list(found.values())


def _choose_better(precisions: Sequence[dict[int, CaseDice]]) -> dict[int, CaseDice]:
    """Return the seeds of the precision with most cases, and of several with the highest mean Dice."""

    def merit(seeds: dict[int, CaseDice]) -> tuple[int, float]:
        dice = [value for cases in seeds.values() for value in cases.values()]
        return len({case for cases in seeds.values() for case in cases}), _mean(dice) or 0.0

    return max(precisions, key=merit, default={})


def markdown(results: Sequence[CellResult], *, plot: str) -> str:
    """Return the page: the machine, the plot and the table."""
    machines = sorted({str(result.notes["machine"]) for result in results})
    lines = [
        "# Dice by training time",
        "",
        f"On {'; '.join(machines) or 'no machine yet'}. Mean Dice of the held-out cases (of all "
        "measured folds together) on the grid of the files. The difference is paired by case; its 95 % interval is a "
        "bootstrap over patients.",
        "",
        "nnU-Net's learning rate falls to zero with the time. Of fp32 and bf16 (autocast) the better one is "
        "in the table; each is noted below. On AMX tiles, bf16 crashed in the first step of ACDC, and "
        "on STS_PETCT and DSB2018_nuclei it was worse than fp32, although it made more steps. "
        "Where the Dice is 0.000, nnU-Net had learned no structure in that time.",
        "",
        f"![Dice by training time]({plot})",
        "",
        "| dataset | minutes | cases | Decathlete, each seed | mean | nnU-Net v2, each seed | mean | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(rung) for rung in make_rungs(results)]
    return "\n".join([*lines, "", *_notes(results)]) + "\n"


def _row(rung: Rung) -> str:
    ours, theirs, difference = rung.means(OURS), rung.means(NNUNET), rung.difference()
    cells = [
        rung.dataset,
        f"{rung.minutes:g}",
        str(len(rung.patients)),
        _listed(ours),
        _bold(_mean(ours)),
        _listed(theirs),
        _bold(_mean(theirs)),
        str(difference) if difference is not None else "",
    ]
    return f"| {' | '.join(cells)} |"


def _notes(results: Sequence[CellResult]) -> Iterator[str]:
    yield "What each training did:"
    yield ""
    for result in sorted(results, key=lambda result: result.cell):
        details = "; ".join(f"{name} {value}" for name, value in result.notes.items() if name != "machine")
        yield f"- {result.cell}: {result.minutes_in_all:.1f} min with planning and predicting; {details}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _bold(value: float | None) -> str:
    return "" if value is None else f"**{value:.3f}**"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
