"""Lightning says much that is of no use to ours; what is left is what a user can act on."""

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
    """For the rest of this process: no banners, no tips, no warnings about choices that are deliberate."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in _OF_NO_USE:
        warnings.filterwarnings("ignore", message=message)
