"""Triplet Attention's own ImageNet networks."""

from mmdet_attn.weights.converters.rename import BLOCK, NORM, RESNET
from mmdet_attn.weights.converters.source import Source
from mmdet_attn.weights.infer_backbone import last_dim, resnet_with

# Of the released networks, and of the module's later file.
BRANCHES = {
    'ChannelGateH.spatial': 'cw',
    'ChannelGateW.spatial': 'hc',
    'SpatialGate.spatial': 'hw',
    'cw.conv': 'cw',
    'hc.conv': 'hc',
    'hw.conv': 'hw',
}
RULES = dict(RESNET)
for branch, name in BRANCHES.items():
    place = rf'({BLOCK})\.triplet_attention\.{branch}'
    target = rf'\1.tripletattention.{name}'
    RULES[rf'{place}\.conv\.weight'] = rf'{target}.conv.weight'
    RULES[rf'{place}\.bn\.{NORM}'] = rf'{target}.norm.\2'

TRIPLET = Source(
    'triplet',
    'ImageNet ResNets with triplet attention of '
    'landskape-ai/triplet-attention',
    RULES,
    resnet_with(
        'mmdet_attn.TripletAttention',
        dict(
            kernel_size=(
                r'triplet_attention\.(SpatialGate\.spatial|hw\.conv)'
                r'\.conv\.weight',
                last_dim,
            )
        ),
    ),
)
