"""A cross-validation as one HTML page: figures over folds and over cases, each fold, each case."""

from __future__ import annotations

from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.scores import CaseScores
from decathlete.version import __version__
from decathlete.workflows.report import environment


def render_cross_validation(scores: CrossValidation) -> str:
    """The page; it stands beside the folds' folders and links to their reports."""
    fold_of = {case: fold.fold for fold in scores.folds for case in fold.cases}
    template = environment().get_template("cross_validation.html.j2")
    return template.render(scores=scores, ranked=_ranked(scores), fold_of=fold_of, version=__version__)


def _ranked(scores: CrossValidation) -> list[CaseScores]:
    """All cases, the lowest Dice first; those without foreground last."""
    return sorted(scores.pooled.cases, key=lambda c: (c.dice is None, c.dice or 0.0, c.case_id))
