"""ECA-Net's COCO detectors of MMDetection 1.x, converted.

The heads of 1.x are written out in numpy. On a feature map of one pixel a
3 x 3 convolution is its central weight.
"""

import functools
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, load_config, run_tool
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_attn.errors import InputError
from mmdet_attn.weights.converters.ecanet_coco import ECANET_COCO
from mmdet_attn.weights.fit import load_strictly

RELEASED = sorted(f.stem for f in ROOT.glob('configs/released/*.py'))
IN, MID, POOL = 3, 5, 2  # channels, hidden units, size of a region
ROWS = {
    'bbox_head.shared_fcs.0': (MID, IN * POOL**2),
    'bbox_head.shared_fcs.1': (MID, MID),
    'bbox_head.fc_cls': (81, MID),
    'bbox_head.fc_reg': (4 * 81, MID),
    'rpn_head.rpn_conv': (IN, IN, 3, 3),
    'rpn_head.rpn_cls': (3, IN, 1, 1),
    'rpn_head.rpn_reg': (12, IN, 1, 1),
}
MASK = {
    'mask_head.upsample': (IN, IN, 2, 2),
    'mask_head.conv_logits': (81, IN, 1, 1),
}
RETINA = {
    'bbox_head.cls_convs.0.conv': (IN, IN, 3, 3),
    'bbox_head.reg_convs.0.conv': (IN, IN, 3, 3),
    'bbox_head.retina_cls': (9 * 80, IN, 3, 3),
    'bbox_head.retina_reg': (9 * 4, IN, 3, 3),
}


def state_of(shapes):
    """Random weights and biases of 1.x."""
    torch.manual_seed(0)
    state = {'neck.fpn_convs.0.conv.weight': torch.randn(2, 2)}
    for layer, shape in shapes.items():
        state[f'{layer}.weight'] = torch.randn(shape)
        state[f'{layer}.bias'] = torch.randn(shape[0])
    return state


def part(cls, prefix, state, **kwargs):
    """A head of MMDetection 3.x, or its box coder, with converted weights."""
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    head = MODELS.build(dict(type=cls, **kwargs)).eval()
    own = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
    load_strictly(head, own)
    return head


def layer(state, name, x):
    """A fully connected layer, or a convolution at one pixel."""
    weight = state[f'{name}.weight'].numpy().astype(float)
    if weight.ndim == 4:
        weight = weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
    return x @ weight.T + state[f'{name}.bias'].numpy()


def relu(x):
    return np.maximum(x, 0)


def softmax(x):
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


def decode(boxes, deltas):
    """1.x, without clipping of sizes: the deltas here are small."""
    deltas = deltas * [0.1, 0.1, 0.2, 0.2]
    size = boxes[:, 2:] - boxes[:, :2] + 1
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 + size * deltas[:, :2]
    size = size * np.exp(deltas[:, 2:])
    found = [middle - size / 2 + 0.5, middle + size / 2 - 0.5]
    return np.clip(np.concatenate(found, 1), 0, 499)


