"""The U-Net of nnU-Net, with a plain or a residual encoder: how it is planned, what it costs, how it is built."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from decathlete.core.choices import Block, NetworkName, Norm
from decathlete.errors import PlanError
from decathlete.networks import unet_cost
from decathlete.networks.encoder_decoder import EncoderDecoderArchitecture
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.architectures import ARCHITECTURES, MemoryReference, PlanRow
from decathlete.planning.explain import times
from decathlete.planning.network_presets import NetworkPreset
from decathlete.planning.network_spec import Axes, Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import MIN_EDGE, Pooling, Topology

if TYPE_CHECKING:
    from torch import nn

BASE_FEATURES = 32
"""Channels at full resolution."""
MAX_FEATURES: dict[int, int] = {2: 512, 3: 320}
"""Most channels of any stage, for :data:`BASE_FEATURES` channels at full resolution."""
WIDE_FEATURES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Channels of the stages with ``wide_encoder``: more at full resolution, and growing more slowly than by doubling."""
RESIDUAL_BLOCKS = (1, 3, 4)
"""Blocks of the first residual encoder stages; every deeper stage has :data:`DEEP_RESIDUAL_BLOCKS`."""
DEEP_RESIDUAL_BLOCKS = 6
MEMORY_REFERENCES: dict[tuple[Block, Dims], MemoryReference] = {
    ("plain", 3): MemoryReference(elements=560e6, batch_size=2, guaranteed_batch=2),
    ("plain", 2): MemoryReference(elements=85e6, batch_size=12, guaranteed_batch=2),
    ("residual", 3): MemoryReference(elements=680e6, batch_size=2, guaranteed_batch=2),
    ("residual", 2): MemoryReference(elements=135e6, batch_size=12, guaranteed_batch=12),
}
"""Calibration of nnU-Net v2."""


def _residual(elements: float, memory_gb: float, dims: Dims) -> MemoryReference:
    batch = 2 if dims == 3 else 12
    return MemoryReference(
        elements=elements, batch_size=batch, guaranteed_batch=batch, memory_gb=memory_gb, dataset_share=1
    )


PRESET_REFERENCES: dict[tuple[NetworkName, Dims], MemoryReference] = {
    ("resenc-m", 3): _residual(680e6, 8, 3),
    ("resenc-m", 2): _residual(135e6, 8, 2),
    ("resenc-l", 3): _residual(2100e6, 24, 3),
    ("resenc-l", 2): _residual(380e6, 24, 2),
    ("resenc-xl", 3): _residual(3600e6, 40, 3),
    ("resenc-xl", 2): _residual(560e6, 40, 2),
}
"""Calibration of nnU-Net v2 for its residual encoder presets."""
PRESETS: dict[NetworkName, NetworkPreset] = {
    "plain": NetworkPreset(fields={"block": "plain"}),
    "resenc-m": NetworkPreset(fields={"block": "residual"}, memory_gb=8),
    "resenc-l": NetworkPreset(fields={"block": "residual"}, memory_gb=24),
    "resenc-xl": NetworkPreset(fields={"block": "residual"}, memory_gb=40),
}
"""Memory of the residual encoders: Isensee et al., *nnU-Net Revisited*, MICCAI 2024."""


