"""What a checkpoint of NVIDIA's recipe says about its own training, held against what its weights say."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.network_spec import Axes

DEPTH, MIN_FMAP = 5, 4
"""The recipe's defaults: poolings at most, and voxels that a feature map keeps at least."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class RecipeArgs:
    """The recipe's options, ``None`` where the checkpoint does not say.

    Attributes:
        task: its number, as it was given (``"04"``).
        depth, min_fmap: how far the network pools.
    """

    task: str | None = None
    dim: int | None = None
    norm: str | None = None
    negative_slope: float | None = None
    filters: tuple[int, ...] | None = None
    residual: bool | None = None
    deep_supervision: bool | None = None
    brats: bool = False
    depth: int | None = None
    min_fmap: int | None = None
    batch_size: int | None = None

    @classmethod
    def read(cls, checkpoint: Mapping[str, Any]) -> RecipeArgs:
        """From Lightning's ``hyper_parameters``: the recipe's options are under ``args``; they may be there plainly."""
        kept = checkpoint.get("hyper_parameters")
        given = kept.get("args", kept) if isinstance(kept, Mapping) else kept
        values = vars(given) if isinstance(given, Namespace) else given
        values = values if isinstance(values, Mapping) else {}
        filters = values.get("filters")
        return cls(
            task=_of(str, values, "task"),
            dim=_of(int, values, "dim"),
            norm=_of(str, values, "norm"),
            negative_slope=_of(float, values, "negative_slope"),
            filters=_whole_numbers(filters) or None,
            residual=_of(bool, values, "res_block", "residual"),
            deep_supervision=_of(bool, values, "deep_supervision"),
            brats=bool(_of(bool, values, "brats")),
            depth=_count(values, "depth"),
            min_fmap=_count(values, "min_fmap"),
            batch_size=_count(values, "batch_size"),
        )

    def contradictions(self, spec: UNetSpec) -> Iterator[str]:
        """What the weights' network has other than these options say."""
        said = {
            "dim": (self.dim, spec.dims),
            "filters": (self.filters and self.filters[: spec.n_stages], spec.features),
            "res_block": (self.residual, spec.block == "residual"),
        }
        for name, (told, found) in said.items():
            if told is not None and told != found:
                yield f"its options say {name} {told}, its weights {found}"
        if self.depth and spec.n_stages > self.depth + 1:
            yield f"its options say depth {self.depth}, its weights are of {spec.n_stages - 1} poolings"
        if self.norm in ("instance", "group") and spec.norm == "batch":
            yield f"its options say norm {self.norm}, its weights have the statistics of batch norm"


def _count(values: Mapping[str, Any], name: str) -> int | None:
    found = _of(int, values, name)
    return found if found is not None and found > 0 else None


def _whole_numbers(values: object) -> tuple[int, ...]:
    """Of a list; nothing of anything else."""
    listed = values if isinstance(values, list | tuple) else ()
    return tuple(listed) if all(isinstance(value, int) for value in listed) else ()


def _of(kind: type[_T], values: Mapping[str, Any], *names: str) -> _T | None:
    return next((values[name] for name in names if isinstance(values.get(name), kind)), None)


def recipe_topology(
    spacing: Sequence[float], patch_size: Sequence[int], *, depth: int = DEPTH, min_fmap: int = MIN_FMAP
) -> tuple[tuple[Axes, ...], tuple[Axes, ...]]:
    """Strides and kernels, finest first, as the recipe chooses them.

    An axis is halved while its spacing is at most twice the finest and its map at least ``2 * min_fmap`` long; kernels
    are 1 along coarser axes; the bottleneck's are 3.
    """
    gaps, edges = [float(s) for s in spacing], [float(p) for p in patch_size]
    strides: list[Axes] = [(1,) * len(edges)]
    kernels: list[Axes] = []
    while len(strides) <= depth:
        fine = [gap / min(gaps) <= 2 for gap in gaps]
        stride = tuple(2 if f and edge >= 2 * min_fmap else 1 for f, edge in zip(fine, edges, strict=True))
        if max(stride) == 1:
            break
        kernels.append(tuple(3 if f else 1 for f in fine))
        strides.append(stride)
        edges = [edge / s for edge, s in zip(edges, stride, strict=True)]
        gaps = [gap * s for gap, s in zip(gaps, stride, strict=True)]
    return tuple(strides), (*kernels, (3,) * len(edges))
