"""Scores on the prepared grid that a network sees, before predictions are resampled to the grids of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.progress import CaseProgress
from decathlete.dataset.spec import Case
from decathlete.errors import CasesFailedError, DatasetError
from decathlete.evaluation.case import score_case
from decathlete.evaluation.metrics import Metric
from decathlete.evaluation.scores import CaseScores, Scores
from decathlete.inference.batching.cases import predict_cases
from decathlete.inference.batching.pipeline import run_pipeline
from decathlete.inference.batching.shared_batches import CaseRequest
from decathlete.inference.output.restore import restore_label
from decathlete.inference.predict import Prediction, Predictor, PreparedInput
from decathlete.io.images import read_channels, read_label
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare

LabelZYX = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """Label map of a case on its prepared grid (file values)."""

    case_id: str
    truth_ZYX: LabelZYX


def score_on_prepared_grid(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    metrics: Sequence[Metric],
    progress: CaseProgress | None = None,
) -> Scores:
    """Score labelled cases after cropping and resampling of both image and label; no prediction is written.

    Args:
        predictor: of models of one plan, which defines the grid.

    Raises:
        CasesFailedError: some cases could not be read, prepared or predicted; no scores without them.
        DatasetError: no case has a label.
    """
    (ensemble,) = predictor.ensembles
    plan = ensemble.plan
    labelled = {case.id: case for case in cases if case.label is not None}
    if not labelled:
        raise DatasetError("there is nothing to score", remedy="name cases that have a label map")

    def score(computed: tuple[_Truth, Prediction]) -> CaseScores:
        truth, prediction = computed
        return score_case(
            prediction.label_ZYX,
            truth.truth_ZYX,
            prediction.geometry,
            plan.labels,
            metrics=metrics,
            case_id=truth.case_id,
        )

    scored, failures = [], {}
    read, compute = partial(_read, plan=plan), partial(predict_cases, predictor)
    alone = predictor.window.memory_gb is not None
    for outcome in run_pipeline(labelled, read=read, compute=compute, write=score, one_at_a_time=alone):
        if outcome.value is None:
            failures[outcome.case_id] = outcome.error or "failed"
        else:
            scored.append(outcome.value)
        if progress is not None:
            progress(len(scored) + len(failures), len(labelled), outcome.case_id)
    if failures:
        raise CasesFailedError(failures, n_done=len(scored), doing="score")
    return Scores.of(scored, metrics).revised(grid="prepared")


def _read(case: Case, plan: Plan) -> CaseRequest[_Truth]:
    """Read a case; its prediction stays on the prepared grid."""
    assert case.label is not None  # for the type checker: chosen so
    image = read_channels(case.images)
    prepared = prepare(image, plan, label=read_label(case.label), case_id=case.id)
    assert prepared.label_ZYX is not None  # for the type checker: it was given
    stored = prepared.restoration
    staying = stored.staying(plan.target(stored.axes.geometry(stored.geometry).spacing_ZYX))
    return CaseRequest(
        prepared=PreparedInput(geometry=staying.geometry, cases=(replace(prepared, restoration=staying),), warnings=()),
        payload=_Truth(case_id=case.id, truth_ZYX=restore_label(prepared.label_ZYX, staying, plan.labels)),
    )
