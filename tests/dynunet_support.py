"""Checkpoints of NVIDIA's recipe for tests: the stored ones, and others made of them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "reference" / "golden" / "dynunet"
CASES: dict[str, tuple[int, tuple[int, ...]]] = {
    "plain_3d": (1, (16, 24, 16)),
    "residual_3d_anisotropic": (2, (8, 32, 64)),
    "batch_2d": (1, (24, 40)),
    "brats_3d": (5, (32, 32, 64)),
}
"""Stored checkpoint -> channels and size of the image of its logits (``make_dynunet.py``)."""
EVERY = 4


def made_up_image(case: str) -> Tensor:
    """The image whose logits are stored."""
    n_channels, size = CASES[case]
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, n_channels, *size), dtype=np.float32))


def stored_logits(case: str) -> Tensor:
    """MONAI's, of every :data:`EVERY`-th voxel."""
    return load_file(GOLDEN / f"{case}.safetensors")["logits"]


def thinned(logits_BK: Tensor) -> Tensor:
    """Every :data:`EVERY`-th voxel."""
    return logits_BK[(slice(None), slice(None), *(slice(None, None, EVERY),) * (logits_BK.ndim - 2))]


def golden_content(case: str) -> dict[str, Any]:
    """All that a stored checkpoint holds."""
    with torch.serialization.safe_globals([Namespace]):
        content: dict[str, Any] = torch.load(GOLDEN / f"{case}.ckpt", weights_only=True)
    return content


def changed(case: str, folder: Path, *, args: dict[str, Any] | None = None, **parts: Any) -> Path:
    """A copy of a stored checkpoint, some of its options or parts replaced."""
    content = golden_content(case) | parts
    for name, value in (args or {}).items():
        setattr(content["hyper_parameters"]["args"], name, value)
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"
