"""Options in a checkpoint of NVIDIA's recipe, and their comparison with its weights."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.network_spec import Axes

DEPTH, MIN_FMAP = 5, 4
"""The recipe's defaults: maximum number of poolings, and minimum length of a feature map, voxels."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class RecipeArgs:
    """Options of the recipe's training; ``None``: not in the checkpoint.

    Attributes:
        task: number of the task, as in the checkpoint (``"04"``).
        dim: dimensions of the network.
        norm: kind of the normalisation layers.
        negative_slope: negative slope of the leaky ReLU.
        filters: feature channels of each stage, finest first.
        residual: whether the encoder has residual blocks.
        deep_supervision: whether training had coarser outputs.
        brats: whether the outputs are the BraTS regions.
        depth: maximum number of poolings.
        min_fmap: minimum length of feature maps along a pooled axis, voxels.
        batch_size: patches per step.
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
    def from_checkpoint(cls, checkpoint: Mapping[str, Any]) -> RecipeArgs:
        """Read the options from Lightning's ``hyper_parameters``, under ``args`` or directly."""
        hyper_parameters = checkpoint.get("hyper_parameters")
        args = (
            hyper_parameters.get("args", hyper_parameters)
            if isinstance(hyper_parameters, Mapping)
            else hyper_parameters
        )
        values = vars(args) if isinstance(args, Namespace) else args
        values = values if isinstance(values, Mapping) else {}
        filters = values.get("filters")
        return cls(
            task=_get(str, values, "task"),
            dim=_get(int, values, "dim"),
            norm=_get(str, values, "norm"),
            negative_slope=_get(float, values, "negative_slope"),
            filters=_get_integers(filters) or None,
            residual=_get(bool, values, "res_block", "residual"),
            deep_supervision=_get(bool, values, "deep_supervision"),
            brats=bool(_get(bool, values, "brats")),
            depth=_get_positive(values, "depth"),
            min_fmap=_get_positive(values, "min_fmap"),
            batch_size=_get_positive(values, "batch_size"),
        )

    def find_contradictions(self, spec: UNetSpec) -> Iterator[str]:
        """List the options that contradict the network derived from the weights."""
        comparisons = {
            "dim": (self.dim, spec.dims),
            "filters": (self.filters and self.filters[: spec.n_stages], spec.features),
            "res_block": (self.residual, spec.block == "residual"),
        }
        for name, (option, actual) in comparisons.items():
            if option is not None and option != actual:
                yield f"its options have {name} {option}, its weights {actual}"
        if self.depth and spec.n_stages > self.depth + 1:
            yield f"its options have depth {self.depth}, its weights have {spec.n_stages - 1} poolings"
        if self.norm in ("instance", "group") and spec.norm == "batch":
            yield f"its options have norm {self.norm}, its weights have the statistics of batch norm"


def _get_positive(values: Mapping[str, Any], name: str) -> int | None:
    value = _get(int, values, name)
    return value if value is not None and value > 0 else None


def _get_integers(values: object) -> tuple[int, ...]:
    """Return a list of integers as a tuple, an empty tuple for anything else."""
    items = values if isinstance(values, list | tuple) else ()
    return tuple(items) if all(isinstance(item, int) for item in items) else ()


def _get(kind: type[_T], values: Mapping[str, Any], *names: str) -> _T | None:
    return next((values[name] for name in names if isinstance(values.get(name), kind)), None)


def make_recipe_topology(
    spacing: Sequence[float], patch_size: Sequence[int], *, depth: int = DEPTH, min_fmap: int = MIN_FMAP
) -> tuple[tuple[Axes, ...], tuple[Axes, ...]]:
    """Return the strides and kernels that the recipe chooses, finest first.

    An axis is halved while its spacing is at most twice the finest spacing and its feature map at least
    ``2 * min_fmap`` voxels long. Kernels are 1 along coarser axes; those of the bottleneck are 3.

    Args:
        spacing: mm.
        patch_size: voxels.
        depth: maximum number of poolings.
        min_fmap: minimum length of feature maps along a pooled axis, voxels.
    """
    spacings, lengths = [float(s) for s in spacing], [float(p) for p in patch_size]
    strides: list[Axes] = [(1,) * len(lengths)]
    kernels: list[Axes] = []
    while len(strides) <= depth:
        fine = [axis_spacing / min(spacings) <= 2 for axis_spacing in spacings]
        stride = tuple(2 if f and length >= 2 * min_fmap else 1 for f, length in zip(fine, lengths, strict=True))
        if max(stride) == 1:
            break
        kernels.append(tuple(3 if f else 1 for f in fine))
        strides.append(stride)
        lengths = [length / s for length, s in zip(lengths, stride, strict=True)]
        spacings = [axis_spacing * s for axis_spacing, s in zip(spacings, stride, strict=True)]
    return tuple(strides), (*kernels, (3,) * len(lengths))
