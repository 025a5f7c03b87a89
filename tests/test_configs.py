"""Every config: parses, builds, carries its plugins, trains; the schedule."""

import functools
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from conftest import load_config as load
from mmengine.config import ConfigDict
from mmengine.hooks import ParamSchedulerHook
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import nn

import mmdet_attn
from mmdet_attn.config_files import load_config_file
from mmdet_attn.weights.fit import Fit

DETECTORS = ('faster_rcnn', 'mask_rcnn', 'retinanet')
PAPER = [
    f'{detector}_{depth}{attention}'
    for detector in DETECTORS
    for depth in ('r50', 'r101')
    for attention in ('', '_se', '_eca')
]
# Every module on Faster R-CNN R50, by the name of its config.
ZOO = {
    name.lower(): getattr(mmdet_attn.plugins, name)
    for name in mmdet_attn.plugins.__all__
}
for name in ('attention', 'gate', 'simam'):
    del ZOO[name]
ZOO['simam'] = ZOO.pop('simamconv2d')
OTHER = [
    'faster_rcnn_r101_cbam',
    'mask_rcnn_r50_gc',
    'mask_rcnn_r50_nonlocal',
    *[
        f'mask_rcnn_{b}{a}'
        for b in ('r18', 'r34', 'r152', 'x50')
        for a in ('', '_eca')
    ],
    *[f'yolox_s{a}' for a in ('', '_se', '_eca', '_cbam')],
    'dino_r50',
    'dino_r50_eca',
]
# With `mmdet_attn.insert`: the names of their modules with a plugin.
INSERTED = {
    **{
        f'yolox_s_{a}_backbone': ['stage2.1', 'stage3.1', 'stage4.2']
        for a in ('se', 'eca', 'cbam')
    },
    'rtmdet_tiny_eca': [
        f'stage{stage}.{1 + stage // 4}.blocks.0.conv2'
        for stage in range(1, 5)
    ],
    'retinanet_mobilenetv2_eca': [
        f'layer{layer}.{block}.linear_conv'
        for layer, blocks in enumerate((1, 2, 3, 4, 3, 3, 1), 1)
        for block in range(blocks)
    ],
    'retinanet_swin_t_eca': [
        f'stages.{stage}.blocks.{block}.attn'
        for stage, blocks in enumerate((2, 2, 6, 2))
        for block in range(blocks)
    ],
    'faster_rcnn_hrnet_w18_eca': [
        *(f'layer1.{block}.bn3' for block in range(4)),
        *(
            f'stage{stage}.{module}.branches.{branch}.{block}.bn2'
            for stage, modules in ((2, 1), (3, 4), (4, 3))
            for module in range(modules)
            for branch in range(stage)
            for block in range(4)
        ),
    ],
}
PLAIN = {
    name: name.removesuffix('_backbone').rpartition('_')[0]
    for name in INSERTED
}
# The variants of SE that led to ECA have a folder of their own.
ABLATION = [n for n in ZOO if n.startswith(('sevar', 'segc'))]
LEAVES = sorted(
    {
        *PAPER,
        *OTHER,
        *INSERTED,
        *PLAIN.values(),
        *(f'faster_rcnn_r50_{n}' for n in ZOO if n not in ABLATION),
        *(f'ablation/faster_rcnn_r50_{n}' for n in ABLATION),
    }
)
# The authors' checkpoints of MMDetection 1.x, and their kernel sizes.
RELEASED = {
    'released/faster_rcnn_r50_eca_k5': (5, 5, 5, 5),
    'released/faster_rcnn_r101_eca_k3357': (3, 3, 5, 7),
    'released/mask_rcnn_r50_eca_k3377': (3, 3, 7, 7),
    'released/mask_rcnn_r101_eca_k3357': (3, 3, 5, 7),
    'released/retinanet_r50_eca_k3377': (3, 3, 7, 7),
    'released/retinanet_r101_eca_k3357': (3, 3, 5, 7),
}
SMALL = ['faster_rcnn_r50_eca_small']
DEMO = [f'demo/{detector}_r50_eca_shapes' for detector in DETECTORS]
# Blocks in each stage, and the kernel sizes of ECA there.
NETWORKS = {
    'r18': ((2, 2, 2, 2), (3, 5, 7, 7)),
    'r34': ((3, 4, 6, 3), (3, 3, 5, 7)),
    'r50': ((3, 4, 6, 3), (3, 5, 5, 7)),
    'r101': ((3, 4, 23, 3), (3, 3, 5, 7)),
    'r152': ((3, 8, 36, 3), (3, 3, 5, 7)),
    'x50': ((3, 4, 6, 3), (5, 5, 5, 7)),
}
# Where not every block has the module: (stage, block).
PLACES = {
    'bam': [(1, 2), (2, 3), (3, 5)],
    'gsop': [(1, 2), (2, 3), (3, 5), (4, 2)],
    'nonlocal': [(3, 4)],
    'a2': [(2, 1), (2, 3), (3, 1), (3, 3), (3, 5)],
    'pam': [(4, 2)],
    'cam': [(4, 2)],
    'crisscross': [(4, 2)],
    'spm': [(1, 2), (2, 3), (3, 5), (4, 0), (4, 1), (4, 2)],
    'gc': [(s, b) for s in (2, 3, 4) for b in range((3, 4, 6, 3)[s - 1])],
}
# Modules of so many parameters stand behind the 3x3 convolution.
AFTER_CONV2 = ('ese', 'polarizedparallel', 'polarizedsequential')
AFTER_CONV2 += ('lsk', 'lskunit', 'lska', 'caa')
AFTER_BLOCK = ('bam', 'nonlocal', 'a2', 'pam', 'cam', 'gam', 'crisscross')


