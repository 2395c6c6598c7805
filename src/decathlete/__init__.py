"""Decathlete: nnU-Net for PyTorch."""

from decathlete.version import __version__

__all__ = ["__version__"]
