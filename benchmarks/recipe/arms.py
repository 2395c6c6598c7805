"""What the search tries: each arm differs from the defaults in one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        config: options of the training (``TrainConfig``).
        plan: ``field=value`` assignments, after the plan was fitted to the budget.
        first: widths that the plan's first stages get, in place of its own.
        shrink: how often the patch is made smaller, as for a budget.
        sized_for: patch and network are chosen as for so many times the budget.
        strength: of augmentation: all probabilities but that of mirroring times this.
        ema_share: window of the averaged weights, as a share of all steps; ``None``: the default's.
        betas: of AdamW, in place of torch's.
        head_scale: the heads' first weights are so many times as large.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    plan: tuple[str, ...] = ()
    first: tuple[int, ...] = ()
    shrink: int = 0
    sized_for: float = 1.0
    strength: float = 1.0
    ema_share: float | None = None
    betas: tuple[float, float] | None = None
    head_scale: float = 1.0


ARMS: Mapping[str, Arm] = {
    "default": Arm(),
    # Optimizer and rate
    "rate x 0.5": Arm(config={"learning_rate": 0.05}),
    "rate x 2": Arm(config={"learning_rate": 0.2}),
    "nnU-Net's SGD: rate 0.01, momentum 0.99": Arm(config={"learning_rate": 0.01, "momentum": 0.99}),
    "AdamW": Arm(config={"optimizer": "adamw"}),
    "AdamW, rate x 0.5": Arm(config={"optimizer": "adamw", "learning_rate": 2.5e-3}),
    "AdamW, second moment 0.98": Arm(config={"optimizer": "adamw"}, betas=(0.9, 0.98)),
    "weight decay x 10": Arm(config={"weight_decay": 3e-4}),
    # Schedule
    "warm-up 10 %": Arm(config={"warmup": 0.1}),
    "poly decay": Arm(config={"schedule": "poly"}),
    "constant rate": Arm(config={"schedule": "constant"}),
    # Averaged weights
    "no averaging": Arm(config={"ema_decay": 0.0}),
    "averaged over 10 %": Arm(ema_share=0.1),
    # Augmentation
    "augmentation x 0.5": Arm(strength=0.5),
    "augmentation x 0": Arm(strength=0.0),
    "mirroring": Arm(plan=("mirror_axes=0,1,2",)),
    # Batch against steps
    "batch x 0.5": Arm(plan=("batch_size=1",)),
    "batch x 2": Arm(plan=("batch_size=4",)),
    # Network and patch
    "no deep supervision": Arm(plan=("network.heads=1",)),
    "first stage 16 wide": Arm(first=(16,)),
    "smaller patch": Arm(shrink=1),
    "first stages 32, 64, 128, 256 wide": Arm(first=(32, 64, 128, 256)),
    "smaller patch, first stages 32, 64, 128, 256 wide": Arm(shrink=1, first=(32, 64, 128, 256)),
    "smaller patch, first stages 16, 32, 64, 128 wide": Arm(shrink=1, first=(16, 32, 64, 128)),
    "first stages 8, 32, 64, 128 wide": Arm(first=(8, 32, 64, 128)),
    "first stages 8, 32, 64, 128 wide, AdamW": Arm(first=(8, 32, 64, 128), config={"optimizer": "adamw"}),
    "first stages 8, 32, 64, 128 wide, AdamW, heads x 0.1": Arm(
        first=(8, 32, 64, 128), head_scale=0.1, config={"optimizer": "adamw"}
    ),
    "first stages 8, 16, 32, 64 wide": Arm(first=(8, 16, 32, 64)),
    "patch 10 x 64 x 64": Arm(plan=("patch_size=10,64,64",), first=(8, 16, 32, 64)),
    "patch 10 x 64 x 64, 16 wide": Arm(plan=("patch_size=10,64,64",), first=(16, 32, 64, 128)),
    "patch 10 x 80 x 64, 16 wide": Arm(plan=("patch_size=10,80,64",), first=(16, 32, 64, 128)),
    "patch 10 x 96 x 96, 16 wide": Arm(plan=("patch_size=10,96,96",), first=(16, 32, 64, 128, 160)),
    "patch 5 x 64 x 64, 16 wide": Arm(plan=("patch_size=5,64,64",), first=(16, 32, 64, 128)),
    "patch 10 x 96 x 80": Arm(plan=("patch_size=10,96,80",), first=(8, 16, 32, 64, 80)),
    "patch 10 x 160 x 128": Arm(plan=("patch_size=10,160,128",), first=(8, 16, 32, 64, 80)),
    "sized for 2 x the time": Arm(sized_for=2.0),
    "sized for 4 x the time": Arm(sized_for=4.0),
    # Sampling
    "foreground 0.67": Arm(config={"oversampling": 0.67}),
    "foreground 1": Arm(config={"oversampling": 1.0}),
    # Loss
    "Dice by patch": Arm(config={"batch_dice": False}),
}
