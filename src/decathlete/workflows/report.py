"""The report of a run: one self-contained HTML page, for people. It needs no network and holds no patient's name."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from decathlete.core.files import write_text
from decathlete.workflows.report_data import read_run
from decathlete.workflows.report_page import Page, make_page


def make_report(model: Path | str, *, dataset_root: Path | None = None) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    Args:
        model: the run's folder, or the model folder in it.
        dataset_root: of the raw images, if they moved since training.

    Raises:
        ModelError: ``model`` is not a run's. What else is missing is left out, with a note on the page.
        OutputError: the page cannot be written.
    """
    run_folder = Path(model)
    if not (run_folder / "run.json").is_file() and (run_folder.parent / "run.json").is_file():
        run_folder = run_folder.parent
    run = read_run(run_folder, dataset_root=dataset_root)
    path = run_folder / "report.html"
    write_text(path, render(make_page(run)))
    return path


def render(page: Page) -> str:
    """The page as HTML."""
    return environment().get_template("report.html.j2").render(page=page)


def environment() -> Environment:
    """Where templates come from, and the filters they write figures with."""
    found = Environment(
        loader=PackageLoader("decathlete.workflows", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["figure"] = figure
    found.filters["volume"] = volume
    return found


def figure(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"


def volume(millilitres: float) -> str:
    """A volume for a table: three figures that count, never in powers of ten."""
    return f"{millilitres:.0f}" if millilitres >= 100 else f"{millilitres:.3g}"
