"""nnU-Net's names and ours: forth and back, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from decathlete.interop.nnunet_weights import convert_from_nnunet, convert_to_nnunet, make_name_table
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec


def _spec(block: str = "plain", norm: str = "instance", dims: int = 3) -> UNetSpec:
    return UNetSpec(
        dims=dims,
        in_channels=2,
        out_channels=3,
        kernels=((3,) * dims,) * 3,
        strides=((1,) * dims, (2,) * dims, (1,) * (dims - 1) + (2,)),
        features=(4, 6, 6),
        encoder_convs=(2, 1, 3),
        decoder_convs=(2, 1),
        block=block,
        norm=norm,
        heads=2,
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("block", ["plain", "residual"])
def test_forth_and_back_is_the_same(block: str, norm: str, dims: int) -> None:
    spec = _spec(block, norm, dims)
    ours = build_network(spec, seed=0).state_dict()
    back = convert_from_nnunet(convert_to_nnunet(ours, spec), spec)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_every_tensor_has_names_of_its_own() -> None:
    names = [name for given in make_name_table(_spec("residual")).values() for name in given]
    assert len(names) == len(set(names))


def test_the_names_are_nnunets() -> None:
    plain, residual = make_name_table(_spec()), make_name_table(_spec("residual"))
    assert plain["encoder.2.1.norm.bias"] == (
        "encoder.stages.2.0.convs.1.norm.bias",
        "encoder.stages.2.0.convs.1.all_modules.1.bias",
        "decoder.encoder.stages.2.0.convs.1.norm.bias",
        "decoder.encoder.stages.2.0.convs.1.all_modules.1.bias",
    )
    assert plain["decoder.0.1.conv.weight"][0] == "decoder.stages.1.convs.1.conv.weight"  # ours is finest first
    assert plain["ups.1.weight"] == ("decoder.transpconvs.0.weight",)
    assert plain["heads.0.bias"] == ("decoder.seg_layers.1.bias",)
    assert residual["encoder.0.0.conv.weight"][0] == "encoder.stem.convs.0.conv.weight"
    assert residual["encoder.0.1.first.conv.weight"][0] == "encoder.stages.0.blocks.0.conv1.conv.weight"
    assert residual["encoder.1.0.shortcut.1.norm.weight"][0] == "encoder.stages.1.blocks.0.skip.1.norm.weight"


def test_dropout_shifts_the_norm_but_not_in_the_second_convolution_of_a_residual_block() -> None:
    names = make_name_table(_spec("residual"), dropout=True)
    assert "encoder.stages.1.blocks.0.conv1.all_modules.2.bias" in names["encoder.1.0.first.norm.bias"]
    assert "encoder.stages.1.blocks.0.conv2.all_modules.1.bias" in names["encoder.1.0.second.norm.bias"]


def test_without_biases_ours_are_zero() -> None:
    spec = _spec()
    theirs = convert_to_nnunet(build_network(spec, seed=0).state_dict(), spec)
    kept = {n: t for n, t in theirs.items() if "seg_layers" in n or not n.endswith("bias")}
    kept |= {n: t for n, t in theirs.items() if ".norm.bias" in n or "all_modules.1.bias" in n}
    ours = convert_from_nnunet(kept, spec, conv_bias=False)
    assert not ours["encoder.0.0.conv.bias"].any()
    assert not ours["ups.0.bias"].any()
    with pytest.raises(ValueError, match="is missing"):
        convert_from_nnunet(kept, spec)


def test_heads_that_were_not_trained_are_zero() -> None:
    one = _spec().revised(heads=1)
    theirs = convert_to_nnunet(build_network(one, seed=0).state_dict(), one)
    assert not theirs["decoder.seg_layers.0.weight"].any()
    assert theirs["decoder.seg_layers.1.weight"].any()


def test_what_does_not_fit_is_named() -> None:
    spec = _spec()
    theirs = convert_to_nnunet(build_network(spec, seed=0).state_dict(), spec)
    with pytest.raises(ValueError, match=r"decoder\.seg_layers\.2\.bias is unknown"):
        convert_from_nnunet(theirs | {"decoder.seg_layers.2.bias": torch.zeros(3)}, spec)
    with pytest.raises(ValueError, match=r"has shape \(3,\), not \(4,\)"):
        convert_from_nnunet(theirs | {"encoder.stages.0.0.convs.0.conv.bias": torch.zeros(3)}, spec)
    name = "decoder.encoder.stages.0.0.convs.0.conv.weight"
    with pytest.raises(ValueError, match="different, but must be equal"):
        convert_from_nnunet(theirs | {name: theirs[name] + 1}, spec)
    huge = torch.zeros(1).expand(10**12)  # takes no memory until it is copied
    with pytest.raises(ValueError, match="has shape"):
        convert_from_nnunet(theirs | {"encoder.stages.0.0.convs.0.conv.bias": huge}, spec)


def test_a_few_bytes_that_are_repeated_are_refused() -> None:
    spec = _spec()
    theirs = convert_to_nnunet(build_network(spec, seed=0).state_dict(), spec)
    spread = {n: t.flatten()[:1].clone().reshape((1,) * t.ndim).expand(t.shape) for n, t in theirs.items()}
    with pytest.raises(ValueError, match="more numbers than the checkpoint stores"):
        convert_from_nnunet(spread, spec)