@ARCHITECTURES.register("unet")
class UNetArchitecture(EncoderDecoderArchitecture[UNetSpec]):
    """U-Net with a plain or residual encoder, as nnU-Net plans it."""

    Settings = UNetSpec
    used_options = MappingProxyType(
        {
            "depth": "strides",
            "min_fmap": "strides",
            "filters": "features",
            "wide_encoder": "features",
            "heads": "heads",
            "deep_supervision": "heads",
            "negative_slope": "negative_slope",
            "block": "block",
            "norm": "norm",
        }
    )
    presets = PRESETS
    topology_fields = ("strides", "kernels", "decoder_kernels", "features", "encoder_convs", "decoder_convs")

    @classmethod
    def plan_spec(cls, topology: Topology, *, in_channels: int, out_channels: int, options: PlanOptions) -> UNetSpec:
        """Return the specification for a topology: see :func:`plan_unet`, and what the user's options change.

        Raises:
            PlanError: nothing can be pooled.
        """
        block = options.block if options.network is None else cls.presets[options.network].fields["block"]
        spec = plan_unet(topology, in_channels=in_channels, out_channels=out_channels, block=block, norm=options.norm)
        return _with_options(spec, options)

    def build(self) -> nn.Module:
        """Return the U-Net, its weights drawn as in :func:`decathlete.networks.unet_build.build_unet`."""
        from decathlete.networks.unet_build import build_unet

        return build_unet(self.spec)

    def multiply_adds(self, patch_size: Axes) -> int:
        """Multiply-adds of all convolutions in one forward pass of one sample, supervision heads included."""
        return unet_cost.multiply_adds(self.spec, patch_size)

    def feature_map_elements(self, patch_size: Axes) -> int:
        """Elements of all convolutions' outputs for one sample, supervision heads excluded."""
        return unet_cost.feature_map_elements(self.spec, patch_size)

    def with_width(self, width: int, *, finest_only: bool = False) -> UNetSpec:
        """Return the specification with ``width`` channels in the first stage, the others following unless excluded."""
        if finest_only:
            return self.spec.with_finest(width)
        return self._rebuild(self.topology(()), width)

    @classmethod
    def pooling(cls, options: PlanOptions | None) -> Pooling:
        """Pool at most ``depth`` times, and into no more stages than there are ``filters``."""
        if options is None:
            return Pooling()
        limits = [options.depth + 1] if options.depth is not None else []
        limits += [len(options.filters)] if options.filters else []
        return Pooling(min_edge=options.min_fmap, most_stages=min(limits, default=None))

    def replanned(self, topology: Topology, options: PlanOptions | None = None) -> UNetSpec:
        """Return the same kind of U-Net for another topology, as wide as before, also at full resolution."""
        same = topology.strides == self.spec.strides and topology.kernels == self.spec.kernels
        spec = self.spec if same else self._rebuild(topology, self.spec.base_features).with_finest(self.width)
        return spec if options is None else _with_options(spec, options)

    def _rebuild(self, topology: Topology, width: int) -> UNetSpec:
        """Return the U-Net of a topology; where the number of heads is not the default it is kept as far as possible.

        The fields that :func:`plan_unet` does not choose are kept.
        """
        old = self.spec
        spec = plan_unet(
            topology,
            in_channels=old.in_channels,
            out_channels=old.out_channels,
            block=old.block,
            norm=old.norm,
            base_features=width,
            negative_slope=old.negative_slope,
        ).revised(norm_groups=old.norm_groups, stem=old.stem, shortcut=old.shortcut)
        if old.heads == default_heads(old.n_stages):
            return spec
        return spec.revised(heads=min(old.heads, spec.n_stages - 1))

    @property
    def memory_reference(self) -> MemoryReference:
        """Calibration of nnU-Net v2 for this kind of encoder."""
        return MEMORY_REFERENCES[self.spec.block, self.spec.dims]

    def memory_reference_for(self, options: PlanOptions) -> MemoryReference:
        """Calibration of nnU-Net v2 for the GPU of ``options.network``."""
        if options.network is None:
            return self.memory_reference
        return PRESET_REFERENCES.get((options.network, self.spec.dims), self.memory_reference)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has batch normalisation."""
        return self.spec.norm == "batch"

    def rows(self) -> list[PlanRow]:
        """Return the blocks, strides and channels for the printed plan."""
        spec = self.spec
        pooled = " ".join("".join(map(str, stride)) for stride in spec.strides[1:])
        network = f"{spec.block}, {spec.norm} norm, {spec.n_stages} levels, strides {pooled}"
        return [
            ("network", network, ("network.strides",)),
            ("width", ", ".join(map(str, spec.features)), ("network.features",)),
        ]

    def reasons(self, patch_size: Axes) -> dict[str, str]:
        """Return the reasons for strides, features and heads."""
        return {
            "network.strides": _why_strides(self.spec, patch_size),
            "network.features": _why_features(self.spec),
            "network.heads": _why_heads(self.spec),
        }


def plan_unet(
    topology: Topology,
    *,
    in_channels: int,
    out_channels: int,
    block: Block = "plain",
    norm: Norm = "instance",
    base_features: int = BASE_FEATURES,
    negative_slope: float = 0.01,
) -> UNetSpec:
    """Return nnU-Net's U-Net for a topology: features double from ``base_features`` up to 10 (3D) or 16 (2D) times it.

    Plain: two convolutions per stage. Residual: nnU-Net's residual encoder presets (1, 3, 4, 6, 6, ... blocks, one
    convolution per decoder stage; Isensee et al., MICCAI 2024). Every decoder output except the coarsest is supervised,
    as in nnU-Net, where the coarsest has weight 0.

    Raises:
        PlanError: the topology has a single stage.
    """
    n = len(topology.strides)
    if n < 2:
        raise PlanError(
            f"a patch of {'×'.join(map(str, topology.patch_size))} voxels is too small for a U-Net",
            remedy=f"use a patch of at least {2 * MIN_EDGE} voxels along two axes of similar spacing, "
            f"or {3 * MIN_EDGE} along one",
        )
    dims: Dims = 3 if len(topology.strides[0]) == 3 else 2
    most = MAX_FEATURES[dims] * base_features // BASE_FEATURES
    residual = (*RESIDUAL_BLOCKS, *(DEEP_RESIDUAL_BLOCKS,) * n)[:n]
    return UNetSpec(
        dims=dims,
        in_channels=in_channels,
        out_channels=out_channels,
        kernels=topology.kernels,
        strides=topology.strides,
        features=tuple(min(most, base_features * 2**stage) for stage in range(n)),
        encoder_convs=residual if block == "residual" else (2,) * n,
        decoder_convs=(1 if block == "residual" else 2,) * (n - 1),
        block=block,
        norm=norm,
        negative_slope=negative_slope,
        heads=default_heads(n),
    )


def default_heads(n_stages: int) -> int:
    """Return the number of supervised outputs: all decoder outputs except the coarsest."""
    return max(n_stages - 2, 1)


def _with_options(spec: UNetSpec, options: PlanOptions) -> UNetSpec:
    """Return ``spec`` with the features, slope and heads of the user's options."""
    n = spec.n_stages
    heads = default_heads(n) if options.heads is None else min(options.heads, n - 1)
    features = WIDE_FEATURES if options.wide_encoder else options.filters
    return spec.revised(
        features=features[:n] or spec.features,
        negative_slope=options.negative_slope,
        heads=heads if options.deep_supervision else 1,
    )


def _why_strides(spec: UNetSpec, patch_size: Axes) -> str:
    edges = [size // divisor for size, divisor in zip(patch_size, spec.divisor, strict=True)]
    flat = any(k == 1 for kernel in spec.kernels for k in kernel)
    kernels = "; kernels are 1 along an axis until its spacing is within twice the finest" if flat else ""
    return (
        f"axes are halved while their spacing is within twice the finest and maps stay at least {MIN_EDGE} long: the "
        f"coarsest map is {times(edges)}{kernels}"
    )


def _why_features(spec: UNetSpec) -> str:
    first, *deeper = spec.features
    if deeper and deeper[0] > 2 * first:
        return f"{first} at full resolution, where the time goes; from there {deeper[0]} doubling at each level"
    return f"{first} doubling at each level up to {MAX_FEATURES[spec.dims] * first // BASE_FEATURES}"


def _why_heads(spec: UNetSpec) -> str:
    if spec.heads == 1:
        return "too shallow for deep supervision: only the full resolution is trained on"
    return "each decoder output but the coarsest is compared with the truth"
