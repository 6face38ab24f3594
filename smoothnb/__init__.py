"""Smooth latent spaces in diffusion models: the functions behind the notebooks.

`__init__.pyi` is the public list. Names are imported when they are first used, so that the command line answers at
once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
