"""Sources of ResNets whose official names are those of torchvision."""

from typing import Any

import torch

from mmdet_attn.errors import InputError
from mmdet_attn.plugins import FCA
from mmdet_attn.weights.converters.source import (
    BLOCK,
    CLASSIFIER,
    Rules,
    Source,
    in_blocks,
    resnet,
    se_as_linear,
)
from mmdet_attn.weights.infer_backbone import (
    READ,
    State,
    depth_of,
    kind_of,
    resnet_with,
    resnet_with_conv2,
)

RESNET = resnet() | CLASSIFIER
WITHOUT_CONV2 = resnet(convs='13') | CLASSIFIER

TORCHVISION = Source(
    'torchvision',
    'ImageNet ResNets of torchvision, which have no attention',
    RESNET,
    lambda state: dict(type='mmdet.ResNet', depth=depth_of(state)),
    plain=True,
)

MMPRETRAIN = Source(
    'mmpretrain',
    'ImageNet SE-ResNets of MMPretrain (mmclassification)',
    resnet('backbone.')
    | in_blocks(
        {'se_layer.conv1.conv': 'se.fc1', 'se_layer.conv2.conv': 'se.fc2'},
        'backbone.',
    )
    | {'head.fc': None},
    resnet_with('mmdet_attn.SE', reduction='se_layer.conv1.conv.weight'),
    reshape=se_as_linear,
)

CBAM = Source(
    'cbam',
    'ImageNet ResNets with CBAM of Jongchan/attention-module',
    RESNET
    | in_blocks(
        {
            'cbam.ChannelGate.mlp.1': 'cbam.channel.fc1',
            'cbam.ChannelGate.mlp.3': 'cbam.channel.fc2',
            'cbam.SpatialGate.spatial.conv': 'cbam.spatial.conv',
            'cbam.SpatialGate.spatial.bn': 'cbam.spatial.norm',
        }
    ),
    resnet_with('mmdet_attn.CBAM', reduction='cbam.ChannelGate.mlp.1.weight'),
)

# Layers of BAM under the official names and ours.
BAM_LAYERS = {
    'channel_att.gate_c.gate_c_fc_0': 'channel.0',
    'channel_att.gate_c.gate_c_bn_1': 'channel.1',
    'channel_att.gate_c.gate_c_fc_final': 'channel.3',
    'spatial_att.gate_s.gate_s_conv_reduce0': 'spatial.0',
    'spatial_att.gate_s.gate_s_bn_reduce0': 'spatial.1',
    'spatial_att.gate_s.gate_s_conv_di_0': 'spatial.3',
    'spatial_att.gate_s.gate_s_bn_di_0': 'spatial.4',
    'spatial_att.gate_s.gate_s_conv_di_1': 'spatial.6',
    'spatial_att.gate_s.gate_s_bn_di_1': 'spatial.7',
    'spatial_att.gate_s.gate_s_conv_final': 'spatial.9',
}


def bam_rules(state: State) -> Rules:
    """There BAM follows a stage; here it is in the stage's last block."""
    kind = kind_of(state)
    return RESNET | {
        f'bam{stage}.{layer}': f'layer{stage}.{count - 1}.bam.{name}'
        for stage, count in enumerate(kind.blocks[:3] if kind else (), 1)
        for layer, name in BAM_LAYERS.items()
    }


BAM = Source(
    'bam',
    'ImageNet ResNets with BAM of Jongchan/attention-module',
    bam_rules,
    resnet_with(
        'mmdet_attn.BAM',
        reduction='channel_att.gate_c.gate_c_fc_0.weight',
        position='after_block',
        blocks=(-1,),
        stages=(1, 2, 3),
    ),
    # Linear layers there are convolutions here.
    reshape=lambda name, value: (
        value[:, :, None, None] if value.dim() == 2 else value
    ),
)

TRIPLET = Source(
    'triplet',
    'ImageNet ResNets with triplet attention of '
    'landskape-ai/triplet-attention',
    RESNET
    | in_blocks(
        {
            f'triplet_attention.{branch}.{old}': (
                f'tripletattention.{name}.{new}'
            )
            # Of the released networks, and of the module's later file.
            for branch, name in (
                ('(ChannelGateH.spatial|cw.conv)', 'cw'),
                ('(ChannelGateW.spatial|hc.conv)', 'hc'),
                ('(SpatialGate.spatial|hw.conv)', 'hw'),
            )
            for old, new in (('conv', 'conv'), ('bn', 'norm'))
        }
    ),
    resnet_with(
        'mmdet_attn.TripletAttention',
        kernel_size=r'\w+.(SpatialGate.spatial|hw.conv).conv.weight',
    ),
)

GSOP = Source(
    'gsop',
    'ImageNet GSoP-Net1 of '
    'ZilinGao/Global-Second-order-Pooling-Convolutional-Networks',
    RESNET
    | in_blocks(
        {  # there the layers lie directly in the block
            'conv_for_DR': 'gsop.reduce',
            'bn_for_DR': 'gsop.norm',
            'row_bn': 'gsop.row_norm',
            'row_conv_group': 'gsop.row_conv',
            'fc_adapt_channels': 'gsop.expand',
        }
    ),
    resnet_with(
        'mmdet_attn.GSoP',
        att_dim='conv_for_DR.weight',
        blocks=(-1,),
        stages=(),
        strides=(1, 2, 2, 1),  # their last stage keeps the map's size
    ),
)

