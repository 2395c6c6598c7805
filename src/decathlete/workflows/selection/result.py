"""The result of a selection, and how a finished one is found in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from decathlete.errors import DecathleteError, OutputError
from decathlete.evaluation.scores import Scores
from decathlete.models.bundle import ModelBundle
from decathlete.workflows.report import write_selection_page
from decathlete.workflows.selection.record import SELECTION, Selection
from decathlete.workflows.selection.summary import summarize
from decathlete.workflows.selection.validation import MODEL


@dataclass(frozen=True, kw_only=True)
class SelectResult:
    """The result of a selection.

    Attributes:
        folder: contains ``model``, ``selection.json``, ``selection.html``, ``scores.json`` and ``validation``.
        model: the model, for ``predict``, ``validate`` and ``export``.
        scores: scores of the held-out cases with post-processing, on their original grids.
        selection: comparison and decisions.
        report: ``selection.html``.
    """

    folder: Path
    model: Path
    scores: Scores
    selection: Selection
    report: Path

    def summary(self) -> str:
        """Return the comparison as a table, and the decisions in words."""
        return summarize(self.selection)


def load_existing(folder: Path, key: str, *, overwrite: bool) -> SelectResult | None:
    """Return the finished selection of the same models, options and cases in ``folder``.

    Raises:
        OutputError: it contains another selection, and ``overwrite`` is not set.
    """
    if not (folder / SELECTION).exists():
        return None
    difference = "a selection of other models, options or cases, or of an earlier version"
    try:
        selection = Selection.load(folder / SELECTION)
    except DecathleteError as problem:
        difference = f"a damaged selection ({problem.problem})"
    else:
        if selection.key == key:
            return _finished(folder, selection)
    if overwrite:
        return None
    raise OutputError(
        f"contains {difference}",
        where=folder,
        remedy="use --overwrite to replace it, or choose another --output",
        code="E-OUTPUT-EXISTS",
    )


def _finished(folder: Path, selection: Selection) -> SelectResult | None:
    """Return a selection whose files are all there; ``None``: it was stopped before its end, or a file is damaged.

    A command that was stopped while it replaced the selection has left files of two models.
    """
    try:
        model = ModelBundle.load(folder / MODEL)
        scores = Scores.load(folder / "scores.json")
    except DecathleteError:
        return None
    is_of_model = scores.origin is not None and set(scores.origin.models) == {model.digest}
    return make_result(folder, selection, scores) if is_of_model else None


def make_result(folder: Path, selection: Selection, scores: Scores) -> SelectResult:
    """Write the page of a selection, and return its result."""
    page = write_selection_page(folder)
    return SelectResult(folder=folder, model=folder / MODEL, scores=scores, selection=selection, report=page)