def box_outputs(state):
    """Scores and boxes of each of the 80 classes: 1.x's and 3.x's."""
    boxes = np.float32([[30, 40, 129, 99], [200, 180, 300, 420]])
    x = torch.randn(2, IN, POOL, POOL)
    hidden = x.numpy().reshape(2, -1)
    for index in (0, 1):
        hidden = relu(layer(state, f'bbox_head.shared_fcs.{index}', hidden))
    scores = softmax(layer(state, 'bbox_head.fc_cls', hidden))
    deltas = layer(state, 'bbox_head.fc_reg', hidden).reshape(2, 81, 4)
    # Class c of COCO is number c + 1.
    expected = [decode(boxes, deltas[:, c + 1]) for c in range(80)]
    old = scores[:, 1:], np.stack(expected, 1)

    def new(converted):
        head = part(
            'Shared2FCBBoxHead',
            'roi_head.bbox_head.',
            converted,
            in_channels=IN,
            fc_out_channels=MID,
            roi_feat_size=POOL,
            num_classes=80,
            bbox_coder=dict(
                type='mmdet_attn.LegacyBoxCoder',
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
        )
        rois = torch.tensor(np.insert(boxes, 0, 0, axis=1))
        found = head.predict_by_feat(
            [rois], *([out] for out in head(x)), [dict(img_shape=(500, 500))]
        )[0]
        return found.scores[:, :80], found.bboxes.reshape(2, 80, 4)

    return old, new


def mask_outputs(state):
    """Mask logits of each of the 80 classes: 1.x's and 3.x's."""
    x = torch.randn(2, IN, 4, 4)
    up = state['mask_head.upsample.weight'].numpy()
    big = np.einsum('ncyx,coij->noyixj', x.numpy(), up).reshape(2, IN, 8, 8)
    big += state['mask_head.upsample.bias'].numpy()[:, None, None]
    pixels = relu(big).transpose(0, 2, 3, 1).reshape(-1, IN)
    logits = layer(state, 'mask_head.conv_logits', pixels)
    old = logits.reshape(2, 8, 8, 81).transpose(0, 3, 1, 2)[:, 1:]

    def new(converted):
        head = part(
            'FCNMaskHead',
            'roi_head.mask_head.',
            converted,
            num_convs=0,
            in_channels=IN,
            conv_out_channels=IN,
            num_classes=80,
        )
        return (head(x),)

    return (old,), new


def dense_outputs(state, kind, names):
    """Scores and deltas of each anchor: 1.x's and 3.x's."""
    x = torch.randn(1, IN, 1, 1)
    pixel = x.numpy().reshape(1, IN)
    old = []
    for conv, last in names:
        hidden = relu(layer(state, conv, pixel))
        old.append(layer(state, last, hidden))
    prefix = names[0][0].split('.')[0] + '.'

    def new(converted):
        options = dict(num_classes=80, stacked_convs=1)
        if kind == 'RPNHead':
            cfg = Config.fromfile(ROOT / 'configs/faster_rcnn_r50.py').model
            options = dict(anchor_generator=cfg.rpn_head.anchor_generator)
        head = part(
            kind,
            prefix,
            converted,
            in_channels=IN,
            feat_channels=IN,
            **options,
        )
        cls, reg = head([x] * len(head.prior_generator.strides))
        return cls[0].reshape(1, -1), reg[0].reshape(1, -1)

    return old, new


def rpn_outputs(state):
    conv = 'rpn_head.rpn_conv'
    return dense_outputs(
        state,
        'RPNHead',
        [(conv, 'rpn_head.rpn_cls'), (conv, 'rpn_head.rpn_reg')],
    )


def retina_outputs(state):
    return dense_outputs(
        state,
        'RetinaHead',
        [
            ('bbox_head.cls_convs.0.conv', 'bbox_head.retina_cls'),
            ('bbox_head.reg_convs.0.conv', 'bbox_head.retina_reg'),
        ],
    )


def difference(pair):
    return max(
        np.abs(old - new.detach().numpy()).max()
        for old, new in zip(*pair, strict=True)
    )


def mmdet_bias_rule(key, value):
    """What upgrade_model_version.py of MMDetection 3.x makes of a bias."""
    if key.endswith(('fc_cls.bias', 'retina_cls.bias', 'rpn_cls.bias')):
        return torch.cat([value[1:], value[:1]])
    if key.endswith('fc_reg.bias'):
        return value[:-4]
    if key.endswith('conv_logits.bias'):
        return value[:-1]
    return None


CASES = {
    'boxes': (ROWS, box_outputs, 'fc_reg'),
    'masks': (ROWS | MASK, mask_outputs, 'conv_logits'),
    'proposals': (ROWS, rpn_outputs, 'rpn_cls'),
    'retina': (RETINA, retina_outputs, 'retina_cls'),
}


@pytest.mark.parametrize('case', CASES)
@torch.no_grad()
def test_outputs_stay(case):
    """Every class and anchor; and a bias moved by one would be noticed."""
    shapes, outputs, wrong = CASES[case]
    state = state_of(shapes)
    before = {key: value.clone() for key, value in state.items()}
    converted = ECANET_COCO.convert(state)
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert len(converted) == len(state)
    old, new = outputs(state)
    assert difference((old, new(converted))) < 1e-4 * max(
        1, np.abs(old[-1]).max()
    )

    moved = dict(converted)
    for key, value in state.items():
        bias = mmdet_bias_rule(key, value)
        if bias is not None:
            target = key if key in converted else f'roi_head.{key}'
            assert bias.shape == converted[target].shape
            same = torch.equal(bias, converted[target])
            # Of all its rules for biases this is the only one that holds.
            assert same == key.endswith('fc_cls.bias')
            moved[target] = bias
    assert any(wrong in key for key in moved)
    assert difference((old, new(moved))) > 0.05


def test_only_heads_change():
    state = state_of(ROWS | MASK)
    converted = ECANET_COCO.convert(state)
    for key, value in state.items():
        if key.startswith(('rpn_head.', 'neck.')):
            assert converted[key] is value
        else:
            assert key not in converted
            assert f'roi_head.{key}' in converted
    retina = state_of(RETINA)
    assert ECANET_COCO.convert(retina) == retina


@functools.cache
def built(name):
    """A detector of a config, of shapes only."""
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(load_config(f'released/{name}').model)


def as_released(name):
    """A detector of ours, and its weights as 1.x would have them."""
    model, state = built(name), {}
    for key, value in model.state_dict().items():
        key = key.removeprefix('roi_head.')
        more = {'fc_reg': 4, 'conv_logits': 1}.get(key.split('.')[-2], 0)
        state[key] = torch.cat([value[:more], value]) if more else value
    return model, state


def without(state, pattern):
    return {k: v for k, v in state.items() if not re.match(pattern, k)}


@pytest.mark.parametrize('name', RELEASED)
def test_released_config_takes_the_converted_weights(name):
    model, state = as_released(name)
    load_strictly(model, ECANET_COCO.convert(state))
    found = ECANET_COCO.backbone_cfg(state)
    expected = load_config(f'released/{name}').model

    def sizes(cfg):
        """Kernel sizes by stage."""
        plugins = cfg.backbone.pop('plugins')
        return [
            plugin['cfg']['kernel_size']
            for stage in range(4)
            for plugin in plugins
            if plugin.get('stages', (True,) * 4)[stage]
        ]

    assert sizes(found) == sizes(expected)
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['mask_rcnn_r50_eca_k3377', 'retinanet_r50_eca_k3377']
)
def test_tool_converts(name, tmp_path):
    """From the command line, as the README has it."""
    _, state = as_released(name)
    # One number each, however large they look: they are to be small on disk.
    state = {
        f'module.{key}': torch.full((), 0.5).expand(value.shape)
        for key, value in state.items()
    }
    file, output = tmp_path / f'{name}_1x.pth', tmp_path / f'{name}.pth'
    torch.save(dict(state_dict=state, meta=dict(epoch=12)), file)
    printed = run_tool(
        'tools/model_converters/convert_checkpoint.py',
        'ecanet-coco',
        file,
        output,
        '--config',
        f'configs/released/{name}.py',
    )
    assert 'which fit configs/released/' in printed
    converted = torch.load(output, weights_only=True)
    assert converted['meta']['source'] == 'ecanet-coco'
    if name.startswith('mask'):
        heads = converted['state_dict']
        assert len(heads['roi_head.mask_head.conv_logits.bias']) == 80
        assert len(heads['roi_head.bbox_head.fc_reg.bias']) == 320