SGE = Source(
    'sge',
    'ImageNet ResNets with SGE of implus/PytorchInsight',
    RESNET | in_blocks({'sge': 'sge'}),
    resnet_with('mmdet_attn.SGE', groups='sge.weight'),
)


def sanet_cfg(state: State) -> dict[str, Any]:
    depth = depth_of(state, bottleneck=True)
    k = state['layer1.0.sa.cweight'].shape[1]
    groups = len(state['layer1.0.conv3.weight']) // (2 * k)
    module = dict(type='mmdet_attn.ShuffleAttention', groups=groups)
    plugins = [dict(cfg=module, position='after_conv3')]
    return dict(type='mmdet.ResNet', depth=depth, plugins=plugins)


SANET = Source(
    'sanet',
    'ImageNet SA-Net-50 and -101 of wofmanaf/SA-Net',
    RESNET | in_blocks({'sa(.gn)?': r'shuffleattention\2'}),
    sanet_cfg,
)

SIMAM = Source(
    'simam',
    'ImageNet ResNets (50 and deeper) with SimAM of ZjjConan/SimAM',
    WITHOUT_CONV2 | in_blocks({'conv2.0': 'conv2'}),
    # Their training has 0.1 where the paper has 1e-4.
    lambda state: resnet_with_conv2(
        state, type='mmdet_attn.SimAMConv2d', lambda_=0.1
    ),
)


def epsanet_cfg(state: State) -> dict[str, Any]:
    depth_of(state, bottleneck=True)
    conv2 = 'layer1.0.conv2'
    convs = [state[f'{conv2}.conv_{n}.weight'] for n in (1, 2, 3, 4)]
    planes = len(state['layer1.0.conv1.weight'])
    return resnet_with_conv2(
        state,
        type='mmdet_attn.PSAConv2d',
        kernel_sizes=tuple(map(READ['kernel_size'], convs)),
        groups=tuple(planes // conv.shape[1] for conv in convs),
        reduction=READ['reduction'](state[f'{conv2}.se.fc1.weight']),
    )


EPSANET = Source(
    'epsanet',
    'ImageNet EPSANet-50 and -101 (small) of murufeng/EPSANet',
    WITHOUT_CONV2
    | in_blocks({f'conv2.conv_{n + 1}': f'conv2.convs.{n}' for n in range(4)})
    | in_blocks({f'conv2.se.fc{n}': f'conv2.se.fc{n}' for n in (1, 2)}),
    epsanet_cfg,
    reshape=se_as_linear,
)


def fcanet_rules(state: State) -> Rules:
    """Refuse a DCT that is not the one that our module computes."""
    for key, value in state.items():
        if not key.endswith('.att.dct_layer.weight'):
            continue
        shape = tuple(value.shape)
        if len(shape) != 3 or shape[1] != shape[2]:
            raise InputError(f'{key} must be of shape (C, P, P), got {shape}.')
        module = FCA(shape[0], dct_size=shape[1])
        maps = torch.einsum('fh,fw->fhw', module.u, module.v)
        basis = maps.repeat_interleave(shape[0] // len(maps), 0)
        if not torch.allclose(value.float(), basis, rtol=1e-3, atol=1e-5):
            raise InputError(
                f'{key} is not the DCT of frequencies top16, with which this '
                'module computes.'
            )
    return (
        RESNET
        | in_blocks({'att.fc.0': 'fca.fc1', 'att.fc.2': 'fca.fc2'})
        # Our module computes it from its arguments.
        | {f'{BLOCK}.att.dct_layer': None}
    )


FCANET = Source(
    'fcanet',
    'ImageNet FcaNets of cfzd/FcaNet',
    fcanet_rules,
    resnet_with(
        'mmdet_attn.FCA',
        dct_size='att.dct_layer.weight',
        reduction='att.fc.0.weight',
    ),
)


def gcnet_cfg(state: State) -> dict[str, Any]:
    def has(part: str) -> bool:
        return any(f'.{part}.' in key for key in state)

    depth_of(state, bottleneck=True)
    gc = dict(
        pooling='att' if has('conv_mask') else 'avg',
        fusion=tuple(k for k in ('mul', 'add') if has(f'channel_{k}_conv')),
    )
    layer = 'context_block.channel_(add|mul)_conv.0.weight'
    return resnet_with('mmdet_attn.GC', gc, stages=(), reduction=layer)(state)


GCNET = Source(
    'gcnet',
    'COCO detectors of xvjiarui/GCNet or of MMDetection (gcnet): the backbone',
    resnet('backbone.')
    | in_blocks(
        {r'context_block.(channel_(add|mul)_conv.[013]|conv_mask)': r'gc.\2'},
        'backbone.',
    )
    | {r'(neck|rpn_head|roi_head|bbox_head|mask_head)\b\S*': None},
    gcnet_cfg,
)
