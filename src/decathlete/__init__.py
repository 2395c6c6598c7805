"""Decathlete: nnU-Net for PyTorch.

Every command has its function here, with the types of its arguments and results. ``__init__.pyi`` lists them; each is
imported when it is first used, so that ``decathlete --help`` need not wait for torch.

>>> import decathlete
>>> decathlete.LabelSet.from_names(["liver", "tumour"]).n_classes
3
"""

import lazy_loader

from decathlete.version import __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
