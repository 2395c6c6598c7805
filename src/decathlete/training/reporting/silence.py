"""Silences Lightning's banners, tips and warnings that users cannot act on."""

from __future__ import annotations

import logging
import warnings

_OF_NO_USE = (
    r".*does not have many workers.*",
    r".*in eval mode at the start of training.*",
    r".*GPU available but not used.*",
    r".*The `srun` command is available.*",
    r".*no `val_dataloader`.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*self\.configure_model.*",
)


def silence_lightning() -> None:
    """Silence Lightning's banners, tips and warnings about deliberate choices, for the rest of this process."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in _OF_NO_USE:
        warnings.filterwarnings("ignore", message=message)
