"""Options of the metrics of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli.option_values import parse_names

if TYPE_CHECKING:
    from decathlete.evaluation.metrics import Metric

Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="NAMES",
        show_default="dice,iou,nsd,hd95_mm",
        help="Metrics, separated by commas: names (`decathlete components metric` lists them) or module:Class.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="MM",
        min=0.001,
        show_default="1",
        help="Tolerance of the normalised surface Dice, mm; the same as nsd.tolerance_mm.",
    ),
]


def parse_metrics(
    names: str | None, *, tolerance_mm: float | None = None, settings: Sequence[str] | None = None
) -> tuple[Metric, ...] | None:
    """Make the metrics of ``--metrics``, ``--tolerance`` and ``--set``; ``None`` if none of them is set.

    Raises:
        OptionError: metrics or their settings are unknown or not allowed.
    """
    if names is None and tolerance_mm is None and not settings:
        return None
    from decathlete.evaluation.metrics import make_metrics

    listed = None if names is None else parse_names(names)
    return make_metrics(listed, tolerance_mm=tolerance_mm, settings=settings or ())
