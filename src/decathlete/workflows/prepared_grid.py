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
from decathlete.inference.batching.case_predictor import CasePredictor
from decathlete.inference.batching.shared_batches import CaseRequest, CaseResult
from decathlete.inference.output.restore import restore_label
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import PreparedInput
from decathlete.io.images import read_channels, read_grid, read_label
from decathlete.preprocessing.prepare import prepare

LabelZYX = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """True label map of a case on its prepared grid, with the values of the file."""

    case_id: str
    truth_ZYX: LabelZYX
    unannotated: tuple[int, ...] = ()


def score_on_prepared_grid(
    predictor: CasePredictor,
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
    labelled = {case.id: case for case in cases if case.label is not None}
    if not labelled:
        raise DatasetError("no case has a label map", remedy="use cases with label maps")

    case_scores, failures = [], {}
    for outcome in predictor.run(labelled, read=_read, write=partial(_score, metrics=metrics)):
        if outcome.value is None:
            failures[outcome.case_id] = outcome.error or "failed"
        else:
            case_scores.append(outcome.value)
        if progress is not None:
            progress(len(case_scores) + len(failures), len(labelled), outcome.case_id)
    if failures:
        raise CasesFailedError(failures, n_done=len(case_scores), doing="score")
    first = next(iter(labelled.values()))
    _, grid = read_grid(first.images[0], spacing=first.spacing, formats=first.formats)
    return Scores.of(case_scores, metrics, unit=grid.unit).revised(grid="prepared")


def _score(predictor: Predictor, predicted: CaseResult[_Truth], *, metrics: Sequence[Metric]) -> CaseScores:
    truth, prediction = predicted
    return score_case(
        prediction.label_ZYX,
        truth.truth_ZYX,
        prediction.geometry,
        predictor.labels,
        metrics=metrics,
        unannotated=truth.unannotated,
        case_id=truth.case_id,
    )


def _read(predictor: Predictor, case: Case) -> CaseRequest[_Truth]:
    """Read and prepare a case. Its prediction stays on the prepared grid."""
    (ensemble,) = predictor.ensembles
    plan = ensemble.plan
    assert case.label is not None  # for the type checker: only labelled cases are read
    image = read_channels(case.images, spacing=case.spacing, formats=case.formats, n_channels=len(plan.channels))
    label = read_label(case.label, spacing=case.spacing, formats=case.formats, structures=case.structures)
    prepared = prepare(image, plan, label=label, case_id=case.id)
    assert prepared.label_ZYX is not None  # for the type checker: a label was passed
    restoration = prepared.restoration
    target = plan.target(restoration.axes.geometry(restoration.geometry).spacing_ZYX)
    on_prepared_grid = restoration.staying(target)
    return CaseRequest(
        prepared=PreparedInput(
            geometry=on_prepared_grid.geometry,
            cases=(replace(prepared, restoration=on_prepared_grid),),
            warnings=(),
            previous=predictor.prepare_previous(image, [prepared], case_id=case.id),
        ),
        payload=_Truth(
            case_id=case.id,
            truth_ZYX=restore_label(prepared.label_ZYX, on_prepared_grid, plan.labels),
            unannotated=case.unannotated,
        ),
    )
