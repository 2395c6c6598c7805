"""Writes reports as self-contained HTML pages. They need no network connection and contain no patient names."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from decathlete.core.durations import format_duration
from decathlete.core.files import write_text
from decathlete.core.output_paths import check_output_path
from decathlete.errors import ModelError, printable
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.evaluation.scores import Scores
from decathlete.version import __version__
from decathlete.workflows.report_data import read_run
from decathlete.workflows.report_page import make_page
from decathlete.workflows.selection.postprocessing import describe_step
from decathlete.workflows.selection.record import SELECTION, Selection
from decathlete.workflows.selection.summary import describe_time


def report(model: Path | str, *, dataset_root: Path | None = None) -> Path:
    """Write ``report.html`` to the folder of a run and return its path; of a selection, ``selection.html``.

    If other files than ``run.json`` are missing, the page says so and leaves out what depends on them.

    Args:
        model: folder of the run or the selection, or the model folder in it.
        dataset_root: folder of the raw dataset, if it has moved since training.

    Raises:
        ModelError: ``model`` is not part of a run or a selection.
        OutputError: the page cannot be written.
    """
    run_folder = Path(model)
    for folder in (run_folder, run_folder.parent):
        if (folder / SELECTION).is_file():
            return write_selection_page(folder)
    if not (run_folder / "run.json").is_file() and (run_folder.parent / "run.json").is_file():
        run_folder = run_folder.parent
    check_output_path(run_folder / "report.html")
    run = read_run(run_folder, dataset_root=dataset_root)
    path = run_folder / "report.html"
    write_text(path, _render("report.html.j2", page=make_page(run)))
    return path


def render_cross_validation(scores: CrossValidation) -> str:
    """Render a cross-validation as HTML: scores over folds and over cases, of each fold and of each case.

    The page links to the reports of the folds by paths relative to the folder of the cross-validation.
    """
    fold_of = {case: fold.fold for fold in scores.folds for case in fold.cases}
    ranked = scores.pooled.ranked()
    return _render("cross_validation.html.j2", scores=scores, ranked=ranked, fold_of=fold_of, version=__version__)


def write_selection_page(folder: Path) -> Path:
    """Write ``selection.html`` to the folder of a selection and return its path.

    Raises:
        ModelError: the selection or its scores are damaged.
        OutputError: the page cannot be written.
    """
    selection = Selection.load(folder / SELECTION, error=ModelError)
    scores = Scores.load(folder / "scores.json", error=ModelError, remedy="run `decathlete validate` again")
    path = check_output_path(folder / "selection.html")
    write_text(path, render_selection(selection, scores))
    return path


def render_selection(selection: Selection, scores: Scores) -> str:
    """Render a selection as HTML: the comparison and its reason, post-processing, and the scores of the model.

    Args:
        scores: of the held-out cases, predicted by the selected model with its post-processing.
    """
    return _render(
        "selection.html.j2",
        selection=selection,
        best=selection.selected_candidate,
        time=describe_time(selection.selected_candidate, selection.device),
        describe_step=describe_step,
        format_duration=format_duration,
        scores=scores,
        version=__version__,
    )


def _render(template: str, **content: object) -> str:
    """Render a page. Control characters are not allowed in HTML, not even as entities."""
    return printable(_environment().get_template(template).render(**content))


def _environment() -> Environment:
    """Return the environment of the templates, with filters that format numbers."""
    environment = Environment(
        loader=PackageLoader("decathlete.workflows", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _format_figure
    environment.filters["size_in"] = _format_size
    return environment


def _format_figure(value: float | None, digits: int = 3) -> str:
    """Format a number for a table; an undefined number is a dash."""
    return "–" if value is None else f"{value:z.{digits}f}"


def _format_size(size: float, scores: Scores) -> str:
    """Format the size of a structure for a table: whole pixels, or mL with three digits, without an exponent."""
    return f"{size:.0f}" if scores.is_in_pixels or size >= 100 else f"{size:.3g}"
