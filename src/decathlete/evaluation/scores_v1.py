"""Converts scores and cross-validations from version 1 to version 2.

Version 1 had the fields ``dice``, ``iou``, ``nsd`` and ``hd95_mm`` wherever version 2 has a mapping ``values``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from decathlete.errors import OptionError
from decathlete.evaluation.metric_info import MetricInfo
from decathlete.evaluation.metrics import make_metrics

_METRICS = ("dice", "iou", "nsd", "hd95_mm")
_WITH_ABSENT = ("dice", "nsd")
_SUFFIX = "_absent_as_one"


def upgrade_scores(data: Any) -> Any:
    """Upgrade a :class:`~decathlete.evaluation.scores.Scores` of version 1; return everything else as it is."""
    return _upgrade(_scores, data) if _has_version_1(data) and "tolerance_mm" in data else data


def upgrade_cross_validation(data: Any) -> Any:
    """Upgrade a cross-validation of version 1; return everything else as it is. Pooled scores upgrade themselves."""
    is_version_1 = _has_version_1(data) and isinstance(data.get("overall"), Mapping)
    return _upgrade(_cross_validation, data) if is_version_1 else data


def _has_version_1(data: Any) -> bool:
    """Return whether data have version 1, or none: then another key distinguishes them from a program's fields."""
    return isinstance(data, Mapping) and data.get("version", 1) == 1


def _upgrade(upgrade: Callable[[Mapping[str, Any]], Any], data: Mapping[str, Any]) -> Any:
    try:
        return upgrade(data)
    except (AttributeError, KeyError, TypeError, OptionError) as problem:
        raise ValueError(f"damaged file of version 1 ({problem})") from None


def _scores(data: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in data.items() if key != "tolerance_mm"}
    metrics = make_metrics(_METRICS, tolerance_mm=data["tolerance_mm"])
    return rest | {
        "version": 2,
        "metrics": [MetricInfo.of(metric) for metric in metrics],
        "headline": _headline(data["headline"]),
        "classes": _each(_with_absent, data["classes"]),
        "cases": _each(_case, data["cases"]),
    }


def _cross_validation(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **data,
        "version": 2,
        "folds": _each(_fold, data["folds"]),
        "overall": _values(data["overall"]),
        "classes": _each(_values, data["classes"]),
    }


def _each(upgrade: Callable[[Mapping[str, Any]], Any], items: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [upgrade(item) for item in items]


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in data.items() if key not in _METRICS}
    return rest | {"values": {name: data[name] for name in _METRICS}}


def _with_absent(data: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in _values(data).items() if not key.endswith(_SUFFIX)}
    return rest | {"with_absent": {name: data[f"{name}{_SUFFIX}"] for name in _WITH_ABSENT}}


def _headline(data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a headline; only HD95 could be undefined where a side has the class."""
    rest = {key: value for key, value in _with_absent(data).items() if key != "n_hd95_undefined"}
    return rest | {"n_undefined": dict.fromkeys(_METRICS, 0) | {"hd95_mm": data["n_hd95_undefined"]}}


def _case(data: Mapping[str, Any]) -> dict[str, Any]:
    return _values(data) | {"classes": _each(_values, data["classes"])}


def _fold(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, "overall": _values(data["overall"]), "classes": _each(_values, data["classes"])}
