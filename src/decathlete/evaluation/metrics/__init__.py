"""Metrics: how good the prediction of one structure is. Each module is one metric, registered by its own name.

The name of a metric is its key in ``scores.json`` and its column in ``scores.csv``; it ends with the unit, if there is
one (``hd95_mm``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from decathlete.core.assignments import parse_value
from decathlete.core.registry import ComponentSettings, Registry
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.evaluation.mask_pair import MaskPair

Direction = Literal["higher", "lower"]
"""Which values of a metric are better."""
HeadlineMean = Literal["cases", "pairs"]
"""``cases``: mean over cases of the mean over the structures of a case; ``pairs``: over all pairs of the two."""
DEFAULT_METRICS = ("dice", "iou", "nsd", "hd95_mm")


class Metric(ABC):
    """Base of all metrics. A metric is made with its settings and called with the two masks of one structure.

    Attributes:
        title: for people, e.g. ``"HD95"``.
        unit: e.g. ``"mm"``; empty for a share.
        direction: whether higher or lower values are better.
        perfect: value of a prediction that equals the truth.
        limits: lowest and highest value that is possible.
        digits: decimals that tables show.
        if_one_empty: value where only the truth or only the prediction has the structure; ``None``: undefined.
        if_both_empty: value where neither has it; ``None``: undefined, and not part of any mean.
        absent_value: value where neither has it, in means of the second convention (``with_absent``); ``None``: the
            metric has no such mean.
        headline_mean: what the headline is a mean over.
        in_headline: whether the headline line, the cards of pages and tables of cases show the metric.
    """

    class Settings(ComponentSettings):
        pass

    title: ClassVar[str]
    unit: ClassVar[str] = ""
    direction: ClassVar[Direction] = "higher"
    perfect: ClassVar[float] = 1.0
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    digits: ClassVar[int] = 3
    if_one_empty: ClassVar[float | None] = None
    if_both_empty: ClassVar[float | None] = None
    absent_value: ClassVar[float | None] = None
    headline_mean: ClassVar[HeadlineMean] = "cases"
    in_headline: ClassVar[bool] = True

    def __init__(self, settings: ComponentSettings) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        """The registered name."""
        return self.settings.component

    @property
    def long_title(self) -> str:
        """The title with the settings that a reader has to know."""
        return self.title

    @abstractmethod
    def __call__(self, pair: MaskPair) -> float | None:
        """Return the value for two masks that have at least one voxel each; ``None``: it is undefined."""

    def score(self, pair: MaskPair) -> float | None:
        """Return the value for any two masks; an empty mask gives the declared value."""
        n_empty = (not pair.overlap.n_prediction) + (not pair.overlap.n_truth)
        if n_empty:
            return self.if_both_empty if n_empty == 2 else self.if_one_empty
        value = self(pair)
        return None if value is None else float(value)


MetricChoice = str | Mapping[str, Any] | ComponentSettings | Metric
"""A metric as users choose it: name, ``module:Class``, ``{"name": ..., **settings}``, its settings, or itself."""

METRICS: Registry[Metric] = Registry("metric", package=__name__)


def make_metrics(
    metrics: Sequence[MetricChoice] | None = None,
    *,
    tolerance_mm: float | None = None,
    settings: Iterable[str] = (),
) -> tuple[Metric, ...]:
    """Make the chosen metrics, in the order in which tables show them.

    Args:
        metrics: ``None``: Dice, IoU, NSD and HD95.
        tolerance_mm: short form of ``nsd.tolerance_mm``; ``None``: the metric's own setting.
        settings: assignments ``METRIC.SETTING=VALUE``.

    Raises:
        OptionError: no metric, an unknown one, one twice, or settings that a metric does not have or allow.
    """
    given = [_config(choice) for choice in (DEFAULT_METRICS if metrics is None else metrics)]
    by_name = {config.get("name"): config for config in given}
    if not given or len(by_name) < len(given):
        raise OptionError(
            "a metric is chosen twice" if given else "no metric is chosen",
            remedy=f"choose among {', '.join(METRICS.names())}, each once",
        )
    assigned = [_assignment(text) for text in settings]
    if tolerance_mm is not None:
        assigned.append(("nsd", "tolerance_mm", tolerance_mm))
    for name, setting, value in assigned:
        if name not in by_name:
            raise OptionError(
                f"{name}.{setting} has no effect: the metric {name} is not chosen",
                remedy=f"add {name} to the metrics, or leave out its settings",
            )
        by_name[name][setting] = value
    return tuple(METRICS.build(METRICS.settings(config)) for config in given)


def _config(choice: MetricChoice) -> dict[str, Any]:
    """Return a choice as name and settings; a ``module:Class`` is imported."""
    if isinstance(choice, Metric):
        choice = choice.settings
    if isinstance(choice, ComponentSettings):
        return choice.to_config()
    config = {"name": choice} if isinstance(choice, str) else dict(choice)
    if isinstance(config.get("name"), str):
        config["name"] = METRICS.load(config["name"]).name
    return config


def _assignment(text: str) -> tuple[str, str, Any]:
    name, separator, value = text.partition("=")
    metric, dot, setting = name.strip().replace("-", "_").partition(".")
    if not (separator and dot and setting and value.strip()):
        raise OptionError(f"--set {text} is not METRIC.SETTING=VALUE", remedy="write e.g. --set nsd.tolerance_mm=2")
    return metric, setting, parse_value(value.strip())
