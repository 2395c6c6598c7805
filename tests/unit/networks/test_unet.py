"""The network: shapes, modes, starting weights, and the formats it has to work in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from decathlete.networks.blocks import ResidualBlock, norm_layer
from decathlete.networks.build import build_network
from decathlete.networks.instance_norm import InstanceNorm
from decathlete.networks.layout import layout_name, memory_format, preferred_memory_format
from decathlete.networks.unet_spec import UNetSpec


def make_spec(dims: int = 3, **changes: object) -> UNetSpec:
    """Three stages; the first axis is pooled once only, and its finest kernel is 1."""
    thin = (1,) + (3,) * (dims - 1)
    fields = {
        "dims": dims,
        "in_channels": 2,
        "out_channels": 3,
        "kernels": (thin, (3,) * dims, (3,) * dims),
        "strides": ((1,) * dims, (1,) + (2,) * (dims - 1), (2,) * dims),
        "features": (8, 16, 24),
        "encoder_convs": (2, 2, 2),
        "decoder_convs": (2, 1),
        "heads": 2,
    }
    return UNetSpec(**(fields | changes))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("block", ["plain", "residual"])
@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_heads_in_training_and_the_finest_in_evaluation(dims, block, norm):
    network = build_network(make_spec(dims, block=block, norm=norm), seed=0)
    image = torch.randn(2, 2, 4, *(8,) * (dims - 1))
    outputs = network(image)
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 4, *(8,) * (dims - 1)), (2, 3, 4, *(4,) * (dims - 1))]
    sum(o.square().mean() for o in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    if norm != "batch":  # whose statistics differ between the modes
        assert torch.allclose(network.eval()(image), outputs[0], atol=1e-5)


def test_the_spec_is_what_is_built():
    spec = make_spec(block="residual", encoder_convs=(1, 3, 4))
    network = build_network(spec, seed=0)
    blocks = [sum(isinstance(m, ResidualBlock) for m in stage.modules()) for stage in network.encoder]
    assert blocks == [1, 3, 4]
    assert [up.stride for up in network.ups] == [(1, 2, 2), (2, 2, 2)]
    assert len(network.heads) == 2
    convs = [m for m in network.encoder[0].modules() if isinstance(m, nn.Conv3d)]
    assert {c.kernel_size for c in convs} == {(1, 3, 3)}
    assert {c.padding for c in convs} == {(0, 1, 1)}


def test_an_output_depends_on_the_far_end_through_the_bottleneck():
    network = build_network(make_spec(2, kernels=((3, 3),) * 3, strides=((1, 1), (2, 2), (2, 2))), seed=0).eval()
    image = torch.randn(1, 2, 16, 16)
    changed = image.clone()
    changed[..., -1, -1] += 5
    assert (network(image) - network(changed))[0, :, 8, 8].abs().max() > 0


def test_one_seed_gives_the_same_weights_and_leaves_the_global_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = build_network(make_spec(), seed=7), build_network(make_spec(), seed=7)
    assert torch.equal(before, torch.get_rng_state())
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    other = build_network(make_spec(), seed=8)
    assert not torch.equal(first.heads[0].weight, other.heads[0].weight)
    without = build_network(make_spec())
    assert not torch.equal(before, torch.get_rng_state())
    assert not torch.equal(without.heads[0].weight, build_network(make_spec()).heads[0].weight)


def test_starting_weights():
    network = build_network(make_spec(block="residual", norm="batch", features=(64, 64, 64)), seed=0)
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    assert all((b.last_norm.weight == 0).all() for b in blocks)
    conv = blocks[-1].first.conv
    assert conv.weight.std().item() == pytest.approx((2 / 1.0001 / (64 * 27)) ** 0.5, rel=0.02)
    assert (conv.bias == 0).all()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert all((n.running_var == 1).all() and (n.running_mean == 0).all() for n in norms)


def test_a_residual_block_starts_as_its_shortcut():
    block = build_network(make_spec(block="residual"), seed=0).encoder[1][0]
    x = torch.randn(2, 8, 4, 8, 8)
    assert torch.allclose(block(x), nn.functional.leaky_relu(block.shortcut(x), 0.01), atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_instance_norm_equals_torch_and_takes_a_single_voxel(dims):
    norm = norm_layer("instance", dims, 5)
    assert isinstance(norm, InstanceNorm)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, *(6,) * dims)
    expected = nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)
    assert torch.allclose(norm(x), expected, atol=1e-6)
    single = norm(torch.randn(2, 5, *(1,) * dims, requires_grad=True))
    assert torch.allclose(single, norm.bias.view(1, 5, *(1,) * dims).expand_as(single), atol=1e-4)


def test_a_patch_as_small_as_the_divisor_trains():
    network = build_network(make_spec(strides=((1, 1, 1), (1, 2, 2), (2, 2, 2))), seed=0)
    outputs = network(torch.randn(1, 2, 2, 4, 4))
    sum(o.sum() for o in outputs).backward()
    assert outputs[0].shape == (1, 3, 2, 4, 4)


def test_group_norm_takes_groups_that_divide():
    assert norm_layer("group", 3, 24).num_groups == 12
    assert norm_layer("group", 3, 320).num_groups == 16
    assert norm_layer("group", 3, 7).num_groups == 7


def test_on_the_meta_device():
    with torch.device("meta"):
        network = build_network(make_spec(), seed=1).eval()
        assert network(torch.empty(1, 2, 8, 64, 64)).shape == (1, 3, 8, 64, 64)
    assert {p.device.type for p in network.parameters()} == {"meta"}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("block", ["plain", "residual"])
def test_export_gives_the_same_logits(dims, block):
    network = build_network(make_spec(dims, block=block), seed=0).eval()
    image = torch.randn(1, 2, *(8,) * dims)
    exported = torch.export.export(network, (image,)).module()
    assert torch.allclose(exported(image), network(image), atol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_channels_last_changes_nothing_but_the_layout(norm):
    network = build_network(make_spec(norm=norm, block="residual"), seed=0)
    image = torch.randn(2, 2, 4, 8, 8)
    plain = network(image)
    network.set_layout(torch.channels_last_3d)
    arranged = network(image)
    for a, b in zip(plain, arranged, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_instance_norm_keeps_the_layout():
    x = torch.randn(2, 16, 4, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    assert norm_layer("instance", 3, 16)(x).is_contiguous(memory_format=torch.channels_last_3d)


def test_channels_last_only_where_it_was_measured_to_help():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for precision in ("fp32", "bf16"):
        assert preferred_memory_format(cpu, 3, precision) is torch.channels_last_3d
        assert preferred_memory_format(cpu, 2, precision) is torch.channels_last
        assert preferred_memory_format(cuda, 3, precision) is torch.contiguous_format


def test_the_word_for_a_layout_is_kept_on_every_device():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for dims, last in ((2, torch.channels_last), (3, torch.channels_last_3d)):
        for device in (cpu, cuda):
            assert memory_format("channels_first", device, dims, "fp32") is torch.contiguous_format
            assert memory_format("channels_last", device, dims, "bf16") is last
    assert memory_format("auto", cpu, 3, "fp32") is preferred_memory_format(cpu, 3, "fp32")
    assert [layout_name(f) for f in (torch.contiguous_format, torch.channels_last)] == [
        "channels_first",
        "channels_last",
    ]


def test_it_overfits_a_small_batch():
    network = build_network(make_spec(2, heads=1), seed=0)
    image = torch.randn(1, 2, 8, 8)
    label = (image[:, 0] > 0).long()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(image)[0], label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("channels", [1, 2])
def test_one_layout_forth_and_back(channels):
    """Feature maps and their gradients keep the layout, from the first convolution on; a loss may give another."""
    network = build_network(make_spec(in_channels=channels), seed=0)
    network.set_layout(torch.channels_last_3d)
    seen = []

    def watch(module, inputs, output):
        seen.append(output.is_contiguous(memory_format=torch.channels_last_3d))
        output.register_hook(lambda gradient: seen.append(gradient.stride()[1] == 1))

    for module in (*network.encoder.modules(), *network.decoder.modules()):
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(watch)
    heads = network(torch.randn(2, channels, 16, 16, 16))
    sum(logits.contiguous().square().sum() for logits in heads).backward()
    assert len(seen) > 10
    assert all(seen)
