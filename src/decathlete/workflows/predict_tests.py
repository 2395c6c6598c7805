"""Predict the test images of a dataset with the models of its runs, beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decathlete.core.geometry import Triple
from decathlete.core.parallel import Workers
from decathlete.core.progress import CaseProgress
from decathlete.dataset.spec import Case
from decathlete.errors import CasesFailedError, OutputError
from decathlete.inference.batching.case_predictor import make_case_predictor
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.files import find_foreign_files, make_jobs
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.predict_files import predict_files

_LISTED = 5


def check_predictions(cases: Sequence[Case], output: Path) -> None:
    """Check that all predictions in a folder may be replaced, before models are trained that replace them.

    Raises:
        OutputError: a label map was changed after it was predicted, or a file is no prediction.
    """
    jobs = make_jobs({case.id: case.images for case in cases}, output, save_probabilities=False)
    if foreign := [path.name for job in jobs.values() for path in find_foreign_files(job)]:
        more = f" and {len(foreign) - _LISTED} more" if len(foreign) > _LISTED else ""
        raise OutputError(
            "contains files that were changed after their prediction, or are no predictions: "
            f"{', '.join(foreign[:_LISTED])}{more}",
            where=output,
            remedy="move them to another folder, since the test images will be predicted here",
            code="E-OUTPUT-EXISTS",
        )


def predict_tests(
    cases: Sequence[Case],
    models: Sequence[Path],
    output: Path,
    *,
    options: PredictOptions,
    workers: Workers,
    spacing: Triple | None,
    image_formats: Mapping[str, Mapping[str, Any]] | None,
    progress: CaseProgress | None,
) -> CasesFailedError | None:
    """Predict test images; return the error that lists those that failed, if any.

    Predictions by other models or settings are replaced: they follow from the models (:func:`check_predictions`).

    Args:
        models: folders of models, whose predictions are averaged.
        spacing, image_formats: see :func:`~decathlete.workflows.preprocess.preprocess`.
    """
    try:
        predict_files(
            make_case_predictor(list(models), options, workers),
            {case.id: case.images for case in cases},
            output,
            spacing=spacing,
            kind=OutputKind(image_formats=image_formats or {}),
            overwrite=True,
            progress=progress,
        )
    except CasesFailedError as problem:
        return problem
    return None