def build(cfg):
    """A part of a config; nothing is initialised, so nothing downloaded."""
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(cfg)


@functools.cache
def structure(name):
    """The model of a config, without memory for its weights."""
    # Swin reads numbers out of a tensor while it is built.
    with torch.device('cpu' if 'swin' in name else 'meta'):
        return build(load(name).model)


def test_all_leaf_configs_are_known():
    folder = ROOT / 'configs'
    files = [f.relative_to(folder) for f in folder.rglob('*.py')]
    leaves = {str(f.with_suffix('')) for f in files if f.parts[0] != '_base_'}
    imagenet = {f'imagenet/resnet50_{name}' for name in ('none', 'se', 'eca')}
    assert leaves == {*LEAVES, *RELEASED, *DEMO, *SMALL} | imagenet


def parts(name):
    """Depth and attention in the name of a config of a ResNet detector."""
    backbone = name.rpartition('/')[2].removesuffix('_shapes')
    backbone = re.sub('.*rcnn_|retinanet_|dino_', '', backbone)
    depth, _, attention = backbone.partition('_')
    return depth, attention


def places(backbone, cls):
    """The blocks that hold a module of this class: (stage, block)."""
    return [
        (stage, index)
        for stage in range(1, 5)
        for index, block in enumerate(getattr(backbone, f'layer{stage}'))
        if any(type(child) is cls for child in block.children())
    ]


# Those with a place in their blocks.
RESNETS = [
    name
    for name in LEAVES + DEMO
    if parts(name)[0] in NETWORKS and 'gct' not in name
]


@pytest.mark.parametrize('name', RESNETS)
def test_attention_is_in_its_place(name):
    """Class, block, position and channels, as in the module's paper."""
    backbone = structure(name).backbone
    depth, attention = parts(name)
    counts = [len(getattr(backbone, f'layer{s}')) for s in range(1, 5)]
    blocks, kernels = NETWORKS[depth]
    assert tuple(counts) == blocks
    every = [(s + 1, b) for s, n in enumerate(counts) for b in range(n)]
    ours = [
        m for m in backbone.modules() if 'mmdet_attn.pl' in type(m).__module__
    ]
    if not attention:
        assert not ours
        return
    cls = ZOO[attention]
    found = places(backbone, cls)
    assert found == PLACES.get(attention, every)
    assert len([m for m in ours if type(m) is cls]) == len(found)
    for stage, index in found:
        block = getattr(backbone, f'layer{stage}')[index]
        if attention in ('simam', 'psaconv2d', 'skconv2d'):
            assert type(block.conv2) is cls
            continue
        key = cls._abbr_
        # With the width of the middle convolution.
        narrow = depth in ('r18', 'r34') or attention == 'spm'
        if attention in AFTER_BLOCK or narrow:
            position = 'after_conv2' if narrow else 'after_block'
            assert block.inserted == {position: [key]}
        elif attention in AFTER_CONV2:
            assert block.inserted == {'after_conv2': [key]}
        elif depth == 'x50':
            assert block.after_conv3_plugin_names == [key]
        else:
            assert block.inserted == {'after_conv3': [key]}
        plugin = getattr(block, key)
        inner = narrow or attention in AFTER_CONV2
        last = block.conv2 if inner else block.conv3
        assert plugin.in_channels == last.out_channels
        if attention == 'eca':
            kernel = (kernels[stage - 1],)
            assert plugin.conv.kernel_size == kernel or 'demo' in name


