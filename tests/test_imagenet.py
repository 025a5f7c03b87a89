"""The ImageNet recipe, and how its weights go into a detector."""

import pytest
import torch
from conftest import load_config
from mmengine.registry import MODELS, init_default_scope

from mmdet_attn import ECA, SE, Gate

NAMES = ('none', 'se', 'eca')
ADDED = {'none': 0, 'se': 2_514_944, 'eca': 80}


def load(name):
    return load_config(f'imagenet/resnet50_{name}')


@pytest.mark.parametrize('name', NAMES)
def test_recipe(name):
    """Section 4.1; the network is the whole ResNet-50, in the paper's form."""
    cfg = load(name)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4
    )
    assert cfg.param_scheduler.milestones == [30, 60, 90]
    assert cfg.param_scheduler.gamma == 0.1
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.auto_scale_lr.base_batch_size == 256
    steps = {s.type: s for s in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResizedCrop'].scale == 224
    assert steps['RandomFlip'].prob == 0.5
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    parameters = sum(p.numel() for p in backbone.parameters())
    classifier = 2048 * 1000 + 1000
    assert parameters + classifier == 25_557_032 + ADDED[name]
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(
        gate.alpha is None
        for gate in backbone.modules()
        if isinstance(gate, Gate)
    )


@pytest.mark.parametrize('name', ['se', 'eca'])
def test_its_checkpoint_needs_no_conversion(name, tmp_path):
    """As MMPretrain writes it, straight into the detector's config."""
    init_default_scope('mmdet')
    donor = MODELS.build(load(name).model.backbone)
    donor.init_weights()
    state = {f'backbone.{k}': v for k, v in donor.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(1000, 2048)
    file = tmp_path / 'epoch_100.pth'
    torch.save({'meta': {'epoch': 100}, 'state_dict': state}, file)
    cfg = load_config(f'faster_rcnn_r50_{name}')
    cfg.model.backbone.init_cfg.checkpoint = str(file)
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    plugins = [m for m in backbone.modules() if type(m) in (SE, ECA)]
    assert len(plugins) == 16
    assert all(plugin.alpha == 1 for plugin in plugins)
    for key, value in donor.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], value)


@pytest.mark.slow
def test_trains_in_mmpretrain(tmp_path):
    try:
        import mmpretrain.datasets
        import mmpretrain.models  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f'mmpretrain does not import here: {error}')
    import numpy as np
    from mmcv import imwrite
    from mmengine.runner import Runner

    for split in ('train', 'val'):
        for kind in ('cat', 'dog'):
            for index in range(2):
                imwrite(
                    np.random.randint(0, 255, (80, 90, 3), np.uint8),
                    str(tmp_path / split / kind / f'{index}.jpg'),
                )
    cfg = load('eca')
    for key in ('train', 'val', 'test'):
        loader = cfg[f'{key}_dataloader']
        loader.batch_size, loader.num_workers = 2, 0
        loader.persistent_workers = False
        split = 'train' if key == 'train' else 'val'
        loader.dataset.update(
            type='CustomDataset', data_root=str(tmp_path), data_prefix=split
        )
        loader.dataset.pop('split')
    cfg.train_cfg.max_epochs = 1
    cfg.work_dir = str(tmp_path / 'work')
    init_default_scope('mmpretrain')
    try:
        Runner.from_cfg(cfg).train()
    finally:
        init_default_scope('mmdet')
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
