"""Every config: parses, builds, carries its plugins, trains; the schedule."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from mmdet_attn import ECA, SE

DETECTORS = ('faster_rcnn', 'mask_rcnn', 'retinanet')
PAPER = [
    f'{detector}_{depth}{attention}'
    for detector in DETECTORS
    for depth in ('r50', 'r101')
    for attention in ('', '_se', '_eca')
]
DEMO = [f'demo/{detector}_r50_eca_shapes' for detector in DETECTORS]
ATTENTION = {'se': SE, 'eca': ECA}
KERNELS = {'r50': (3, 5, 5, 7), 'r101': (3, 3, 5, 7)}
BLOCKS = {'r50': (3, 4, 6, 3), 'r101': (3, 4, 23, 3)}


def load(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def build(cfg):
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


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
    assert leaves == {*PAPER, *DEMO}


@pytest.mark.parametrize('name', PAPER + DEMO)
def test_builds_and_trains(name):
    cfg = load(name)
    masks = 'mask_rcnn' in name
    for depth in ('r50', 'r101'):
        if depth in name:
            blocks, kernels = BLOCKS[depth], KERNELS[depth]
    model = build(cfg)
    kind = next((k for k in ATTENTION if f'_{k}' in name), None)
    for stage, count in enumerate(blocks):
        layer = getattr(model.backbone, f'layer{stage + 1}')
        assert len(layer) == count
        for block in layer:
            if kind is None:
                assert not block.with_plugins
                continue
            assert block.after_conv3_plugin_names == [kind]
            plugin = getattr(block, kind)
            assert type(plugin) is ATTENTION[kind]
            assert plugin.in_channels == block.planes * 4
            assert plugin.alpha == 0
            if kind == 'eca':
                assert plugin.conv.kernel_size == (kernels[stage],)
            else:
                assert plugin.fc1.bias is None

    cfg.model.backbone.init_cfg = None  # nothing is downloaded in tests
    model.train()
    data = model.data_preprocessor(batch(masks), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    loss, log = model.parse_losses(losses)
    assert torch.isfinite(loss), log
    assert ('loss_mask' in log) == masks
    loss.backward()
    frozen = cfg.model.backbone.frozen_stages
    for key, parameter in model.named_parameters():
        if (
            key.startswith(('backbone.conv1', 'backbone.layer1'))
            and frozen > 0
        ):
            assert parameter.grad is None, key
        elif key.endswith('alpha'):
            assert parameter.grad.abs() > 0, key
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


def test_learning_rate_of_every_iteration():
    """Over 12 epochs at the length of COCO train2017: 117,266 images, 8 each.

    The rule is that of MMDetection 1.x: from a third of the rate, linearly,
    to all of it at iteration 500; a tenth from epoch 9, a hundredth from 12.
    """
    length = 117_266 // 8 + 1
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


@pytest.mark.parametrize('name', ['faster_rcnn_r50_eca', 'faster_rcnn_r50_se'])
def test_identity_start_changes_no_bit(name):
    """Stock ResNet and the same weights with fresh plugins: equal outputs."""
    cfg = load(name)
    with_plugins = build(cfg).eval().backbone
    cfg.model.backbone.plugins = None
    plain = build(cfg).eval().backbone
    missing, unexpected = with_plugins.load_state_dict(
        plain.state_dict(), strict=False
    )
    assert missing
    assert not unexpected
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for ours, stock in zip(with_plugins(x), plain(x), strict=True):
            assert torch.equal(ours, stock)


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
    for file in sorted(Path(ROOT, 'configs').rglob('*.py')):
        text = file.read_text()
        assert text not in texts, (file, texts[text])
        texts[text] = file
    leaves = [ROOT / 'configs' / f'{name}.py' for name in PAPER]
    assert all(len(file.read_text().splitlines()) <= 6 for file in leaves)
