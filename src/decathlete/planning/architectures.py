"""Network architectures: how a network is planned, what it costs, and how it is built.

An architecture is one module: the class of its specification, and a subclass of :class:`Architecture` that is
registered in :data:`ARCHITECTURES`. Planning asks for the specification and its cost, so the module must not import
torch except inside :meth:`Architecture.build`. A network without pooling, in full::

    class DilatedSpec(NetworkSpec):
        channels: int = Field(default=16, ge=1, description="Channels of each layer.")

    @ARCHITECTURES.register("dilated")
    class Dilated(ConvolutionChain[DilatedSpec]):
        '''Three dilated convolutions.'''

        Settings = DilatedSpec
        ...

:class:`ConvolutionChain` counts the cost; a network of another form counts its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, cast

from pydantic import BeforeValidator, SerializeAsAny

from decathlete.core.choices import NetworkName, Precision
from decathlete.core.registry import Component, Registry
from decathlete.errors import OptionError
from decathlete.planning.network_presets import DEFAULT_ARCHITECTURE, DEFAULT_MEMORY_GB, NetworkPreset
from decathlete.planning.network_spec import Axes, Dims, NetworkSpec
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import Pooling, Topology

if TYPE_CHECKING:
    from torch import nn

NETWORK_OPTIONS = (
    "block", "norm", "filters", "wide_encoder", "depth", "min_fmap", "negative_slope", "deep_supervision", "heads",
)  # fmt: skip
"""Fields of :class:`~decathlete.planning.options.PlanOptions` that an architecture may use."""

SpecT = TypeVar("SpecT", bound=NetworkSpec)
PlanRow = tuple[str, str, tuple[str, ...]]
"""Title, value and the fields whose reasons belong to the row."""


@dataclass(frozen=True, kw_only=True)
class MemoryReference:
    """Calibration of the memory estimate: what fits into a GPU.

    Attributes:
        memory_gb: memory of that GPU, GB.
        dataset_share: largest share of the dataset's voxels in a batch.
        elements: elements of the feature maps of *one* sample ...
        batch_size: ... with which a batch of this size fills the memory.
        guaranteed_batch: the patch is shrunk until a batch of this size fits.
    """

    elements: float
    batch_size: int
    guaranteed_batch: int
    memory_gb: float = DEFAULT_MEMORY_GB
    dataset_share: float = 0.05


DEFAULT_MEMORY_REFERENCES: dict[Dims, MemoryReference] = {
    3: MemoryReference(elements=560e6, batch_size=2, guaranteed_batch=2),
    2: MemoryReference(elements=85e6, batch_size=12, guaranteed_batch=2),
}
"""Calibration of nnU-Net v2 for its plain U-Net."""


class Architecture(ABC, Generic[SpecT]):
    """A kind of network. An instance answers for one specification.

    Subclasses set ``Settings`` and implement the abstract methods; the other members have defaults that suit a network
    without pooling, of a fixed width.

    Attributes:
        Settings: class of the specification.
        used_options: option of :class:`~decathlete.planning.options.PlanOptions` -> field of the specification that it
            decides. All other options of the network are rejected if the user gives them.
        presets: names of ``--network`` that choose this architecture.
        topology_fields: fields of the specification that follow from the topology. If the user sets one of them, the
            planner does not change any of them afterwards.
        precisions: number formats that the network can compute in.
    """

    Settings: ClassVar[type[NetworkSpec]]
    used_options: ClassVar[Mapping[str, str]] = MappingProxyType({})
    presets: ClassVar[Mapping[NetworkName, NetworkPreset]] = MappingProxyType({})
    topology_fields: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "bf16", "fp16")

    def __init__(self, spec: SpecT) -> None:
        self.spec = spec

    @classmethod
    @abstractmethod
    def plan_spec(cls, topology: Topology, *, in_channels: int, out_channels: int, options: PlanOptions) -> SpecT:
        """Return the specification for a topology.

        Args:
            topology: patch size, and the strides and kernels that the planner's rules give for it.
            options: of the user; only those in ``used_options`` differ from their defaults.

        Raises:
            PlanError: the topology is too small for this architecture.
        """

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the network with its weights drawn from torch's default generator, on torch's default device.

        In training mode its ``forward`` returns a tuple with the logits of each of the specification's heads, finest
        first, the first of the input's size; in evaluation mode it returns the finest logits alone, of shape (batch,
        out_channels, *spatial). Use :func:`decathlete.networks.build.build_network` to build with a seed. For
        ``--freeze-stages``, the network is a :class:`~decathlete.networks.stages.StagedNetwork`.
        """

    @abstractmethod
    def multiply_adds(self, patch_size: Axes) -> int:
        """Multiply-adds of all convolutions and matrix products in one forward pass of one sample, in training mode."""

    @abstractmethod
    def feature_map_elements(self, patch_size: Axes) -> int:
        """Elements of the outputs of all convolutions and matrix products in one forward pass of one sample.

        In evaluation mode: without the outputs of the supervision heads. Training's memory is estimated from it.
        """

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels of the feature maps at full resolution."""

    def with_width(self, width: int, *, finest_only: bool = False) -> SpecT | None:  # noqa: ARG002
        """Return the specification with ``width`` channels at full resolution; ``None`` if it cannot be narrowed.

        Args:
            finest_only: leave the width of the coarser resolutions as it is.
        """
        return None

    @classmethod
    def pooling(cls, options: PlanOptions | None) -> Pooling:  # noqa: ARG003
        """Return how far the planner's topology pools for this architecture.

        Args:
            options: ``None`` if they are unknown.
        """
        return Pooling(most_stages=1)

    def topology(self, patch_size: Axes) -> Topology:
        """Return the topology that the specification has."""
        dims = self.spec.dims
        return Topology(patch_size=patch_size, strides=((1,) * dims,), kernels=((3,) * dims,))

    def replanned(self, topology: Topology, options: PlanOptions | None = None) -> SpecT:  # noqa: ARG002
        """Return the specification of the same kind of network for another topology, as wide at each resolution.

        Args:
            options: that the specification was planned with; ``None`` if they are unknown.
        """
        return self.spec

    @property
    def memory_reference(self) -> MemoryReference:
        """Calibration of the memory estimate."""
        return DEFAULT_MEMORY_REFERENCES[self.spec.dims]

    def memory_reference_for(self, options: PlanOptions) -> MemoryReference:  # noqa: ARG002
        """Return the calibration for the memory target of the user's options."""
        return self.memory_reference

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has batch normalisation, whose statistics several devices can share."""
        return False

    def rows(self) -> list[PlanRow]:
        """Return the rows that describe the network in the printed plan."""
        shared = NetworkSpec.model_fields
        own = {name: value for name, value in self.spec.model_dump(mode="json").items() if name not in shared}
        own.pop("architecture")
        listed = ", ".join([self.spec.architecture, *(f"{name} {value}" for name, value in own.items())])
        return [("network", listed, ("network.architecture",))]

    def reasons(self, patch_size: Axes) -> dict[str, str]:  # noqa: ARG002
        """Return the reasons for the fields of the specification: ``network.FIELD`` -> sentence."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One convolution of a chain; its output has the size of its input.

    Attributes:
        kernel: edge of the kernel along every axis, voxels.
    """

    in_channels: int
    out_channels: int
    kernel: int


class ConvolutionChain(Architecture[SpecT]):
    """Base of networks that are a chain of convolutions at full resolution; their cost follows from the list of these.

    All fields of the specification but its shape have defaults.
    """

    @classmethod
    def plan_spec(
        cls,
        topology: Topology,
        *,
        in_channels: int,
        out_channels: int,
        options: PlanOptions,  # noqa: ARG003 - of none but in used_options
    ) -> SpecT:
        """Return the specification with its defaults."""
        shape = {"dims": len(topology.patch_size), "in_channels": in_channels, "out_channels": out_channels}
        return cast("SpecT", cls.Settings.model_validate(shape))

    @abstractmethod
    def convolutions(self) -> Sequence[Convolution]:
        """Return the convolutions in their order."""

    def multiply_adds(self, patch_size: Axes) -> int:
        """Return the multiply-adds of all convolutions in one forward pass of one sample."""
        weights: int = sum(c.kernel**self.spec.dims * c.in_channels * c.out_channels for c in self.convolutions())
        return prod(patch_size) * weights

    def feature_map_elements(self, patch_size: Axes) -> int:
        """Return the elements of the outputs of all convolutions in one forward pass of one sample."""
        return prod(patch_size) * sum(c.out_channels for c in self.convolutions())

    @property
    def width(self) -> int:
        """Channels after the first convolution."""
        return self.convolutions()[0].out_channels


ARCHITECTURES: Registry[Architecture[Any]] = Registry(
    "architecture", package="decathlete.networks.architectures", home=__name__
)


def architecture_of(spec: NetworkSpec) -> Architecture[Any]:
    """Return the architecture of a specification.

    Raises:
        OptionError: it is not installed.
    """
    return ARCHITECTURES.build(spec)


def architecture_name(options: PlanOptions) -> str:
    """Return the name of the architecture, which ``options.network`` may choose."""
    return options.architecture if options.network is None else _architecture_of_preset(options.network).name


def memory_target_gb(options: PlanOptions) -> float:
    """Return the GPU memory that patch and batch are sized for, GB."""
    if options.memory_gb is not None:
        return options.memory_gb
    if options.network is None:
        return DEFAULT_MEMORY_GB
    return _architecture_of_preset(options.network).cls.presets[options.network].memory_gb


def _architecture_of_preset(network: NetworkName) -> Component[Architecture[Any]]:
    architectures = (ARCHITECTURES.resolve(name) for name in ARCHITECTURES.builtin_names)
    return next(component for component in architectures if network in component.cls.presets)


def find_architecture(options: PlanOptions) -> type[Architecture[Any]]:
    """Return the class of the architecture that the user chose.

    Raises:
        OptionError: there is none of that name, or it does not use an option of the network that the user gave.
    """
    component: Component[Architecture[Any]] = ARCHITECTURES.load(architecture_name(options))
    given = [name for name in NETWORK_OPTIONS if getattr(options, name) != _DEFAULTS[name]]
    ineffective = [
        option_flag(name, getattr(options, name)) for name in given if name not in component.cls.used_options
    ]
    if ineffective:
        raise OptionError(
            f"the architecture {component.name} does not use {', '.join(ineffective)}",
            remedy=f"leave out {'this option' if len(ineffective) == 1 else 'these options'}, or set fields of the "
            "network with --set network.FIELD=VALUE",
        )
    return component.cls


def network_options_set(options: PlanOptions, architecture: type[Architecture[Any]]) -> dict[str, str]:
    """Return the fields of the plan that the user's network options decide: ``network.FIELD`` -> the options."""
    flags: dict[str, list[str]] = {}
    for name, field in architecture.used_options.items():
        if getattr(options, name) != _DEFAULTS[name]:
            flags.setdefault(f"network.{field}", []).append(option_flag(name, getattr(options, name)))
    if options.network is not None:
        fields_set = {
            "network.architecture",
            *(f"network.{field}" for field in architecture.presets[options.network].fields),
        }
        flags |= {field: [f"--network {options.network}"] for field in sorted(fields_set)}
    elif options.architecture != DEFAULT_ARCHITECTURE:
        flags["network.architecture"] = [f"--architecture {options.architecture}"]
    return {field: " ".join(given) for field, given in flags.items()}


def option_flag(name: str, value: object) -> str:
    """Return an option as the command line spells it: ``--depth 3``, ``--no-deep-supervision``."""
    spelled = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{spelled}" if value else f"--no-{spelled}"
    return f"--{spelled} {','.join(map(str, value)) if isinstance(value, tuple) else value}"


_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(PlanOptions) if f.name in NETWORK_OPTIONS}


def parse_network_spec(value: Any) -> Any:
    """Return the specification that a mapping from a file describes, validated by its architecture's class."""
    if not isinstance(value, Mapping):
        return value
    name = value.get("architecture", DEFAULT_ARCHITECTURE)
    if not isinstance(name, str):
        raise ValueError(f"architecture must be a name, it is {name!r}")
    return ARCHITECTURES.resolve(name).settings.model_validate(dict(value))


AnyNetworkSpec = Annotated[SerializeAsAny[NetworkSpec], BeforeValidator(parse_network_spec)]
"""Type of a schema's field that holds the specification of any architecture."""
