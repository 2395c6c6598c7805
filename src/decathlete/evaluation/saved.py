"""Write scores into a folder; other scores there are replaced only on request."""

from __future__ import annotations

from pathlib import Path

from decathlete.errors import DecathleteError, OutputError
from decathlete.evaluation.scores import Scores

SCORES = "scores.json"


def save_scores(scores: Scores, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``scores.json`` and ``scores.csv`` into ``folder``.

    Raises:
        OutputError: it holds other scores, and ``overwrite`` is not given.
    """
    path = folder / SCORES
    if path.exists() and not overwrite and not _equal(path, scores):
        raise OutputError(
            "contains other scores",
            where=path,
            remedy="choose another folder, or use --overwrite to replace them",
            code="E-OUTPUT-EXISTS",
        )
    scores.save_files(folder)


def _equal(path: Path, scores: Scores) -> bool:
    try:
        return Scores.load(path) == scores
    except DecathleteError:
        return False
