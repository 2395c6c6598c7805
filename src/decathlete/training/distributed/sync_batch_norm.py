"""Batch normalisation over the patches of all processes (synchronised batch norm, as in Peng et al. 2018, MegDet)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from decathlete.training.distributed.collectives import SumOverRanks, world_size


class SyncBatchNorm(_BatchNorm):
    """Batch norm with the global batch's mean and variance in training, on CPUs too (torch's needs CUDA).

    Its weights have the names of the layer that it replaces, so that the exported model needs no processes.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of spatial axes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; the output has the input's shape."""
        x_BC = input
        if not self.training or world_size() == 1:
            return super().forward(x_BC)
        axes = (0, *range(2, x_BC.ndim))
        values_BC = x_BC.float()
        count = values_BC.numel() / values_BC.shape[1] * world_size()  # all ranks have patches of one size
        mean_C = _over_ranks(values_BC.sum(axes)) / count
        centred_BC = values_BC - _along_channels(mean_C, x_BC)
        variance_C = _over_ranks(centred_BC.square().sum(axes)) / count
        self._update_running(mean_C.detach(), variance_C.detach() * count / max(count - 1, 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        normalised = centred_BC * _along_channels(scale_C, x_BC) + _along_channels(self.bias, x_BC)
        return normalised.to(x_BC.dtype)

    @torch.no_grad()
    def _update_running(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Update the running values that prediction uses."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)


def convert_to_sync_batch_norm(network: nn.Module) -> None:
    """Replace every batch norm in ``network``, in place; parameters and buffers are kept."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(module, name, _convert(child))


def _convert(norm: nn.BatchNorm2d | nn.BatchNorm3d) -> SyncBatchNorm:
    converted = SyncBatchNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    converted.to(norm.weight.device)
    converted.load_state_dict(norm.state_dict())
    return converted.train(norm.training)


def _over_ranks(sums_C: Tensor) -> Tensor:
    total: Tensor = SumOverRanks.apply(sums_C)  # type: ignore[no-untyped-call]
    return total


def _along_channels(values_C: Tensor, x_BC: Tensor) -> Tensor:
    return values_C.view(1, -1, *[1] * (x_BC.ndim - 2))
