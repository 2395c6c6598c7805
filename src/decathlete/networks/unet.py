"""The U-Net (Ronneberger et al. 2015; Çiçek et al. 2016) in nnU-Net's form, for any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from decathlete.planning.network_spec import Dims

if TYPE_CHECKING:
    from decathlete.networks.onnx_graph import OnnxGraph


class UNet(nn.Module):
    """Encoder, decoder with skip connections, 1x1 heads. All parts are given by the caller, finest resolution first.

    Args:
        encoder: one module per stage; each except the first reduces the resolution.
        ups: one per decoder stage; ``ups[i]`` upsamples stage ``i + 1`` to the resolution of encoder stage ``i``.
        decoder: the input of ``decoder[i]`` is the output of ``ups[i]`` and of encoder stage ``i``, concatenated.
        heads: modules that compute the logits of the finest ``len(heads)`` decoder stages.
    """

    def __init__(
        self,
        *,
        encoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        heads: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.ups = nn.ModuleList(ups)
        self.decoder = nn.ModuleList(decoder)
        self.heads = nn.ModuleList(heads)
        self.layout = torch.contiguous_format

    @property
    def dims(self) -> Dims:
        """Number of spatial axes."""
        return 2 if self.heads[0].get_parameter("weight").ndim == 4 else 3

    def encoder_stages(self) -> list[tuple[nn.Module]]:
        """Return the modules of each stage of the encoder (see :mod:`decathlete.networks.stages`)."""
        return [(stage,) for stage in self.encoder]

    def set_layout(self, layout: torch.memory_format) -> None:
        """Change the memory format of weights and feature maps (see :mod:`decathlete.networks.layout`)."""
        self.layout = layout
        for weight in self.parameters():
            # with one voxel both layouts are the same memory, but DDP rejects the strides
            if weight.ndim > 2 and weight.shape[2:].numel() > 1:
                weight.data = in_layout(weight.data, layout)

    def forward(self, x_BC: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits.

        Args:
            x_BC: (batch, channels, *spatial), each axis a multiple of the product of its strides.

        Returns:
            In training mode a tuple with the logits of every head, finest first (deep supervision); in evaluation mode
            the finest logits alone, of shape (batch, outputs, *spatial).
        """
        decoded = self._decode(self._encode(in_layout(x_BC, self.layout)))
        if self.training:
            return tuple(self._keep_gradient(h(stage)) for h, stage in zip(self.heads, decoded, strict=False))
        logits_BK: Tensor = self.heads[0](decoded[0])
        return logits_BK

    def write_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Write the forward pass in evaluation mode as ONNX operations.

        Args:
            x: name of the value that holds the windows.

        Returns:
            Name of the value that holds the logits.
        """
        stages: list[str] = []
        for stage in self.encoder:
            x = graph.module(stage, x)
            stages.append(x)
        x = stages.pop()
        for up, stage in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            x = graph.module(stage, graph.node("Concat", [graph.module(up, x), stages.pop()], axis=1))
        return graph.module(self.heads[0], x)

    def _keep_gradient(self, logits_BK: Tensor) -> Tensor:
        """Convert the gradient of the logits, which a loss returns in any layout, to that of the feature maps."""
        if self.layout is not torch.contiguous_format and logits_BK.requires_grad:
            logits_BK.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient.contiguous(memory_format=self.layout)
            )
        return logits_BK

    def _encode(self, x_BC: Tensor) -> list[Tensor]:
        stages: list[Tensor] = []
        for stage in self.encoder:
            x_BC = stage(x_BC)
            stages.append(x_BC)
        return stages

    def _decode(self, stages: list[Tensor]) -> list[Tensor]:
        """Return the feature maps of the decoder stages, finest first; empties ``stages`` to free memory."""
        x_BC = stages.pop()
        decoded: list[Tensor] = []
        for up, stage in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            x_BC = stage(torch.cat([up(x_BC), stages.pop()], dim=1))
            decoded.append(x_BC)
        return decoded[::-1]


def in_layout(x_BC: Tensor, layout: torch.memory_format) -> Tensor:
    """Return feature maps, or a convolution's weights, in ``layout``, with the strides of that layout.

    With a single channel both layouts are the same memory, and torch keeps strides that convolutions treat as
    contiguous: they would compute the whole first stage in that layout. DDP needs weights with the strides of their
    gradients.
    """
    x_BC = x_BC.contiguous(memory_format=layout)
    if layout is torch.contiguous_format or x_BC.shape[1] > 1:
        return x_BC
    strides = list(x_BC.contiguous().stride())
    strides[1] = 1
    return x_BC.as_strided(x_BC.shape, strides)
