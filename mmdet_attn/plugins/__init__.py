"""The attention modules, one file per paper."""

from mmdet_attn.plugins.a2 import A2
from mmdet_attn.plugins.bam import BAM
from mmdet_attn.plugins.base import Attention, Gate
from mmdet_attn.plugins.cam import CAM
from mmdet_attn.plugins.cbam import CBAM
from mmdet_attn.plugins.coordatt import CoordAtt
from mmdet_attn.plugins.crisscross import CrissCross
from mmdet_attn.plugins.eca import ECA
from mmdet_attn.plugins.ecans import ECANS
from mmdet_attn.plugins.fca import FCA
from mmdet_attn.plugins.gam import GAM
from mmdet_attn.plugins.gc import GC
from mmdet_attn.plugins.gct import GCT
from mmdet_attn.plugins.ge import GE
from mmdet_attn.plugins.gsop import GSoP
from mmdet_attn.plugins.nam import NAM
from mmdet_attn.plugins.non_local import NonLocal
from mmdet_attn.plugins.pam import PAM
from mmdet_attn.plugins.psaconv2d import PSAConv2d
from mmdet_attn.plugins.scse import SCSE
from mmdet_attn.plugins.se import SE
from mmdet_attn.plugins.sevariants import (
    SEGC1,
    SEGC2,
    SEGC3,
    SEVar1,
    SEVar2,
    SEVar3,
)
from mmdet_attn.plugins.simam import SimAM, SimAMConv2d
from mmdet_attn.plugins.spm import SPM
from mmdet_attn.plugins.srm import SRM
from mmdet_attn.plugins.tripletattention import TripletAttention

__all__ = [
    'A2',
    'BAM',
    'CAM',
    'CBAM',
    'ECA',
    'ECANS',
    'FCA',
    'GAM',
    'GC',
    'GCT',
    'GE',
    'NAM',
    'PAM',
    'SCSE',
    'SE',
    'SEGC1',
    'SEGC2',
    'SEGC3',
    'SPM',
    'SRM',
    'Attention',
    'CoordAtt',
    'CrissCross',
    'GSoP',
    'Gate',
    'NonLocal',
    'PSAConv2d',
    'SEVar1',
    'SEVar2',
    'SEVar3',
    'SimAM',
    'SimAMConv2d',
    'TripletAttention',
]
