"""ECA-Net's COCO detectors of MMDetection 1.x, converted."""

import functools
import re

import pytest
import torch
from conftest import ROOT, load_config, run_tool
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch.nn import functional as F

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


def head_of(kind, prefix, state, **options):
    """A head of MMDetection 3.x with converted weights."""
    init_default_scope('mmdet')
    cfg = dict(type=kind, in_channels=IN, num_classes=80, **options)
    head = MODELS.build(cfg).eval()
    own = {k.removeprefix(prefix): v for k, v in state.items() if prefix in k}
    load_strictly(head, own)
    return head


def layer(state, name, x, function=F.linear, **options):
    weights = state[f'{name}.weight'], state[f'{name}.bias']
    return function(x, *weights, **options)


@torch.no_grad()
def test_outputs_stay():
    """Class c of COCO is number c + 1 in 1.x, where 0 is the background."""
    state = state_of(ROWS | MASK)
    before = {key: value.clone() for key, value in state.items()}
    converted = ECANET_COCO.convert(state)
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert len(converted) == len(state)

    hidden = x = torch.randn(2, IN, POOL, POOL)
    for name in ('shared_fcs.0', 'shared_fcs.1'):
        hidden = layer(state, f'bbox_head.{name}', hidden.flatten(1)).relu()
    scores = layer(state, 'bbox_head.fc_cls', hidden).softmax(1)
    deltas = layer(state, 'bbox_head.fc_reg', hidden).reshape(2, 81, 4)
    head = head_of(
        'Shared2FCBBoxHead',
        'roi_head.bbox_head.',
        converted,
        fc_out_channels=MID,
        roi_feat_size=POOL,
    )
    found, moves = head(x)
    close = torch.testing.assert_close
    close(found.softmax(1)[:, :80], scores[:, 1:])
    close(moves.reshape(2, 80, 4), deltas[:, 1:])

    options = dict(function=F.conv_transpose2d, stride=2)
    hidden = layer(state, 'mask_head.upsample', x, **options).relu()
    masks = layer(state, 'mask_head.conv_logits', hidden, F.conv2d)
    options = dict(num_convs=0, conv_out_channels=IN)
    head = head_of('FCNMaskHead', 'roi_head.mask_head.', converted, **options)
    close(head(x), masks[:, 1:])


def test_only_heads_change():
    state = state_of(ROWS | MASK)
    converted = ECANET_COCO.convert(state)
    for key, value in state.items():
        if key.startswith(('rpn_head.', 'neck.')):
            assert converted[key] is value
        else:
            assert key not in converted
            if 'shared_fcs' in key or 'upsample' in key:
                assert torch.equal(converted[f'roi_head.{key}'], value)
    retina = state_of(RETINA)
    assert ECANET_COCO.convert(retina) == retina


@functools.cache
def built(name):
    """A detector of a config, of shapes only."""
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
