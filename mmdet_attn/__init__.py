"""Attention for MMDetection 3.x, one file per paper.

Importing this registers every plugin in mmengine's root registry and needs
torch and mmengine only; parts that need mmdet are imported by name.
"""

from mmdet_attn.plugins import *
from mmdet_attn.plugins import __all__ as _plugins

__version__ = '0.1.0'
__all__ = [*_plugins]