def test_host_takes_kernel_sizes_from_the_weights():
    _, state = as_released('retinanet_r50_eca_k3377')
    for key in list(state):
        if key.startswith('backbone.layer2.') and '.eca.' in key:
            state[key] = torch.empty(1, 1, 5, device='meta')
    plugins = ECANET_COCO.backbone_cfg(state).backbone.plugins
    assert [p['cfg']['kernel_size'] for p in plugins] == [3, 5, 7]
    assert plugins[2]['stages'] == (False, False, True, True)
    key = 'backbone.layer2.1.eca.conv.weight'
    with pytest.raises(InputError, match=r'says 5, 9 in stage 2'):
        ECANET_COCO.backbone_cfg({**state, key: torch.empty(1, 1, 9)})
    with pytest.raises(InputError, match='network of 3, 4, 5, 3 blocks'):
        ECANET_COCO.backbone_cfg(without(state, r'.*\.layer3\.5\.'))


@pytest.mark.parametrize(('block', 'count'), [(r'1', 1), (r'\d', 4)])
def test_a_block_without_its_module_is_refused(block, count):
    model, state = as_released('retinanet_r50_eca_k3377')
    less = without(state, rf'backbone\.layer2\.{block}\.eca')
    with pytest.raises(InputError, match=f'{count} in the config, not in the'):
        load_strictly(model, ECANET_COCO.convert(less))


@pytest.mark.parametrize(
    'function', [ECANET_COCO.convert, ECANET_COCO.backbone_cfg]
)
@pytest.mark.parametrize(
    ('shapes', 'change', 'message'),
    [
        ({}, {'roi_head.bbox_head.fc_cls.bias': 81}, 'converted already'),
        (ROWS, {'bbox_head.fc_reg.bias': 320}, '320 rows.*324.*already'),
        (ROWS | MASK, {'mask_head.conv_logits.weight': 80}, 'already'),
        (RETINA, {'bbox_head.retina_cls.bias': 180}, '180 rows.*720.*COCO'),
        (ROWS, {'bbox_head.fc_cls.weight': 21}, '21 rows.*81 for the 80'),
        (ROWS, {'bbox_head.fc_cls.bias': None}, r'fc_cls.bias has 0 rows'),
        ({}, {'fc.weight': 1000}, r'fc_cls.weight has 0 rows'),
    ],
)
def test_what_is_no_such_detector_is_refused(
    function, shapes, change, message
):
    state = state_of(shapes)
    for key, rows in change.items():
        if rows is None:
            del state[key]
        else:
            state[key] = torch.zeros(rows)
    with pytest.raises(InputError, match=message):
        function(state)


@pytest.mark.parametrize(
    ('shapes', 'key'),
    [(ROWS, 'semantic_head.a'), (RETINA, 'rpn_head.rpn_cls.bias')],
)
def test_parts_of_other_detectors_are_refused(shapes, key):
    state = state_of(shapes) | {key: torch.zeros(3)}
    with pytest.raises(InputError, match=f'(?s)1 keys.*{key}'):
        ECANET_COCO.convert(state)
