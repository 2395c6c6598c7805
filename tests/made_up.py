"""Fingerprints and datasets made up for planning tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decathlete.core.labels import LabelSet
from decathlete.dataset.spec import DatasetSpec
from decathlete.planning.fingerprint import CaseFingerprint, Fingerprint, IntensityStatistics
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.planning.planner import make_plan

STATISTICS = IntensityStatistics(
    mean=50, std=20, median=48, minimum=-300, maximum=900, percentile_00_5=-120, percentile_99_5=160
)


def made_up_spec(channels: tuple[str, ...] = ("MRI",), *, n_foreground: int = 2) -> DatasetSpec:
    labels = LabelSet.from_names([f"c{i + 1}" for i in range(n_foreground)])
    return DatasetSpec(name="Made", root=Path("made"), layout="decathlon", channels=channels, labels=labels, cases=())


def made_up_fingerprint(
    shapes: Sequence[Sequence[int]],
    spacings: Sequence[Sequence[float]],
    *,
    n_channels: int = 1,
    crop_ratio: float = 1.0,
    orientation: str = "canonical",
) -> Fingerprint:
    cases = [
        CaseFingerprint(
            case_id=f"case{i}",
            shape=tuple(shape),
            spacing=tuple(spacing),
            crop_ratio=crop_ratio,
            class_voxels=(100, 10, 10),
            channel_means=(float(i),) * n_channels,
        )
        for i, (shape, spacing) in enumerate(zip(shapes, spacings, strict=True))
    ]
    return Fingerprint(
        dataset_digest="made up", orientation=orientation, cases=tuple(cases), intensity=(STATISTICS,) * n_channels
    )


def made_up_plan(
    dims: int = 3, *, shape: Sequence[int] = (36, 50, 35), spacing: Sequence[float] = (1, 1, 1), **options: Any
) -> Plan:
    """Of 200 like images; by default much like the hippocampus."""
    fingerprint = made_up_fingerprint([shape] * 200, [spacing] * 200)
    return make_plan(made_up_spec(), fingerprint, dims=dims, options=PlanOptions(**options))
