"""CBAM's own ImageNet networks."""

from mmdet_attn.weights.converters.rename import BLOCK, NORM, RESNET
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import reduction, resnet_with

GATES = rf'({BLOCK})\.cbam\.(?:ChannelGate|SpatialGate\.spatial)'

CBAM = Source(
    'cbam',
    'ImageNet ResNets with CBAM of Jongchan/attention-module',
    {
        **RESNET,
        rf'{GATES}\.mlp\.1\.(weight|bias)': r'\1.cbam.channel.fc1.\2',
        rf'{GATES}\.mlp\.3\.(weight|bias)': r'\1.cbam.channel.fc2.\2',
        rf'{GATES}\.conv\.weight': r'\1.cbam.spatial.conv.weight',
        rf'{GATES}\.bn\.{NORM}': r'\1.cbam.spatial.norm.\2',
    },
    resnet_with(
        'mmdet_attn.CBAM',
        dict(reduction=(r'cbam\.ChannelGate\.mlp\.1\.weight', reduction)),
    ),
)