def test_gct_is_before_every_convolution():
    """What it returns is what the convolution gets."""
    backbone = load('faster_rcnn_r50_gct').model.backbone
    backbone.host.update(base_channels=8, stem_channels=8, init_cfg=None)
    network = build(backbone)
    network.eval()
    gave, got = [], []
    for name, module in network.named_modules():
        if isinstance(module, mmdet_attn.GCT):
            module.gamma.data.fill_(1)
            module.register_forward_hook(lambda m, args, y: gave.append(y))
        if isinstance(module, nn.Conv2d):
            assert name.startswith(('conv1', 'layer'))
            module.register_forward_hook(lambda m, x, y: got.append(x[0]))
    network(torch.randn(1, 3, 32, 32))
    assert len(gave) == len(got) == 53
    assert all(map(torch.equal, gave, got))


@pytest.mark.parametrize(
    ('attention', 'figure'), [('gct', 67_593), ('spm', 6_117_056)]
)
def test_parameters_of_the_authors_networks(attention, figure):
    """Without the scalars of the identity start, with the classifier."""
    backbone = structure(f'faster_rcnn_r50_{attention}').backbone
    count = sum(p.numel() for p in backbone.parameters() if p.dim())
    assert count + 2_049_000 == 25_557_032 + figure


@pytest.mark.parametrize(
    ('attention', 'without_decay'),
    [('gct', {'beta': 42}), ('srm', {'cfc': 13, 'weight': 13, 'bias': 13})],
)
def test_weight_decay_of_the_authors(attention, without_decay):
    """None on these in the stages that train, the config's on all others."""
    cfg = load(f'faster_rcnn_r50_{attention}')
    model = structure(f'faster_rcnn_r50_{attention}')
    names = {id(p): name for name, p in model.named_parameters()}
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    found = Counter()
    for group in wrapper.optimizer.param_groups:
        assert group['weight_decay'] in (0, 1e-4)
        if not group['weight_decay']:
            for parameter in group['params']:
                name = names[id(parameter)]
                assert f'.{attention}' in name
                found[name.rpartition('.')[2]] += 1
    assert found == without_decay


@pytest.mark.parametrize('name', INSERTED)
def test_plugins_are_inserted(name):
    """In their places; MMDetection's weights on COCO lack nothing else."""
    model, plain = structure(name), structure(PLAIN[name])
    insertions = model.backbone.insertions
    assert [item.at for item in insertions.items] == INSERTED[name]
    cls = ZOO[re.search('_(se|eca|cbam)', name)[1]]
    assert {type(plugin) for plugin in insertions.plugins} == {cls}
    assert all(plugin.starts_as_identity for plugin in insertions.plugins)
    state = plain.state_dict()
    assert Fit(model, state, optional=['identity']).problem() is None
    added = model.state_dict().keys() - state.keys()
    assert all(f'.{cls._abbr_}' in key for key in added)


@pytest.mark.parametrize('name', RELEASED)
def test_released_kernel_sizes(name):
    """One in every block, without alpha: the authors' have none."""
    cfg = load(name)
    assert cfg.model.backbone.init_cfg is None
    backbone = structure(name).backbone
    assert f'_r{backbone.depth}_' in name
    for stage, kernel in enumerate(RELEASED[name], 1):
        for block in getattr(backbone, f'layer{stage}'):
            assert block.inserted == {'after_conv3': ['eca']}
            assert list(block.eca.state_dict()) == ['conv.weight']
            assert block.eca.conv.kernel_size == (kernel,)


@pytest.mark.parametrize('name', [*LEAVES, *RELEASED, *DEMO])
def test_builds(name):
    cfg = load(name)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.type == 'mmdet_attn.FastCocoMetric'
    model = structure(name)
    assert model.with_neck
    assert hasattr(model, 'bbox_head') or model.with_bbox
    assert getattr(model, 'with_mask', False) == ('mask_rcnn' in name)


def check_gradients(cfg, model):
    """None in frozen stages, one in every alpha outside of them."""
    host = cfg.backbone.get('host', cfg.backbone)
    frozen = host.get('frozen_stages', -1)
    parts = ('conv1', 'layer1', 'layer2')[: frozen + 1]
    still = tuple(f'backbone.{part}' for part in parts)
    for key, parameter in model.named_parameters():
        if key.startswith(still):
            assert parameter.grad is None, key
        elif key.endswith('alpha') and not parameter.dim():
            assert parameter.grad.abs() > 0, key


