"""Every config: parses, builds, carries its plugins, trains; the schedule."""

import functools
from types import SimpleNamespace

import pytest
import torch
from config_files import load
from conftest import ROOT
from mmengine.hooks import ParamSchedulerHook
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

import mmdet_attn

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
    'retinanet_mobilenetv2',
    'retinanet_mobilenetv2_eca',
    *[f'yolox_s{a}' for a in ('', '_se', '_eca', '_cbam')],
]
# The variants of SE that led to ECA have a folder of their own.
ABLATION = [n for n in ZOO if n.startswith(('sevar', 'segc'))]
LEAVES = sorted(
    {
        *PAPER,
        *OTHER,
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
DEMO = [f'demo/{detector}_r50_eca_shapes' for detector in DETECTORS]
KERNELS = {
    'r18': (3, 5, 7, 7),
    'r34': (3, 3, 5, 7),
    'r50': (3, 5, 5, 7),
    'r101': (3, 3, 5, 7),
    'r152': (3, 3, 5, 7),
    'x50': (5, 5, 5, 7),
}
BLOCKS = {
    'r18': (2, 2, 2, 2),
    'r34': (3, 4, 6, 3),
    'r50': (3, 4, 6, 3),
    'r101': (3, 4, 23, 3),
    'r152': (3, 8, 36, 3),
    'x50': (3, 4, 6, 3),
}
# Where not every block has the module: (stage, block).
PLACES = {
    'bam': [(1, 2), (2, 3), (3, 5)],
    'gsop': [(1, 2), (2, 3), (3, 5), (4, 2)],
    'nonlocal': [(3, 4)],
    'a2': [(2, 1), (2, 3), (3, 1), (3, 3), (3, 5)],
    'pam': [(4, 2)],
    'cam': [(4, 2)],
    'gc': [(s, b) for s in (2, 3, 4) for b in range((3, 4, 6, 3)[s - 1])],
}
AFTER_BLOCK = ('bam', 'nonlocal', 'a2', 'pam', 'cam', 'gam')


def build(cfg, part=None):
    """The model, or its backbone, with nothing downloaded."""
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg.model.backbone.init_cfg = None
    return MODELS.build(cfg.model[part] if part else cfg.model)


@functools.cache
def structure(name):
    """The model of a config, without memory for its weights."""
    with torch.device('meta'):
        return build(load(name))


def slow_but(fast, names):
    """All names, of which only some belong to the fast tests."""
    assert set(fast) <= set(names)
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


def batch(masks, size=64):
    """Two images with two objects each, as mmdet's own tests make them."""
    from mmdet.testing import demo_mm_inputs

    return demo_mm_inputs(
        2,
        [[3, size, size]] * 2,
        num_classes=5,
        num_items=[2, 2],
        with_mask=masks,
    )


def test_all_leaf_configs_are_known():
    files = ROOT.joinpath('configs').rglob('*.py')
    leaves = {
        str(f.relative_to(ROOT / 'configs').with_suffix(''))
        for f in files
        if '_base_' not in f.parts
    }
    imagenet = {f'imagenet/resnet50_{name}' for name in ('none', 'se', 'eca')}
    assert leaves == {*LEAVES, *RELEASED, *DEMO} | imagenet


def parts(name):
    """Depth and attention in the name of a config of a ResNet detector."""
    backbone = name.rpartition('/')[2].removesuffix('_shapes')
    backbone = backbone.split('rcnn_')[-1].removeprefix('retinanet_')
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


RESNETS = [n for n in LEAVES + DEMO if 'yolox' not in n and 'mobile' not in n]


@pytest.mark.parametrize('name', RESNETS)
def test_attention_is_in_its_place(name):
    """Class, block, position and channels, as in the module's paper."""
    backbone = structure(name).backbone
    depth, attention = parts(name)
    counts = [len(getattr(backbone, f'layer{s}')) for s in range(1, 5)]
    assert tuple(counts) == BLOCKS[depth]
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
        if attention in ('simam', 'psaconv2d'):
            assert type(block.conv2) is cls
            continue
        key = cls._abbr_
        narrow = depth in ('r18', 'r34')
        if attention in AFTER_BLOCK or narrow:
            position = 'after_conv2' if narrow else 'after_block'
            assert block.inserted == {position: [key]}
        else:
            assert block.after_conv3_plugin_names == [key]
        plugin = getattr(block, key)
        assert plugin.in_channels == block.conv1.in_channels or index == 0
        if attention == 'eca':
            kernel = KERNELS[depth][stage - 1]
            assert plugin.conv.kernel_size == (kernel,) or 'demo' in name


@pytest.mark.parametrize('name', RELEASED)
def test_released_kernel_sizes(name):
    """One in every block, without alpha: the authors' have none."""
    cfg = load(name)
    assert cfg.model.backbone.init_cfg is None
    backbone = structure(name).backbone
    assert f'_r{backbone.depth}_' in name
    for stage, kernel in enumerate(RELEASED[name], 1):
        for block in getattr(backbone, f'layer{stage}'):
            assert block.after_conv3_plugin_names == ['eca']
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


@pytest.mark.parametrize(
    'name', slow_but([*DEMO, 'yolox_s_eca'], [*LEAVES, *RELEASED, *DEMO])
)
def test_trains(name):
    cfg = load(name)
    masks = 'mask_rcnn' in name
    model = build(cfg)
    model.train()
    # YOLOX chooses its image size by the iteration.
    MessageHub.get_instance(name).update_info('iter', 0)
    data = model.data_preprocessor(batch(masks), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    loss, log = model.parse_losses(losses)
    assert torch.isfinite(loss), log
    assert ('loss_mask' in log) == masks
    loss.backward()
    frozen = cfg.model.backbone.get('frozen_stages', -1)
    stem = ('backbone.conv1',) * (frozen >= 0)
    still = stem + ('backbone.layer1',) * (frozen >= 1)
    for key, parameter in model.named_parameters():
        if still and key.startswith(still):
            assert parameter.grad is None, key
        elif key.endswith('alpha'):
            assert parameter.grad.abs() > 0, key
    if name not in (*PAPER, *DEMO, *RELEASED, 'yolox_s_eca'):
        return  # the others differ from these in their backbones alone
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(batch(masks), False)
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


@pytest.mark.parametrize(
    'length', [600, pytest.param(117_266 // 8 + 1, marks=pytest.mark.slow)]
)
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


@pytest.mark.parametrize(
    'name',
    slow_but(
        [
            'faster_rcnn_r50_simam',
            'mask_rcnn_r18_eca',
            'mask_rcnn_x50_eca',
            'retinanet_mobilenetv2_eca',
            *DEMO,
        ],
        [n for n in RESNETS if parts(n)[1] not in ('', 'psaconv2d')]
        + ['retinanet_mobilenetv2_eca'],
    ),
)
def test_identity_start_changes_no_bit(name):
    """The plain detector's weights with fresh modules: equal outputs."""
    with_plugins = build(load(name), 'backbone')
    cfg = load(name).model.backbone
    kind = 'mmdet.MobileNetV2' if 'mobile' in name else 'mmdet.ResNet'
    if cfg.type == 'ResNeXt':
        kind = 'mmdet.ResNeXt'
    for key in ('plugins', 'plugin', 'narrow', 'dcn', 'stage_with_dcn'):
        cfg.pop(key, None)
    cfg.type, cfg.init_cfg = kind, None
    from mmdet.registry import MODELS

    plain = MODELS.build(cfg)
    plain.eval(), with_plugins.eval()
    missing, unexpected = with_plugins.load_state_dict(
        plain.state_dict(), strict=False
    )
    assert missing
    assert not unexpected
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for ours, stock in zip(with_plugins(x), plain(x), strict=True):
            assert torch.equal(ours, stock)


@pytest.fixture(scope='module')
def plain_weights(tmp_path_factory):
    """Plain weights for a backbone config, made once for each network."""
    from mmdet.registry import MODELS

    folder = tmp_path_factory.mktemp('plain')

    def save(backbone):
        kind = backbone.type.removeprefix('mmdet_attn.Attention')
        depth = backbone.get('depth', '')
        file = folder / f'{kind}{depth}.pth'
        if not file.exists():
            cfg = dict(type=f'mmdet.{kind}')
            keys = ('depth', 'groups', 'base_width')
            cfg |= {key: backbone[key] for key in keys if key in backbone}
            state = MODELS.build(cfg).state_dict()
            # As a classifier has them, in MMPretrain's layout.
            state = {f'backbone.{key}': value for key, value in state.items()}
            state['head.fc.weight'] = torch.zeros(2, 2)
            torch.save(dict(state_dict=state), file)
        return str(file)

    return save


@pytest.mark.parametrize(
    'name',
    slow_but(
        [
            'faster_rcnn_r50_cbam',
            'faster_rcnn_r50_eca',
            'faster_rcnn_r50_psaconv2d',
            'retinanet_mobilenetv2_eca',
        ],
        [n for n in LEAVES if 'yolox' not in n and 'r1' not in n],
    ),
)
def test_starts_from_plain_weights(name, plain_weights):
    """As shipped: every plugin is accounted for, none is refused."""
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    cfg = load(name).model.backbone
    assert cfg.init_cfg.type == 'mmdet_attn.AttentionPretrained'
    assert '://' in cfg.init_cfg.checkpoint
    cfg.init_cfg.checkpoint = plain_weights(cfg)
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    state = torch.load(cfg.init_cfg.checkpoint)['state_dict']
    for key, value in backbone.state_dict().items():
        if f'backbone.{key}' in state:
            assert torch.equal(value, state[f'backbone.{key}'])


def test_pretrained_weights_reach_the_plugins(tmp_path):
    """init_cfg loads last: a paper's weights stay, and switch alpha on."""
    cfg = load('faster_rcnn_r50_eca').model.backbone
    cfg.init_cfg = None
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    donor = MODELS.build(cfg)
    state = {
        'module.' + key: value
        for key, value in donor.state_dict().items()
        if not key.endswith('alpha')
    }
    file = tmp_path / 'eca_resnet50_k3557.pth.tar'
    torch.save({'state_dict': state, 'arch': 'eca_resnet50'}, file)
    cfg.init_cfg = dict(type='Pretrained', checkpoint=str(file))
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        if key.endswith('alpha'):
            assert value == 1
        else:
            assert torch.equal(value, state['module.' + key]), key


def test_no_config_repeats_another():
    texts = {}
    for file in sorted(ROOT.joinpath('configs').rglob('*.py')):
        text = file.read_text()
        assert text not in texts, (file, texts[text])
        texts[text] = file
