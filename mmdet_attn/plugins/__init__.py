from mmdet_attn.plugins.base import Attention, Gate
from mmdet_attn.plugins.eca import ECA
from mmdet_attn.plugins.se import SE

__all__ = ['ECA', 'SE', 'Attention', 'Gate']
