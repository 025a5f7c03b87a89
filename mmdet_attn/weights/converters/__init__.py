"""Converters of official checkpoints to the names of this package."""

from mmdet_attn.weights.converters.bam import BAM
from mmdet_attn.weights.converters.cbam import CBAM
from mmdet_attn.weights.converters.coordatt import COORDATT
from mmdet_attn.weights.converters.ecanet import ECANET
from mmdet_attn.weights.converters.ecanet_coco import ECANET_COCO
from mmdet_attn.weights.converters.epsanet import EPSANET
from mmdet_attn.weights.converters.fcanet import FCANET
from mmdet_attn.weights.converters.gcnet import GCNET
from mmdet_attn.weights.converters.gsop import GSOP
from mmdet_attn.weights.converters.mmpretrain import MMPRETRAIN
from mmdet_attn.weights.converters.simam import SIMAM
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.converters.timm import TIMM
from mmdet_attn.weights.converters.torchvision import TORCHVISION
from mmdet_attn.weights.converters.triplet import TRIPLET

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        BAM,
        CBAM,
        COORDATT,
        ECANET,
        ECANET_COCO,
        EPSANET,
        FCANET,
        GCNET,
        GSOP,
        MMPRETRAIN,
        SIMAM,
        TIMM,
        TORCHVISION,
        TRIPLET,
    )
}
