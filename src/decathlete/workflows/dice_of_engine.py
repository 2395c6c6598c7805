"""Mean Dice of one engine on labelled cases, on their own grids; no file is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.progress import CaseProgress
from decathlete.dataset.spec import Case
from decathlete.errors import CasesFailedError, DatasetError, ImageError
from decathlete.evaluation.case import mean_dice
from decathlete.evaluation.scores import mean
from decathlete.inference.batching.pipeline import compute_each, run_pipeline
from decathlete.inference.engines import Engine
from decathlete.inference.ensemble import PlanEnsemble
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import PreparedInput
from decathlete.io.images import read_channels, read_label
from decathlete.planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A prepared image, later its predicted label map (file values), with the truth."""

    prepared: PreparedInput | None
    truth_ZYX: NDArray[np.integer[Any]]
    label_ZYX: NDArray[np.integer[Any]] | None = None
    unannotated: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Dice:
    value: float | None


def dice_of_engine(engine: Engine, plan: Plan, cases: Sequence[Case], *, progress: CaseProgress | None = None) -> float:
    """Compute the mean over cases of the mean over a case's structures, as in the headline of ``scores.json``.

    Raises:
        CasesFailedError: some cases could not be read or predicted.
        DatasetError: neither the cases nor their predictions have any foreground.
    """
    ensemble = PlanEnsemble(plan=plan, engines=(engine,), mirror_axes=(), models=())
    predictor = Predictor([ensemble], device=engine.device)

    def read(case: Case) -> _Case:
        image = read_channels(case.images, spacing=case.spacing, formats=case.formats, n_channels=len(plan.channels))
        return _Case(
            prepared=predictor.prepare(image, case_id=case.id),
            truth_ZYX=_truth(case, plan),
            unannotated=case.unannotated,
        )

    def compute(case: _Case) -> _Case:
        assert case.prepared is not None  # for the type checker: just read
        return replace(case, prepared=None, label_ZYX=predictor.compute(case.prepared).label_ZYX)

    def score(case: _Case) -> _Dice:
        assert case.label_ZYX is not None  # for the type checker: just computed
        return _Dice(value=mean_dice(case.label_ZYX, case.truth_ZYX, plan.labels, unannotated=case.unannotated))

    found: dict[str, float | None] = {}
    failures: dict[str, str] = {}
    for outcome in run_pipeline({c.id: c for c in cases}, read=read, compute=compute_each(compute), write=score):
        if outcome.value is None:
            failures[outcome.case_id] = outcome.error or "failed"
        else:
            found[outcome.case_id] = outcome.value.value
        if progress is not None:
            progress(len(found) + len(failures), len(cases), outcome.case_id)
    if failures:
        raise CasesFailedError(failures, n_done=len(found), doing="score")
    dice = mean(found.values())
    if dice is None:
        raise DatasetError("there is nothing to score", remedy="name cases whose label maps have a foreground")
    return dice


def _truth(case: Case, plan: Plan) -> NDArray[np.integer[Any]]:
    assert case.label is not None  # for the type checker: labelled cases were chosen
    truth_ZYX = read_label(case.label, spacing=case.spacing, formats=case.formats, structures=case.structures).array_ZYX
    if undeclared := plan.labels.find_undeclared_values(truth_ZYX):
        raise ImageError(
            f"has values that the model does not know ({', '.join(f'{v:g}' for v in undeclared[:10])})",
            where=case.label,
            remedy="name a dataset with the model's own labels",
        )
    return truth_ZYX
