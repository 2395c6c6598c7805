"""What grows, and how far: sizes of made-up data along one axis, all else kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

COMMANDS = ("check", "preprocess", "predict")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Made-up data of one size.

    Attributes:
        classes: with the background.
        patch: of the model that predicts, voxels.
    """

    cases: int
    shape_ZYX: tuple[int, int, int]
    classes: int
    patch: tuple[int, int, int]

    @property
    def voxels(self) -> int:
        """Of one image."""
        return prod(self.shape_ZYX)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A series of sizes that differ in one thing.

    Attributes:
        unit: what a size is counted in.
        amount: how much of it a size has.
        small: for tests.
        memory_per_unit: bytes by which the peak may grow with each unit, from ``memory_from`` units on; ``None``: it is
            measured and not judged.
    """

    name: str
    unit: str
    amount: Callable[[Size], int]
    full: tuple[Size, ...]
    small: tuple[Size, ...]
    memory_per_unit: int | None = None
    memory_from: int = 0


TINY = Size(cases=10, shape_ZYX=(8, 8, 8), classes=3, patch=(8, 8, 8))
"""Cases that cost next to nothing: what is left is what each case costs by being one."""
SCAN = Size(cases=1, shape_ZYX=(64, 64, 64), classes=3, patch=(64, 64, 64))

AXES = {
    axis.name: axis
    for axis in (
        Axis(
            name="cases",
            unit="case",
            amount=lambda size: size.cases,
            full=tuple(replace(TINY, cases=n) for n in (10, 100, 1_000, 10_000)),
            small=tuple(replace(TINY, cases=n) for n in (5, 10, 20)),
            memory_per_unit=5_000,
            memory_from=100,
        ),
        Axis(
            name="voxels",
            unit="voxel",
            amount=lambda size: size.voxels,
            full=tuple(
                replace(SCAN, shape_ZYX=shape)
                for shape in (
                    (64, 64, 64),
                    (125, 128, 128),
                    (250, 256, 256),
                    (100, 512, 512),
                    (400, 512, 512),
                    (1000, 512, 512),
                )
            ),
            small=tuple(replace(SCAN, shape_ZYX=(n, 32, 32), patch=(16, 16, 16)) for n in (16, 32, 64)),
        ),
        Axis(
            name="classes",
            unit="class",
            amount=lambda size: size.classes,
            full=tuple(
                replace(SCAN, shape_ZYX=(128, 128, 128), patch=(32, 32, 32), classes=k) for k in (2, 8, 30, 60, 117)
            ),
            small=tuple(replace(SCAN, shape_ZYX=(24, 24, 24), patch=(16, 16, 16), classes=k) for k in (2, 10, 20)),
        ),
    )
}
