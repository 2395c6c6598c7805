"""Metrics as scores record them: names, settings, and how their values are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import JsonValue

from decathlete.core.geometry import PIXEL, Unit
from decathlete.core.schema import Schema
from decathlete.evaluation.metrics import Direction, HeadlineMean, Metric

UNLEARNED_DICE = 0.1
"""Mean Dice of a structure below which a training has not learned it."""


class MetricInfo(Schema):
    """A metric as it was used, so that scores can be shown where the metric is not installed.

    Attributes:
        name: registered name: key and column of its values.
        title, long_title, unit, direction, digits: of the metric.
        if_one_empty, absent_value, headline_mean, in_headline: of the metric.
        is_share: whether values lie between 0 and 1, so that a bar can show them.
        settings: of the component.
    """

    name: str
    title: str
    long_title: str
    unit: str
    direction: Direction
    is_share: bool
    digits: int
    if_one_empty: float | None
    absent_value: float | None
    headline_mean: HeadlineMean
    in_headline: bool
    settings: dict[str, JsonValue]

    @classmethod
    def of(cls, metric: Metric) -> Self:
        """Describe a metric."""
        return cls(
            name=metric.name,
            title=metric.title,
            long_title=metric.long_title,
            unit=metric.unit,
            direction=metric.direction,
            is_share=metric.limits == (0.0, 1.0),
            digits=metric.digits,
            if_one_empty=metric.if_one_empty,
            absent_value=metric.absent_value,
            headline_mean=metric.headline_mean,
            in_headline=metric.in_headline,
            settings=metric.settings.model_dump(mode="json"),
        )

    def in_unit(self, unit: Unit) -> Self:
        """Return the metric as it is shown where lengths are in ``unit``, although its names say mm.

        >>> from decathlete.evaluation.metrics import make_metrics
        >>> print(*(MetricInfo.of(metric).in_unit("pixel").heading for metric in make_metrics()), sep=", ")
        Dice, IoU, NSD, HD95 px
        """
        if unit != PIXEL:
            return self
        return self.revised(
            unit="px" if self.unit == "mm" else self.unit,
            title=self.title.replace(" mm", " px"),
            long_title=self.long_title.replace(" mm", " px"),
        )

    @property
    def heading(self) -> str:
        """Title and unit, for the head of a table.

        >>> from decathlete.evaluation.metrics import make_metrics
        >>> print(*(MetricInfo.of(metric).heading for metric in make_metrics()), sep=", ")
        Dice, IoU, NSD, HD95 mm
        """
        return f"{self.title} {self.unit}".rstrip()

    @property
    def identity(self) -> tuple[str, dict[str, JsonValue]]:
        """Name and settings: equal for the same metric."""
        return self.name, self.settings

    def format(self, value: float | None, *, undefined: str = "undefined") -> str:
        """Return a value with the metric's decimals, without its unit."""
        return undefined if value is None else f"{value:.{self.digits}f}"

    def describe(self) -> str:
        """Return name and settings in words, for messages.

        >>> from decathlete.evaluation.metrics import make_metrics
        >>> print(*(MetricInfo.of(metric).describe() for metric in make_metrics(["dice", "nsd"])), sep=", ")
        dice, nsd (tolerance_mm 1)
        """
        settings = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.settings.items())
        return f"{self.name} ({settings})" if settings else self.name


def main_metric(metrics: Sequence[MetricInfo]) -> MetricInfo:
    """Return Dice, or the first metric where there is no Dice."""
    return next((m for m in metrics if m.name == "dice"), metrics[0])


def headline_metrics(metrics: Sequence[MetricInfo]) -> tuple[MetricInfo, ...]:
    """Return the main metric, then all others that a headline shows."""
    main = main_metric(metrics)
    return (main, *(m for m in metrics if m.in_headline and m is not main))


def metric_differences(first: Sequence[MetricInfo], second: Sequence[MetricInfo]) -> list[str]:
    """List the metrics that only one of two sequences has, in words; the order has no effect."""
    before, after = ([m.identity for m in metrics] for metrics in (first, second))
    return [m.describe() for m in first if m.identity not in after] + [
        f"no {m.describe()}" for m in second if m.identity not in before and m.name not in {f.name for f in first}
    ]
