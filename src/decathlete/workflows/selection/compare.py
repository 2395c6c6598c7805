"""Compare the candidates of a selection by their held-out cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from decathlete.errors import DatasetError
from decathlete.evaluation.comparison import Difference
from decathlete.workflows.selection.candidates import Candidate, HeldOutResult
from decathlete.workflows.selection.record import CandidateRecord

CANDIDATES = "candidates"
"""Subfolder with the scores of each candidate."""


def find_best(candidates: Sequence[Candidate], results: Mapping[str, HeldOutResult], *, folder: Path) -> Candidate:
    """Return the candidate with the highest mean Dice; of equal ones, that with the fewest networks.

    Args:
        results: name of a candidate -> its held-out cases.
        folder: folder of the selection, for the error.

    Raises:
        DatasetError: no held-out case has any foreground.
    """
    scored = [
        (dice, -candidate.n_networks, candidate)
        for candidate in candidates
        if candidate.folds and (dice := results[candidate.name].scores.headline.dice) is not None
    ]
    if not scored:
        raise DatasetError(
            "no held-out case has any foreground: there is nothing to compare",
            where=folder,
            remedy="use cases whose label maps have a foreground",
            code="E-DATASET-LABELS",
        )
    return max(scored, key=lambda entry: entry[:2])[2]


def make_records(
    candidates: Sequence[Candidate],
    results: Mapping[str, HeldOutResult],
    *,
    best: Candidate,
    patients: Mapping[str, str],
    max_members: int,
) -> tuple[CandidateRecord, ...]:
    """Return the records of all candidates, the best first.

    Args:
        results: name of a candidate -> its held-out cases.
        patients: case id -> patient; intervals count patients.
        max_members: greatest number of networks of the model.
    """
    records = []
    for candidate in candidates:
        result = results.get(candidate.name)
        record = CandidateRecord(
            name=candidate.name,
            configurations=tuple(configuration.name for configuration in candidate.configurations),
            folds=candidate.folds,
            networks=candidate.n_networks,
            seconds_per_case=_seconds_per_case(candidate, results),
            dice=result.scores.headline.dice if result else None,
            classes={c.name: c.mean("dice") for c in result.scores.classes} if result else {},
            behind=_difference(results[best.name], result, patients) if result and candidate is not best else None,
            scores=f"{CANDIDATES}/{candidate.name}/scores.json" if result else None,
            excluded=None if candidate.folds else f"needs more than {max_members} networks (--max-members)",
        )
        records.append(record)
    return tuple(sorted(records, key=lambda r: (r.name != best.name, -(r.dice or -1.0), r.networks)))


def _seconds_per_case(candidate: Candidate, results: Mapping[str, HeldOutResult]) -> float | None:
    """Return the estimated time of a prediction by the model of a candidate."""
    if not candidate.folds:
        return None
    one_fold = sum(results[configuration.name].median_seconds for configuration in candidate.configurations)
    return one_fold * len(candidate.folds)


def _difference(best: HeldOutResult, other: HeldOutResult, patients: Mapping[str, str]) -> Difference | None:
    """Compare another candidate with the best one."""
    before, after = ({case.case_id: case.dice for case in result.scores.cases} for result in (best, other))
    return Difference.of(before, after, patients=patients)