@pytest.mark.parametrize('name', [*LEAVES, *RELEASED])
def test_backbone_and_neck_train(name):
    cfg = load(name).model
    model = nn.Module()
    model.backbone, model.neck = build(cfg.backbone), build(cfg.neck)
    model.train()
    outputs = model.neck(model.backbone(torch.randn(2, 3, 64, 64)))
    loss = sum(output.square().mean() for output in outputs)
    assert loss.isfinite()
    loss.backward()
    check_gradients(cfg, model)


@pytest.mark.parametrize(
    'name',
    [
        *DEMO,
        'yolox_s_eca',
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (*PAPER, *RELEASED, *INSERTED, 'dino_r50_eca')
        ),
    ],
)
def test_trains_and_predicts(name):
    """The others differ from these in their backbones alone."""
    from mmdet.testing import demo_mm_inputs

    cfg = load(name).model
    masks = 'mask_rcnn' in name
    if 'dino' in name:
        # Its queries are more than the places in these images.
        cfg.num_queries = 50
        cfg.backbone.update(init_cfg=None, zero_init_residual=False)
    model = build(cfg)
    if 'dino' in name:
        # Some of its weights are whatever was in memory.
        model.init_weights()
    # YOLOX chooses its image size by the iteration.
    MessageHub.get_instance(name).update_info('iter', 0)
    sizes = [[3, 64, 64]] * 2
    batch = demo_mm_inputs(
        2, sizes, num_classes=5, num_items=[2, 2], with_mask=masks
    )
    model.train()
    data = model.data_preprocessor(batch, True)
    losses = model.loss(data['inputs'], data['data_samples'])
    loss, log = model.parse_losses(losses)
    assert torch.isfinite(loss), log
    assert ('loss_mask' in log) == masks
    loss.backward()
    check_gradients(cfg, model)
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(batch, False)
        model.test_cfg.score_thr = 0.0
        results = model.predict(data['inputs'], data['data_samples'])
    assert len(results) == 2
    assert ('masks' in results[0].pred_instances) == masks


