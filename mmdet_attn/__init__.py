"""Attention for MMDetection 3.x, one file per paper.

Importing this registers every plugin in mmengine's root registry and needs
torch and mmengine only; parts that need mmdet are imported by name.
"""

from mmdet_attn.plugins import ECA, SE, Attention, Gate

__version__ = '0.1.0'
__all__ = ['ECA', 'SE', 'Attention', 'Gate']
