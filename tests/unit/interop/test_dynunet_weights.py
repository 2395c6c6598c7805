"""Names and shapes of MONAI's DynUNet, and the logits that it gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from decathlete.interop.dynunet_names import WeightsMismatchError
from decathlete.interop.dynunet_weights import DynUNetWeights
from decathlete.networks.build import build_network
from dynunet_support import CASES, golden_content, made_up_image, stored_logits, thinned

State = dict[str, Tensor]


def state_of(case: str) -> State:
    state: State = golden_content(case)["state_dict"]
    return state


def flat(state: State) -> State:
    return {name: value for name, value in state.items() if "skip_layers" not in name}


@pytest.mark.parametrize("case", CASES)
def test_the_logits_are_monais(case: str) -> None:
    weights = DynUNetWeights.from_state_dict(state_of(case))
    spec = weights.network_spec()
    network = build_network(spec).eval()
    network.load_state_dict(weights.to_state_dict(spec))
    with torch.inference_mode():
        logits_BK = network(made_up_image(case))
    assert (thinned(logits_BK) - stored_logits(case)).abs().max() < 1e-5
    assert stored_logits(case).std() > 0.1


def test_the_network_is_read_off_the_weights() -> None:
    spec = DynUNetWeights.from_state_dict(state_of("residual_3d_anisotropic")).network_spec()
    assert (spec.dims, spec.in_channels, spec.out_channels) == (3, 2, 3)
    assert (spec.block, spec.norm, spec.stem, spec.shortcut, spec.heads) == (
        "residual",
        "instance",
        False,
        "strided",
        3,
    )
    assert spec.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert spec.kernels == ((1, 3, 3),) * 2 + ((3, 3, 3),) * 4
    assert spec.decoder_kernels == spec.kernels[1:]
    assert spec.features == (2, 2, 2, 4, 4, 4)
    assert DynUNetWeights.from_state_dict(state_of("batch_2d")).network_spec().norm == "batch"
    assert DynUNetWeights.from_state_dict(state_of("plain_3d")).network_spec(norm="group").norm == "group"


def only_nested(state: State) -> State:
    """Without the flat names that the nested ones repeat."""
    kept = "skip_layers", "output_block"
    return {name: value for name, value in state.items() if any(part in name for part in kept)}


def other_prefix(state: State) -> State:
    """And weights of something else."""
    renamed = {name.replace("model.", "net.model.", 1): value for name, value in state.items()}
    return renamed | {"loss.weight": torch.ones(3)}


def of_2021(state: State) -> State:
    """As the recipe's own first U-Net names its parts."""

    def old(name: str) -> str:
        name = re.sub(r"\bnorm([12])\.", r"conv\1.norm.", name)
        name = name.replace("transp_conv.conv.", "transp_conv.")
        return re.sub(r"(output_block|heads\.\d)\.conv\.conv\.", r"\1.conv.", name)

    return {old(name): value for name, value in flat(state).items()}


@pytest.mark.parametrize("spelled", [flat, only_nested, other_prefix, of_2021])
def test_however_they_are_named_the_weights_are_the_same(spelled: Callable[[State], State]) -> None:
    state = state_of("brats_3d")
    weights, other = DynUNetWeights.from_state_dict(state), DynUNetWeights.from_state_dict(spelled(state))
    assert other.kind == ("recipe2021" if spelled is of_2021 else "dynunet")
    if spelled is only_nested:  # heads below full resolution are there, too
        assert other.network_spec().heads == 3
    assert other.network_spec() == weights.network_spec()
    theirs, ours = weights.to_state_dict(weights.network_spec()), other.to_state_dict(other.network_spec())
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_half_precision_becomes_single() -> None:
    state = {name: value.half() for name, value in state_of("plain_3d").items()}
    weights = DynUNetWeights.from_state_dict(state)
    assert {value.dtype for value in weights.to_state_dict(weights.network_spec()).values()} == {torch.float32}


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in flat(state).items() if name not in key}


def put(name: str, value: Any) -> Callable[[State], State]:
    return lambda state: flat(state) | {f"model.{name}": value}


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (without("input_block.conv1"), "no DynUNet.*input_block.conv1.conv.weight"),
        (lambda state: {"a.weight": torch.ones(1)}, "no DynUNet: it has a.weight"),
        (lambda state: flat(state) | {f"ema.{k}": v for k, v in state.items()}, "several networks"),
        (without("bottleneck.norm2.bias"), "bottleneck.norm2.bias is missing"),
        (without("output_block"), "output_block.conv.conv.weight is missing"),
        (without("upsamples.1"), "upsamples"),
        (put("attention.weight", torch.ones(1)), "attention.weight is unknown"),
        (put("input_block.norm1.bias", torch.ones(5)), r"norm1.bias has shape \(5,\), not \(4,\)"),
        (put("input_block.norm1.bias", torch.full((4,), torch.nan)), "NaN"),
        (put("upsamples.0.transp_conv.conv.weight", torch.ones(6, 6, 4, 4, 4)), "strides"),
        (put("input_block.conv1.conv.weight", torch.ones(4, 1, 2, 3, 3)), "kernels must be odd"),
        (put("input_block.conv1.conv.weight", torch.ones(4)), "not the shape of a 2D or 3D convolution"),
        (
            lambda state: state | {"model.skip_layers.downsample.norm1.bias": torch.ones(4)},
            "different, but must be equal",
        ),
    ],
)
def test_what_is_no_dynunet_is_named(spoilt: Callable[[State], State], said: str) -> None:
    def read(state: State) -> State:
        weights = DynUNetWeights.from_state_dict(state)
        return weights.to_state_dict(weights.network_spec())

    with pytest.raises(WeightsMismatchError, match=said):
        read(spoilt(state_of("plain_3d")))