@pytest.mark.parametrize('name', PAPER)
def test_recipe(name):
    """Section 4.1 of the paper, and MMDetection's defaults of its day."""
    cfg = load(name)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4
    )
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=8)
    assert cfg.train_cfg.max_epochs == 12
    backbone = cfg.model.backbone
    assert (backbone.frozen_stages, backbone.norm_eval) == (1, True)
    assert backbone.init_cfg.checkpoint == (
        f'torchvision://resnet{backbone.depth}'
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        steps = {s.type: s for s in loader.dataset.pipeline}
        assert steps['Resize'].scale == (1333, 800)
        assert steps['Resize'].keep_ratio
    steps = {s.type: s for s in cfg.train_pipeline}
    assert steps['RandomFlip'].prob == 0.5
    metrics = ['bbox', 'segm'] if 'mask_rcnn' in name else 'bbox'
    assert cfg.val_evaluator.metric == metrics


@pytest.mark.parametrize('length', [600, 117_266 // 8 + 1])
def test_learning_rate_of_every_iteration(length):
    """Over 12 epochs, also at the length of COCO: 117,266 images, 8 each.

    The rule is that of MMDetection 1.x: from a third of the rate, linearly,
    to all of it at iteration 500; a tenth from epoch 9, a hundredth from 12.
    """
    cfg = load('retinanet_r50')
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(s), default_args=dict(optimizer=wrapper, epoch_length=length)
        )
        for s in cfg.param_scheduler
    ]
    runner = SimpleNamespace(param_schedulers=schedulers)
    hook = ParamSchedulerHook()
    wrong = []
    for epoch in range(12):
        for index in range(length):
            iteration = epoch * length + index
            expected = 0.01 * (0.1 if epoch >= 8 else 1)
            expected *= 0.1 if epoch >= 11 else 1
            if iteration < 500:
                expected *= 1 - (1 - iteration / 500) * (1 - 1 / 3)
            found = wrapper.param_groups[0]['lr']
            if abs(found - expected) > 1e-12:
                wrong.append((iteration, found, expected))
            hook.after_train_iter(runner, index)
        hook.after_train_epoch(runner)
    assert not wrong, wrong[:5]


def stock(backbone):
    """The config of the same network of mmdet without attention."""
    backbone = backbone.get('host', backbone)
    ours = ('plugins', 'plugin', 'narrow', 'dcn', 'stage_with_dcn', 'init_cfg')
    kept = {key: value for key, value in backbone.items() if key not in ours}
    kind = kept['type'].replace('mmdet_attn.Attention', 'mmdet.')
    return ConfigDict(kept | dict(type=kind))


@pytest.mark.parametrize(
    'name',
    [n for n in RESNETS if parts(n)[1] not in ('', 'psaconv2d', 'skconv2d')]
    + ['faster_rcnn_r50_gct', *INSERTED],
)
def test_identity_start_changes_no_bit(name):
    """The plain detector's weights with fresh modules: equal outputs."""
    cfg = load(name).model.backbone
    ours, plain = build(cfg), build(stock(cfg))
    ours.eval(), plain.eval()
    missing, unexpected = ours.load_state_dict(
        plain.state_dict(), strict=False
    )
    assert missing
    assert not unexpected
    # CSPDarknet and HRNet do not take odd sizes.
    size = (64, 96) if name in INSERTED else (65, 97)
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        for one, other in zip(ours(x), plain(x), strict=True):
            assert torch.equal(one, other)


@pytest.fixture(scope='module')
def plain_weights(tmp_path_factory):
    """Plain weights for a backbone config, made once for each network."""
    folder = tmp_path_factory.mktemp('plain')

    def save(backbone):
        cfg = stock(backbone)
        file = folder / f'{cfg.type}{cfg.get("depth", "")}.pth'
        if not file.exists():
            # As a classifier has them, in MMPretrain's layout.
            state = build(cfg).state_dict()
            state = {f'backbone.{key}': value for key, value in state.items()}
            state['head.fc.weight'] = torch.zeros(2, 2)
            torch.save(dict(state_dict=state), file)
        return str(file)

    return save


@pytest.mark.parametrize(
    'name',
    [
        n
        for n in LEAVES
        if 'yolox' not in n and 'swin' not in n and 'r1' not in n
    ],
)
def test_starts_from_plain_weights(name, plain_weights):
    """As shipped: every plugin is accounted for, none is refused."""
    cfg = load(name).model.backbone
    host = cfg.get('host', cfg)
    assert host.init_cfg.type == 'mmdet_attn.AttentionPretrained'
    assert '://' in host.init_cfg.checkpoint
    host.init_cfg.checkpoint = plain_weights(host)
    backbone = build(cfg)
    backbone.init_weights()
    found = backbone.state_dict()
    state = torch.load(host.init_cfg.checkpoint)['state_dict']
    del state['head.fc.weight']
    for key, value in state.items():
        if 'conv2' not in key or 'psa' not in name:
            assert torch.equal(found[key.removeprefix('backbone.')], value)


SMALL_LEAF = """
_base_ = ['mmdet_attn::{}.py', 'mmdet_attn::_base_/small.py']
train_cfg = _base_.small.train_cfg
param_scheduler = _base_.small.param_scheduler
default_hooks = _base_.small.default_hooks
"""


@pytest.mark.parametrize(
    'name', ['retinanet_r50', 'mask_rcnn_r18_eca', 'yolox_s_cbam']
)
def test_schedule_for_small_sets(name, tmp_path):
    """It goes into any config."""
    file = tmp_path / 'mine.py'
    file.write_text(SMALL_LEAF.format(name))
    cfg, base = load_config_file(file), load(name)
    assert cfg.model.neck == base.model.neck
    assert cfg.train_dataloader == base.train_dataloader
    small = load(*SMALL)
    assert cfg.param_scheduler == small.param_scheduler
    warm_up, steps = cfg.param_scheduler
    # 100 photographs by two: 50 iterations an epoch.
    assert warm_up.end <= 50 * cfg.train_cfg.max_epochs / 10
    assert steps.end == cfg.train_cfg.max_epochs
    hook = cfg.default_hooks.checkpoint
    assert hook.type == 'mmdet_attn.CheckpointHook'
    assert hook.interval == cfg.train_cfg.val_interval


def test_the_config_for_small_sets():
    """It differs in schedule and image scale only."""
    cfg, base = load(*SMALL), load('faster_rcnn_r50_eca')
    assert cfg.model == base.model
    for part in ('train', 'val', 'test'):
        scale = cfg[f'{part}_dataloader'].dataset.pipeline
        assert [x.scale for x in scale if 'scale' in x] == [(800, 480)]


def test_no_config_repeats_another():
    texts = {}
    for file in sorted(ROOT.joinpath('configs').rglob('*.py')):
        text = file.read_text()
        assert text not in texts, (file, texts[text])
        texts[text] = file
