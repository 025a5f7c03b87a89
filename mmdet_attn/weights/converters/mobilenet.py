"""MobileNetV2 under the numbers of official checkpoints and under ours."""

from collections.abc import Mapping
from typing import Any

from mmdet_attn.weights.converters.source import CLASSIFIER, Rules, Source
from mmdet_attn.weights.infer_backbone import READ, State

# The names here of features.1 to features.17.
PLACES = [
    f'layer{stage}.{block}'
    for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1), 1)
    for block in range(count)
]


def mobilenet(
    last: str, first_block: Mapping[str, str], block: Mapping[str, str]
) -> Rules:
    """Rules for the whole network.

    Args:
        last: The official name of the last 1x1 convolution and its norm.
        first_block: Official names in `features.1.conv` and ours.
        block: The same for the other blocks.
    """
    return {
        'features.0.0': 'conv1.conv',
        'features.0.1': 'conv1.bn',
        f'{last}.0': 'conv2.conv',
        f'{last}.1': 'conv2.bn',
        **CLASSIFIER,
        **{
            f'features.{n}.conv.{old}': f'{place}.{new}'
            for n, place in enumerate(PLACES, 1)
            for old, new in (first_block if n == 1 else block).items()
        },
    }


def mobilenet_with(
    plugin: str, argument: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of a MobileNetV2 with a plugin.

    Args:
        plugin: The type of the plugin.
        argument: Its argument that differs by place.
        values: The argument by place, as for `at` of `mmdet_attn.insert`.
    """
    return dict(
        type='mmdet_attn.insert',
        host=dict(type='mmdet.MobileNetV2'),
        plugins=[
            dict(cfg={'type': plugin, argument: value}, at=at)
            for at, value in values.items()
        ],
    )


def coordatt_cfg(state: State) -> dict[str, Any]:
    # In the widest block the fewest hidden channels do not hide r.
    weight = state['features.17.conv.6.conv1.weight']
    return mobilenet_with(
        'mmdet_attn.CoordAtt',
        'reduction',
        {'layer[2-7].*.depthwise_conv': READ['reduction'](weight)},
    )


COORDATT = Source(
    'coordatt',
    'ImageNet MobileNetV2 (mbv2_ca) of houqb/CoordAttention',
    mobilenet(
        'conv',
        {
            '0': 'depthwise_conv.conv',
            '1': 'depthwise_conv.bn',
            '3': 'linear_conv.conv',
            '4': 'linear_conv.bn',
        },
        {
            '0': 'expand_conv.conv',
            '1': 'expand_conv.bn',
            '3': 'depthwise_conv.conv',
            '4': 'depthwise_conv.bn',
            '6.conv1': 'coordatt.conv1',
            '6.bn1': 'coordatt.norm',
            '6.(conv2|conv_h)': 'coordatt.conv_h',
            '6.(conv3|conv_w)': 'coordatt.conv_w',
            '7': 'linear_conv.conv',
            '8': 'linear_conv.bn',
        },
    ),
    coordatt_cfg,
)
