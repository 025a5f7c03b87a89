"""SE-ResNets of MMPretrain."""

from mmdet_attn.weights.converters.rename import (
    BLOCK,
    IN_BACKBONE,
    se_as_linear,
)
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import reduction, resnet_with

MMPRETRAIN = Source(
    'mmpretrain',
    'ImageNet SE-ResNets of MMPretrain (mmclassification)',
    {
        **IN_BACKBONE,
        rf'backbone\.({BLOCK})\.se_layer\.conv([12])\.conv\.(weight|bias)': (
            r'\1.se.fc\2.\3'
        ),
        r'head\.fc\.(weight|bias)': None,
    },
    resnet_with(
        'mmdet_attn.SE',
        dict(reduction=(r'se_layer\.conv1\.conv\.weight', reduction)),
    ),
    reshape=se_as_linear,
)
