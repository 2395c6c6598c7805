"""Scores predictions on the prepared grid of the network, without resampling to the grid of the files."""

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
    """True label map of a case on its prepared grid, with the values of the file."""

    case_id: str
    truth_ZYX: LabelZYX


def score_on_prepared_grid(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    metrics: Sequence[Metric],
    progress: CaseProgress | None = None,
) -> Scores:
    """Score labelled cases after cropping and resampling image and label. No predictions are written.

    Args:
        predictor: predictor of models with one plan, which determines the grid.
        cases: cases to score; those without a label are ignored.
        metrics: metrics to compute.
        progress: called after each case.

    Raises:
        CasesFailedError: some cases could not be read, prepared or predicted.
        DatasetError: no case has a label.
    """
    (ensemble,) = predictor.ensembles
    plan = ensemble.plan
    labelled = {case.id: case for case in cases if case.label is not None}
    if not labelled:
        raise DatasetError("no case has a label map", remedy="use cases with label maps")

    def score(pair: tuple[_Truth, Prediction]) -> CaseScores:
        truth, prediction = pair
        return score_case(
            prediction.label_ZYX,
            truth.truth_ZYX,
            prediction.geometry,
            plan.labels,
            metrics=metrics,
            case_id=truth.case_id,
        )

    case_scores, failures = [], {}
    read, compute = partial(_read, plan=plan), partial(predict_cases, predictor)
    one_at_a_time = predictor.window.memory_gb is not None
    for outcome in run_pipeline(labelled, read=read, compute=compute, write=score, one_at_a_time=one_at_a_time):
        if outcome.value is None:
            failures[outcome.case_id] = outcome.error or "failed"
        else:
            case_scores.append(outcome.value)
        if progress is not None:
            progress(len(case_scores) + len(failures), len(labelled), outcome.case_id)
    if failures:
        raise CasesFailedError(failures, n_done=len(case_scores), doing="score")
    return Scores.of(case_scores, metrics).revised(grid="prepared")


def _read(case: Case, plan: Plan) -> CaseRequest[_Truth]:
    """Read and prepare a case. Its prediction stays on the prepared grid."""
    assert case.label is not None  # for the type checker: only labelled cases are read
    image = read_channels(case.images, spacing=case.spacing)
    label = read_label(case.label, spacing=case.spacing)
    prepared = prepare(image, plan, label=label, case_id=case.id)
    assert prepared.label_ZYX is not None  # for the type checker: a label was passed
    restoration = prepared.restoration
    target = plan.target(restoration.axes.geometry(restoration.geometry).spacing_ZYX)
    on_prepared_grid = restoration.staying(target)
    return CaseRequest(
        prepared=PreparedInput(
            geometry=on_prepared_grid.geometry, cases=(replace(prepared, restoration=on_prepared_grid),), warnings=()
        ),
        payload=_Truth(case_id=case.id, truth_ZYX=restore_label(prepared.label_ZYX, on_prepared_grid, plan.labels)),
    )
