"""GSoP-Net's own ImageNet networks."""

from mmdet_attn.weights.converters.rename import BLOCK, NORM, RESNET
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import resnet_with

GSOP = Source(
    'gsop',
    'ImageNet GSoP-Net1 of '
    'ZilinGao/Global-Second-order-Pooling-Convolutional-Networks',
    {
        **RESNET,
        # There the layers lie directly in the block.
        rf'({BLOCK})\.conv_for_DR\.(weight|bias)': r'\1.gsop.reduce.\2',
        rf'({BLOCK})\.bn_for_DR\.{NORM}': r'\1.gsop.norm.\2',
        rf'({BLOCK})\.row_bn\.{NORM}': r'\1.gsop.row_norm.\2',
        rf'({BLOCK})\.row_conv_group\.(weight|bias)': r'\1.gsop.row_conv.\2',
        rf'({BLOCK})\.fc_adapt_channels\.(weight|bias)': r'\1.gsop.expand.\2',
    },
    resnet_with(
        'mmdet_attn.GSoP',
        dict(att_dim=(r'conv_for_DR\.weight', len)),
        blocks=(-1,),
        needed=(),
        strides=(1, 2, 2, 1),  # their last stage keeps the map's size
    ),
)
