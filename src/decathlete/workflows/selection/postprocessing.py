"""Decide which steps of post-processing a model gets: those that held-out cases say help, for each structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from decathlete.core.estimates import score_bytes
from decathlete.core.geometry import PIXEL, Unit
from decathlete.core.labels import LabelSet
from decathlete.core.limits import limit_workers
from decathlete.core.parallel import Workers, map_cases
from decathlete.errors import CasesFailedError
from decathlete.evaluation.comparison import CONFIDENCE, CaseValues, Difference
from decathlete.evaluation.scores import mean
from decathlete.io.largest_images import sizes_of_largest
from decathlete.models.record import PostprocessingStep
from decathlete.workflows.selection.record import PostprocessingDecision, StepDecision
from decathlete.workflows.selection.step_effects import (
    HeldOutCase,
    StepEffects,
    StructureDice,
    candidate_steps,
    gather,
    measure_all_steps,
    measure_steps,
)

MIN_PATIENTS = 5
"""Held-out patients whose truth has the structure, at least. With fewer, chance alone can make each of them better."""
_FILTERS = ("keep_largest_component", "remove_small")
"""Steps that exclude each other: the one with the greater gain is used."""

Out = TypeVar("Out")


def decide_postprocessing(
    cases: Mapping[str, HeldOutCase],
    labels: LabelSet,
    *,
    smallest_truth_ml: Mapping[str, float],
    patients: Mapping[str, str],
    unit: Unit = "mm",
    workers: Workers,
) -> PostprocessingDecision:
    """Try each step on each structure of the held-out predictions, and choose those that help.

    A step helps if the interval of its gain lies above 0 and no other structure gets worse. The interval has a
    confidence of 95 %, corrected for the number of steps that change the structure (Bonferroni). Of the component
    filters (largest component, smallest volume), the one with the greatest gain is used; holes are filled afterwards.

    Args:
        cases: predictions by the runs' models (with the steps of their plan), and truths.
        smallest_truth_ml: structure -> its smallest true volume in a case, mL.
        patients: case id -> patient.
        unit: of lengths in the files, for the reasons.

    Raises:
        CasesFailedError: a prediction or a label map cannot be read.
    """
    if len({patients.get(case, case) for case in cases}) < MIN_PATIENTS:
        return PostprocessingDecision(
            note=f"fewer than {MIN_PATIENTS} held-out patients: too few to decide on post-processing"
        )
    steps = [step for s in labels.structures for step in candidate_steps(s.name, smallest_truth_ml.get(s.name))]
    measured = _map(partial(measure_steps, labels=labels, steps=steps), cases, workers)
    tried = [
        decision
        for structure in labels.structures
        for decision in _decide_structure(structure.name, labels, steps, measured, patients, unit)
    ]
    before = {case: effects.before for case, effects in measured.items()}
    return _combine(tried, cases, labels, before, patients, workers)


def _map(function: Callable[[HeldOutCase], Out], cases: Mapping[str, HeldOutCase], workers: Workers) -> dict[str, Out]:
    found: dict[str, Out] = {}
    failures = {}
    if isinstance(workers, int):
        first = next(iter(cases.values()))  # all are of one dataset
        predictions = {case_id: (case.prediction,) for case_id, case in cases.items()}
        sizes = sizes_of_largest(predictions, workers, spacing=first.spacing, formats=first.formats)
        workers = limit_workers(workers, {i: score_bytes(size) for i, size in sizes.items()}, doing="post-process")
    for outcome in map_cases(function, cases, workers=workers):
        if outcome.value is None:
            failures[outcome.case_id] = outcome.error or "failed"
        else:
            found[outcome.case_id] = outcome.value
    if failures:
        raise CasesFailedError(failures, n_done=len(found), doing="post-process")
    return found


def _decide_structure(
    name: str,
    labels: LabelSet,
    steps: Sequence[PostprocessingStep],
    measured: Mapping[str, StepEffects],
    patients: Mapping[str, str],
    unit: Unit,
) -> list[StepDecision]:
    """Decide on every step of one structure, each by itself; then use at most one component filter."""
    own = [i for i, step in enumerate(steps) if step.settings["structures"] == [name]]
    effective = [i for i in own if any(i in effects.after for effects in measured.values())]
    confidence = 1 - (1 - CONFIDENCE) / max(len(effective), 1)
    decisions = []
    for index in own:
        decide = partial(_decide_step, name, index, steps[index], labels, measured, patients, confidence)
        decisions.append(decide() if index in effective else _no_effect(name, steps[index]))
    return _use_best(decisions, unit)


def _no_effect(name: str, step: PostprocessingStep) -> StepDecision:
    return StepDecision(
        structure=name, step=step, gain=None, helps=False, reason="changes nothing in the held-out cases"
    )


def _decide_step(
    name: str,
    index: int,
    step: PostprocessingStep,
    labels: LabelSet,
    measured: Mapping[str, StepEffects],
    patients: Mapping[str, str],
    confidence: float,
) -> StepDecision:
    names = [structure.name for structure in labels.structures]
    own = names.index(name)
    before = {case: effects.before for case, effects in measured.items()}
    after = {case: effects.after.get(index, effects.before) for case, effects in measured.items()}
    gain = Difference.of(gather(before, own), gather(after, own), patients=patients, confidence=confidence)
    worse = [n for i, n in enumerate(names) if i != own and _is_worse(gather(before, i), gather(after, i))]
    n_patients = len({patients.get(case, case) for case, effects in measured.items() if effects.in_truth[own]})
    if n_patients < MIN_PATIENTS:
        reason = f"only {n_patients} held-out patient(s) have the structure"
        return StepDecision(structure=name, step=step, gain=gain, helps=False, reason=reason)
    helps = gain is not None and gain.low > 0 and not worse
    return StepDecision(structure=name, step=step, gain=gain, helps=helps, reason=_reason(gain, worse))


def _is_worse(before: CaseValues, after: CaseValues) -> bool:
    means = mean(before.values()), mean(after.values())
    return means[0] is not None and means[1] is not None and means[1] < means[0]


def _reason(gain: Difference | None, worse: Sequence[str]) -> str:
    if gain is None:
        return "the structure has no Dice in the held-out cases"
    if gain.high < 0:
        return "lowers the Dice"
    if gain.low <= 0:
        return "no clear gain: the interval contains 0"
    return f"lowers the Dice of {', '.join(worse)}" if worse else "raises the Dice"


def _use_best(decisions: Sequence[StepDecision], unit: Unit) -> list[StepDecision]:
    """Mark the steps that are used: the best component filter that helps, and filling holes if that helps."""
    filters = [d for d in decisions if d.helps and d.step.name in _FILTERS]
    best = max(filters, key=_gain, default=None)
    marked = []
    for decision in decisions:
        if decision in filters and decision is not best and best is not None:
            reason = f"raises the Dice, but not more than {describe_step(best.step, unit)}"
            marked.append(decision.revised(reason=reason))
        else:
            marked.append(decision.revised(used=decision.helps))
    return marked


def _gain(decision: StepDecision) -> float:
    return 0.0 if decision.gain is None else decision.gain.gain


def _combine(
    tried: Sequence[StepDecision],
    cases: Mapping[str, HeldOutCase],
    labels: LabelSet,
    before: Mapping[str, StructureDice],
    patients: Mapping[str, str],
    workers: Workers,
) -> PostprocessingDecision:
    """Put the used steps together, and measure them together."""
    steps = tuple(decision.step for decision in tried if decision.used)
    if not steps:
        return PostprocessingDecision(tried=tuple(tried))
    after = _map(partial(measure_all_steps, labels=labels, steps=steps), cases, workers)
    total = Difference.of(_case_means(before), _case_means(after), patients=patients)
    if total is None or total.gain <= 0:  # steps that help alone may not help together
        unused = tuple(
            d.revised(used=False, reason="no gain together with the other steps") if d.used else d for d in tried
        )
        return PostprocessingDecision(tried=unused)
    return PostprocessingDecision(steps=steps, tried=tuple(tried), total=total)


def _case_means(dice: Mapping[str, StructureDice]) -> dict[str, float | None]:
    return {case: mean(values) for case, values in dice.items()}


def describe_step(step: PostprocessingStep, unit: Unit = "mm") -> str:
    """Name a step and its settings in words; sizes in images without a spacing are numbers of pixels.

    >>> describe_step(PostprocessingStep(name="remove_small", settings={"structures": ["a"], "min_volume_ml": 0.5}))
    'remove components under 0.5 mL'
    >>> describe_step(PostprocessingStep(name="remove_small", settings={"min_volume_ml": 0.02}), "pixel")
    'remove components under 20 px'
    """
    if step.name == "remove_small" and unit == PIXEL:
        return f"remove components under {1000 * float(str(step.settings['min_volume_ml'])):g} px"
    if step.name == "remove_small":
        return f"remove components under {step.settings['min_volume_ml']:g} mL"
    return step.name.replace("_", " ")
