"""MedNeXt: how it is planned, what it costs, how it is built."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from decathlete.core.choices import NetworkName
from decathlete.errors import PlanError
from decathlete.networks import mednext_cost
from decathlete.networks.encoder_decoder import EncoderDecoderArchitecture
from decathlete.networks.mednext_spec import MedNeXtSize, MedNeXtSpec
from decathlete.planning.architectures import ARCHITECTURES, PlanRow
from decathlete.planning.network_presets import NetworkPreset
from decathlete.planning.network_spec import Axes, Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import MIN_EDGE, Pooling, Topology

if TYPE_CHECKING:
    from torch import nn

BASE_FEATURES = 32
"""Channels at full resolution."""
MOST_STAGES = 5
"""Resolutions, the bottleneck included."""
BLOCKS: dict[MedNeXtSize, tuple[int, ...]] = {
    "S": (2, 2, 2, 2, 2),
    "B": (2, 2, 2, 2, 2),
    "M": (3, 4, 4, 4, 4),
    "L": (3, 4, 8, 8, 8),
}
"""Blocks of each resolution, finest first; the same in encoder and decoder (Roy et al. 2023, table 1)."""
EXPANSIONS: dict[MedNeXtSize, tuple[int, ...]] = {
    "S": (2, 2, 2, 2, 2),
    "B": (2, 3, 4, 4, 4),
    "M": (2, 3, 4, 4, 4),
    "L": (3, 4, 8, 8, 8),
}
"""Expansion of each resolution, finest first (the same table)."""
PRESETS: dict[NetworkName, NetworkPreset] = {
    "mednext-s": NetworkPreset(fields={"size": "S"}),
    "mednext-b": NetworkPreset(fields={"size": "B"}),
    "mednext-m": NetworkPreset(fields={"size": "M"}),
    "mednext-l": NetworkPreset(fields={"size": "L"}),
}


@ARCHITECTURES.register("mednext")
class MedNeXtArchitecture(EncoderDecoderArchitecture[MedNeXtSpec]):
    """MedNeXt with kernels of 3 (Roy et al., MICCAI 2023), in four sizes."""

    Settings = MedNeXtSpec
    used_options = MappingProxyType(
        {"depth": "strides", "min_fmap": "strides", "heads": "heads", "deep_supervision": "heads"}
    )
    presets = PRESETS
    topology_fields = (
        "strides",
        "kernels",
        "features",
        "encoder_blocks",
        "decoder_blocks",
        "encoder_expansion",
        "decoder_expansion",
    )

    @classmethod
    def plan_spec(cls, topology: Topology, *, in_channels: int, out_channels: int, options: PlanOptions) -> MedNeXtSpec:
        """Return the specification for a topology, of the size that ``options.network`` names.

        Raises:
            PlanError: nothing can be pooled.
        """
        size: MedNeXtSize = "S" if options.network is None else cls.presets[options.network].fields["size"]
        spec = plan_mednext(topology, in_channels=in_channels, out_channels=out_channels, size=size)
        return _with_options(spec, options)

    def build(self) -> nn.Module:
        """Return the network with the weights that torch's layers draw."""
        from decathlete.networks.mednext import MedNeXt

        return MedNeXt(self.spec)

    def multiply_adds(self, patch_size: Axes) -> int:
        """Multiply-adds of all convolutions in one forward pass of one sample, supervision heads included."""
        return mednext_cost.multiply_adds(self.spec, patch_size)

    def feature_map_elements(self, patch_size: Axes) -> int:
        """Elements of all convolutions' outputs for one sample, the coarser supervision heads excluded."""
        return mednext_cost.feature_map_elements(self.spec, patch_size)

    def with_width(self, width: int, *, finest_only: bool = False) -> MedNeXtSpec:
        """Return the specification with ``width`` channels at full resolution, the others following unless excluded."""
        if finest_only:
            return self.spec.with_finest(width)
        return self.spec.revised(features=_features(width, self.spec.n_stages))

    @classmethod
    def pooling(cls, options: PlanOptions | None) -> Pooling:
        """Pool at most four times, and at most ``depth`` times."""
        if options is None:
            return Pooling(most_stages=MOST_STAGES)
        depth = MOST_STAGES if options.depth is None else options.depth + 1
        return Pooling(min_edge=options.min_fmap, most_stages=min(MOST_STAGES, depth))

    def replanned(self, topology: Topology, options: PlanOptions | None = None) -> MedNeXtSpec:
        """Return a MedNeXt of the same size for another topology, as wide as before, also at full resolution."""
        old = self.spec
        same = topology.strides == old.strides and topology.kernels == old.kernels
        spec = old if same else self._rebuild(topology)
        return spec if options is None else _with_options(spec, options)

    def _rebuild(self, topology: Topology) -> MedNeXtSpec:
        old = self.spec
        spec = plan_mednext(
            topology, in_channels=old.in_channels, out_channels=old.out_channels, size=old.size, width=old.base_features
        ).with_finest(self.width)
        if old.heads == old.n_stages - 1:
            return spec
        return spec.revised(heads=min(old.heads, spec.n_stages - 1))

    def rows(self) -> list[PlanRow]:
        """Return size, strides and channels for the printed plan."""
        spec = self.spec
        pooled = " ".join("".join(map(str, stride)) for stride in spec.strides[1:])
        blocks = ", ".join(map(str, spec.encoder_blocks))
        expansion = ", ".join(map(str, spec.encoder_expansion))
        return [
            ("network", f"MedNeXt {spec.size}, {spec.n_stages} levels, strides {pooled}", ("network.strides",)),
            ("blocks", f"{blocks}; expansion {expansion}", ("network.encoder_blocks",)),
            ("width", ", ".join(map(str, spec.features)), ("network.features",)),
        ]

    def reasons(self, patch_size: Axes) -> dict[str, str]:
        """Return the reasons for strides, blocks, features and heads."""
        edges = [size // divisor for size, divisor in zip(patch_size, self.spec.divisor, strict=True)]
        coarsest = " × ".join(map(str, edges))
        return {
            "network.strides": (
                f"axes are halved, at most {MOST_STAGES - 1} times, while their spacing is within twice the finest and "
                f"maps stay at least {MIN_EDGE} long: the coarsest map is {coarsest}"
            ),
            "network.encoder_blocks": f"those of MedNeXt {self.spec.size}; the decoder has as many",
            "network.features": f"{self.width} doubling at each level",
            "network.heads": "each decoder output is compared with the truth"
            if self.spec.heads > 1
            else "only the full resolution is trained on",
        }


def plan_mednext(
    topology: Topology, *, in_channels: int, out_channels: int, size: MedNeXtSize = "S", width: int = BASE_FEATURES
) -> MedNeXtSpec:
    """Return a MedNeXt for a topology. With fewer than five resolutions, the coarsest of the table are left out.

    Raises:
        PlanError: the topology has a single resolution.
    """
    n = len(topology.strides)
    if n < 2:
        raise PlanError(
            f"a patch of {'×'.join(map(str, topology.patch_size))} voxels is too small for a MedNeXt",
            remedy=f"use a patch of at least {2 * MIN_EDGE} voxels along two axes of similar spacing, "
            f"or {3 * MIN_EDGE} along one",
        )
    dims: Dims = 3 if len(topology.strides[0]) == 3 else 2
    blocks, expansions = BLOCKS[size][:n], EXPANSIONS[size][:n]
    return MedNeXtSpec(
        dims=dims,
        in_channels=in_channels,
        out_channels=out_channels,
        size=size,
        features=_features(width, n),
        kernels=topology.kernels,
        strides=topology.strides,
        encoder_blocks=blocks,
        decoder_blocks=blocks[: n - 1],
        encoder_expansion=expansions,
        decoder_expansion=expansions[: n - 1],
        heads=n - 1,
    )


def _features(width: int, n: int) -> tuple[int, ...]:
    return tuple(width * 2**stage for stage in range(n))


def _with_options(spec: MedNeXtSpec, options: PlanOptions) -> MedNeXtSpec:
    """Return ``spec`` with the heads of the user's options."""
    most = spec.n_stages - 1
    heads = most if options.heads is None else min(options.heads, most)
    return spec.revised(heads=heads if options.deep_supervision else 1)
