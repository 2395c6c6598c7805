"""What a network may have beside nnU-Net's: strided shortcuts, no stem, other kernels in the decoder, more groups."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from decathlete.networks.architectures.unet import UNetArchitecture
from decathlete.networks.blocks import ConvBlock, ResidualBlock
from decathlete.networks.build import build_network
from decathlete.networks.unet_cost import feature_map_elements, multiply_adds
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.topology import make_topology


def dynunet(**changes: object) -> UNetSpec:
    """Two stages in 2D, residual as MONAI's DynUNet is."""
    fields: dict[str, object] = {
        "dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "kernels": ((1, 3), (3, 3)),
        "strides": ((1, 1), (1, 2)),
        "features": (4, 8),
        "encoder_convs": (1, 1),
        "decoder_convs": (2,),
        "block": "residual",
        "stem": False,
        "shortcut": "strided",
        "decoder_kernels": ((3, 3),),
    }
    return UNetSpec.model_validate(fields | changes)


def test_a_residual_encoder_without_stem_takes_the_image_itself() -> None:
    network = build_network(dynunet(), seed=0)
    first, second = (stage[0] for stage in network.encoder)
    assert isinstance(first, ResidualBlock)
    assert first.first.conv.weight.shape[:2] == (4, 1)
    assert [len(block.shortcut) for block in (first, second)] == [1, 1]
    projection = second.shortcut[0]
    assert isinstance(projection, ConvBlock)
    assert (projection.conv.stride, projection.conv.kernel_size, projection.conv.bias) == ((1, 2), (1, 1), None)
    assert network(torch.randn(1, 1, 4, 8))[0].shape == (1, 2, 4, 8)


def test_a_strided_shortcut_takes_every_other_voxel() -> None:
    """And not the mean of them, as a pooled one does."""
    block = build_network(dynunet(), seed=0).encoder[1][0].eval()
    x = torch.zeros(1, 4, 4, 8)
    x[..., 1::2] = torch.randn(1, 4, 4, 4)  # only what the stride leaves out
    assert not block.shortcut[0].conv(x).any()


def test_where_nothing_changes_the_shortcut_is_the_identity() -> None:
    same = dynunet(features=(1, 1), strides=((1, 1), (1, 1)), encoder_convs=(2, 1))
    network = build_network(same, seed=0)
    assert not any(len(m.shortcut) for m in network.modules() if isinstance(m, ResidualBlock))


def test_the_decoder_has_kernels_of_its_own() -> None:
    convs = [m for m in build_network(dynunet(), seed=0).decoder.modules() if isinstance(m, nn.Conv2d)]
    assert {c.kernel_size for c in convs} == {(3, 3)}
    convs = [
        m for m in build_network(dynunet(decoder_kernels=()), seed=0).decoder.modules() if isinstance(m, nn.Conv2d)
    ]
    assert {c.kernel_size for c in convs} == {(1, 3)}


@pytest.mark.parametrize("kernels", [((3, 3), (3, 3)), ((2, 3),), ((3,),)])
def test_kernels_of_the_decoder_are_checked(kernels: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValidationError, match="kernels"):
        dynunet(decoder_kernels=kernels)


def test_group_norm_takes_as_many_groups_as_are_asked_for() -> None:
    spec = dynunet(norm="group", features=(32, 64), norm_groups=32)
    groups = {m.num_groups for m in build_network(spec, seed=0).modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {32}


@pytest.mark.parametrize("shortcut", ["strided", "pooled"])
@pytest.mark.parametrize("stem", [False, True])
def test_costs_are_those_of_the_convolutions(stem: bool, shortcut: str) -> None:
    """Against the convolutions as they run."""
    spec = dynunet(stem=stem, shortcut=shortcut)
    network, size = build_network(spec, seed=0).eval(), (4, 8)
    seen: list[tuple[int, int]] = []  # numbers in the output, multiply-adds

    def watch(conv: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        taps = conv.weight[0].numel() if isinstance(conv, nn.Conv2d) else conv.weight.shape[0]
        seen.append((output.numel(), output.numel() * taps))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(watch)
    network(torch.randn(1, 1, *size))
    assert feature_map_elements(spec, size) == sum(elements for elements, _ in seen)
    assert multiply_adds(spec, size) == sum(adds for _, adds in seen)


def test_another_topology_keeps_the_kind_of_network() -> None:
    topology = make_topology((1, 1), (32, 32))
    made = UNetArchitecture(dynunet(norm="group", norm_groups=2)).replanned(topology)
    assert (made.stem, made.shortcut, made.norm_groups) == (False, "strided", 2)
    assert made.decoder_kernels == ()
