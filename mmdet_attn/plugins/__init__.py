"""The attention modules, one file per paper."""

from mmdet_attn.plugins.a2 import A2
from mmdet_attn.plugins.bam import BAM
from mmdet_attn.plugins.base import Attention, Gate
from mmdet_attn.plugins.caa import CAA
from mmdet_attn.plugins.cam import CAM
from mmdet_attn.plugins.cbam import CBAM
from mmdet_attn.plugins.coordatt import CoordAtt
from mmdet_attn.plugins.crisscross import CrissCross
from mmdet_attn.plugins.eca import ECA
from mmdet_attn.plugins.ecans import ECANS
from mmdet_attn.plugins.ema import EMA
from mmdet_attn.plugins.ese import ESE
from mmdet_attn.plugins.fca import FCA
from mmdet_attn.plugins.gam import GAM
from mmdet_attn.plugins.gc import GC
from mmdet_attn.plugins.gct import GCT
from mmdet_attn.plugins.ge import GE
from mmdet_attn.plugins.gsop import GSoP
from mmdet_attn.plugins.lsk import LSK, LSKUnit
from mmdet_attn.plugins.lska import LSKA
from mmdet_attn.plugins.nam import NAM
from mmdet_attn.plugins.non_local import NonLocal
from mmdet_attn.plugins.pam import PAM
from mmdet_attn.plugins.polarized import (
    PolarizedParallel,
    PolarizedSequential,
)
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
from mmdet_attn.plugins.sge import SGE
from mmdet_attn.plugins.shuffleattention import ShuffleAttention
from mmdet_attn.plugins.simam import SimAM, SimAMConv2d
from mmdet_attn.plugins.skconv2d import SKConv2d
from mmdet_attn.plugins.spm import SPM
from mmdet_attn.plugins.srm import SRM
from mmdet_attn.plugins.tripletattention import TripletAttention

__all__ = [
    'A2',
    'BAM',
    'CAA',
    'CAM',
    'CBAM',
    'ECA',
    'ECANS',
    'EMA',
    'ESE',
    'FCA',
    'GAM',
    'GC',
    'GCT',
    'GE',
    'LSK',
    'LSKA',
    'NAM',
    'PAM',
    'SCSE',
    'SE',
    'SEGC1',
    'SEGC2',
    'SEGC3',
    'SGE',
    'SPM',
    'SRM',
    'Attention',
    'CoordAtt',
    'CrissCross',
    'GSoP',
    'Gate',
    'LSKUnit',
    'NonLocal',
    'PSAConv2d',
    'PolarizedParallel',
    'PolarizedSequential',
    'SEVar1',
    'SEVar2',
    'SEVar3',
    'SKConv2d',
    'ShuffleAttention',
    'SimAM',
    'SimAMConv2d',
    'TripletAttention',
]
