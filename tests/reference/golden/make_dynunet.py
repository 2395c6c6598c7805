"""Make the checkpoints in ``dynunet/`` and the logits that MONAI's DynUNet gives with them.

Run with MONAI installed (``pip install 'decathlete[test-full]'``); the files were made by MONAI 1.6.1. Checkpoints are
as Lightning writes them for NVIDIA's recipe, with tiny networks; logits are those of :func:`made_up_image`, every
:data:`EVERY`-th voxel.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent / "dynunet"
EVERY = 4

_ISOTROPIC = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
CASES: dict[str, dict[str, Any]] = {
    "plain_3d": {
        "net": {"in_channels": 1, "out_channels": 3, "strides": _ISOTROPIC, "filters": [4, 4, 6, 6]},
        "args": {"task": "04", "dim": 3, "filters": [4, 4, 6, 6], "batch_size": 2},
        "size": (16, 24, 16),
    },
    "residual_3d_anisotropic": {
        "net": {
            "in_channels": 2,
            "out_channels": 3,
            "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
            "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
            "filters": [2, 2, 2, 4, 4, 4],
            "res_block": True,
            "deep_supervision": True,
        },
        "args": {"task": "05", "dim": 3, "res_block": True, "deep_supervision": True, "deep_supr_num": 2},
        "size": (8, 32, 64),
    },
    "batch_2d": {
        "net": {
            "in_channels": 1,
            "out_channels": 3,
            "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
            "filters": [4, 4, 6, 6],
            "norm_name": ("BATCH", {"affine": True}),
        },
        "args": {"task": "04", "dim": 2, "norm": "batch", "batch_size": 16},
        "size": (24, 40),
    },
    "brats_3d": {
        "net": {
            "in_channels": 5,
            "out_channels": 3,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * 5],
            "filters": [2, 2, 2, 2, 2, 2],
            "deep_supervision": True,
        },
        "args": {"task": "11", "dim": 3, "brats": True, "deep_supervision": True, "deep_supr_num": 2},
        "size": (32, 32, 64),
    },
}


def made_up_image(n_channels: int, size: tuple[int, ...]) -> torch.Tensor:
    """A batch of one image of noise, the same each time."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, n_channels, *size), dtype=np.float32))


def make_network(net: dict[str, Any]) -> torch.nn.Module:
    """MONAI's network as the recipe builds it, no two of its weights alike."""
    from monai.networks.nets import DynUNet

    options = dict(net)
    strides = options.pop("strides")
    kernels = options.pop("kernels", [[3] * len(strides[0])] * len(strides))
    options.setdefault("norm_name", ("INSTANCE", {"affine": True}))
    torch.manual_seed(0)
    network = DynUNet(
        len(strides[0]),
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        deep_supr_num=2,
        trans_bias=True,
        **options,
    ).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "norm" in name and value.is_floating_point():
                value.add_(0.3 * torch.rand_like(value))
            elif name.endswith("bias"):
                value.add_(0.3 * torch.randn_like(value))
    return network


def lightning(network: torch.nn.Module, args: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as Lightning writes it for the recipe's module."""
    weights = next(network.parameters())
    return {
        "epoch": 7,
        "global_step": 800,
        "pytorch-lightning_version": "1.7.7",
        "state_dict": {f"model.{name}": value for name, value in network.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 8, "completed": 7}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'dice'}": {"best_model_score": torch.tensor(81.5), "dirpath": "/r"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros_like(weights)}}, "param_groups": [{"lr": 8e-4}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"args": Namespace(**_DEFAULTS | args), "triton": False, "data_dir": None},
    }


_DEFAULTS: dict[str, Any] = {
    "exec_mode": "train",
    "data": "/data",
    "results": "/results",
    "brats": False,
    "deep_supervision": False,
    "deep_supr_num": 2,
    "res_block": False,
    "filters": None,
    "norm": "instance",
    "depth": 5,
    "min_fmap": 4,
    "batch_size": 2,
    "learning_rate": 0.0008,
}


def main() -> None:
    """Write every case."""
    HERE.mkdir(exist_ok=True)
    for name, case in CASES.items():
        network = make_network(case["net"])
        torch.save(lightning(network, case["args"]), HERE / f"{name}.ckpt")
        with torch.no_grad():
            logits = network(made_up_image(case["net"]["in_channels"], case["size"]))
        every = (slice(None), slice(None), *(slice(None, None, EVERY),) * len(case["size"]))
        save_file({"logits": logits[every].contiguous()}, HERE / f"{name}.safetensors")


if __name__ == "__main__":
    main()
