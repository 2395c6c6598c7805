"""A cross-validation as one HTML page: figures over folds, over cases, of each fold and of each case."""

from __future__ import annotations

from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.version import __version__
from decathlete.workflows.report import environment


def render_cross_validation(scores: CrossValidation) -> str:
    """Render the page; it lies beside the folders of the folds and links to their reports."""
    fold_of = {case: fold.fold for fold in scores.folds for case in fold.cases}
    template = environment().get_template("cross_validation.html.j2")
    return template.render(scores=scores, ranked=scores.pooled.ranked(), fold_of=fold_of, version=__version__)
