"""Results of trainings beside the paper's, read from mmengine's logs."""

import contextlib
import copy
import functools
import json
import math
import re
from time import sleep
from unittest import mock

import cv2
import pytest
from conftest import ROOT, run_here
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmdet_attn.errors import InputError
from mmdet_attn.study.results.attention import kernel_sizes
from mmdet_attn.study.results.compare import compare
from mmdet_attn.study.results.curves import plot_comparison
from mmdet_attn.study.results.logs import Run, read_runs
from mmdet_attn.study.results.paper import (
    AP,
    FROM_GCNET,
    TABLE_5,
    TABLE_6,
    paper_ap,
    paper_gain,
)
from mmdet_attn.study.results.recipe import recipe
from mmdet_attn.study.results.report import markdown
from mmdet_attn.study.results.rows import identify
from mmdet_attn.study.results.setup import facts
from mmdet_attn.weights.load import register

TOOL = 'tools/analysis_tools/compare_results.py'
LENGTH = 6  # iterations in an epoch, logged every second one
SIZES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
LOADED = """\
2026/01/01 00:00:00 - mmengine - INFO - AttentionPretrained: eca.pth
  layer1.*.eca   3  {}
  layer2.*.eca   4  {}
"""


@functools.cache
def _load(name):
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


def load(name):
    return copy.deepcopy(_load(name))


def write_run(
    work,
    config,
    ap,
    start=1,
    end=None,
    time='20260101_000000',
    processes=4,
    status=None,
    mask=None,
    loss=None,
    **options,
):
    """Write what mmengine writes of one run, without training.

    Args:
        work: The work directory.
        config: Name of a config in configs/.
        ap: Box AP by epoch, as logged: from 0 to 1.
        start: The first epoch.
        end: The last epoch that is begun; default: the config's last.
        time: Name of the run's folder.
        processes: In how many it ran; None leaves out the log.
        status: What AttentionPretrained says of the plugins.
        mask: Mask AP by epoch.
        loss: Losses by iteration where they are not 1.
        options: Changes to the config, with __ for a dot.
    """
    cfg = load(config)
    cfg.merge_from_dict(
        {key.replace('__', '.'): value for key, value in options.items()}
    )
    cfg.work_dir = str(work)
    vis = work / time / 'vis_data'
    vis.mkdir(parents=True)
    # As Config.dump, without the time it takes to lay out the text.
    settings = cfg.to_dict().items()
    dumped = ''.join(f'{key} = {value!r}\n' for key, value in settings)
    (vis / 'config.py').write_text(dumped)
    lines, text = [], [f'    GPU number: {processes}']
    if status:
        text.append(LOADED.format(status, status))
    for epoch in range(start, (end or cfg.train_cfg.max_epochs) + 1):
        for done in range(2, LENGTH + 1, 2):
            step = (epoch - 1) * LENGTH + done
            value = (loss or {}).get(step, 1.0)
            lines.append(
                dict(
                    lr=0.01,
                    loss=value,
                    loss_cls=value,
                    epoch=epoch,
                    iter=step,
                    step=step,
                )
            )
            text.append(f'Epoch(train) [{epoch:2d}][{done}/{LENGTH}]  lr: 0.1')
        record = {}
        for kind, found in (('bbox', ap), ('segm', mask or {})):
            if epoch in found:
                value = found[epoch]
                values = value if isinstance(value, tuple) else (value,) * 6
                keys = [f'coco/{kind}_{size}' for size in SIZES]
                record |= dict(zip(keys, values, strict=True))
        if record:
            lines.append({**record, 'time': 0.1, 'step': epoch})
    text = '\n'.join(text) + '\n'
    if processes is not None:
        (vis.parent / f'{time}.log').write_text(text)
    file = vis / 'scalars.json'
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return file


@pytest.fixture
def pair(tmp_path):
    """Faster R-CNN with ECA, trained as the paper's, and its baseline."""
    six = (0.374, 0.581, 0.404, 0.212, 0.41, 0.481)
    write_run(tmp_path / 'a', 'faster_rcnn_r50', {11: 0.37, 12: six})
    six = (0.391, 0.607, 0.42, 0.231, 0.43, -1.0)
    write_run(
        tmp_path / 'b',
        'faster_rcnn_r50_eca',
        {11: 0.38, 12: six},
        status='loaded',
        model__backbone__init_cfg__checkpoint='eca_resnet50_k3557.pth.tar',
    )
    return tmp_path / 'a', tmp_path / 'b'


def noted(each, text):
    return any(text in note for note in each.notes)


def told(differs):
    return {d.what: (d.here, d.there) for d in differs}


# --- The paper


def test_gains_of_the_paper():
    """As its text has them, except where that contradicts its table."""
    gains = {
        'faster_rcnn_r50_se': (1.3, None),
        'faster_rcnn_r50_eca': (1.6, None),
        'faster_rcnn_r101_se': (0.9, None),
        'faster_rcnn_r101_eca': (1.6, None),
        'mask_rcnn_r50_se': (1.5, 1.3),
        'mask_rcnn_r50_nonlocal': (0.8, 0.6),
        'mask_rcnn_r50_gc': (2.2, 1.6),
        'mask_rcnn_r50_eca': (1.8, 1.5),
        'mask_rcnn_r101_se': (1.3, 0.9),
        'mask_rcnn_r101_eca': (1.9, 1.5),
        'retinanet_r50_se': (1.5, None),
        'retinanet_r50_eca': (1.7, None),
        'retinanet_r101_se': (1.0, None),
        'retinanet_r101_eca': (1.4, None),
    }
    for row in [*TABLE_5, *FROM_GCNET]:
        found = [paper_gain(row, kind) for kind in ('bbox', 'segm')]
        wanted = gains.get(row, (None, None))
        assert tuple(gain and gain.ap for gain in found) == wanted, row
    gain = paper_gain('mask_rcnn_r50_gc', 'segm')
    assert gain == AP(1.6, 2.9, 1.4, None, None, None)


def test_tables_are_consistent():
    for name, mask in TABLE_6.items():
        box = paper_ap(name, 'bbox')
        assert mask.ap50 > mask.ap > 0
        assert mask.ap75 > mask.ap
        for a, b in zip(mask[:3], box[:3], strict=True):
            assert a < b
        # Small masks are found worst; large ones better than large boxes.
        if mask.ap_s is not None:
            assert mask.ap_s < mask.ap_m < mask.ap_l
            assert mask.ap_s < box.ap_s
            assert mask.ap_l > box.ap_l
    masks = {n for n in TABLE_5 if n.startswith('mask')} | FROM_GCNET.keys()
    assert TABLE_6.keys() == masks
    assert paper_ap('faster_rcnn_r50', 'segm') is None
    assert paper_ap(None, 'bbox') is None
    assert paper_gain(None, 'bbox') is None
    with pytest.raises(InputError, match="'bbox' or 'segm', got 'box'"):
        paper_ap('mask_rcnn_r50', 'box')


# --- What a config holds


@pytest.mark.parametrize(
    'name', [n for n in [*TABLE_5, *FROM_GCNET] if 'r50' in n or 'eca' in n]
)
def test_row_by_content(name):
    """Our configs are the paper's rows, and follow its recipe."""
    cfg = load(name)
    assert identify(cfg.model).row == name
    found = facts(cfg, Run(ROOT, processes=4, starts=frozenset({'loaded'})))
    differing = {
        what: found[what]
        for what, there in recipe(name).items()
        if found[what] != there
    }
    wanted = {}
    if name.endswith('r50_eca'):
        wanted = {'kernel sizes': '3, 5, 5, 7'}
    elif name in FROM_GCNET:
        wanted = {'norm': 'BN, fixed'}
    assert differing == wanted


@pytest.mark.parametrize(
    ('name', 'title'),
    [
        ('mask_rcnn_r18_eca', 'Mask R-CNN, ResNet-18 + ECA'),
        ('mask_rcnn_x50', 'Mask R-CNN, ResNeXt-50 (groups=32, base_width=4)'),
        ('faster_rcnn_r50_gc', 'Faster R-CNN, ResNet-50 + GC'),
        ('faster_rcnn_r50_psaconv2d', 'Faster R-CNN, ResNet-50 + PSAConv2d'),
        ('retinanet_mobilenetv2_eca', 'RetinaNet, MobileNetV2 + ECA'),
        (
            'yolox_s_eca',
            'YOLOX, CSPDarknet (widen_factor=0.5, deepen_factor=0.33) + ECA',
        ),
        (
            'demo/faster_rcnn_r50_eca_shapes',
            'Faster R-CNN, ResNet-50 (base_channels=16) + ECA',
        ),
    ],
)
def test_no_row(name, title):
    found = identify(load(name).model)
    assert found.row is None
    assert found.title == title


def test_row_takes_stock_modules_and_refuses_mixtures():
    cfg = load('mask_rcnn_r50_gc')
    cfg.model.backbone.plugins[0].cfg.type = 'ContextBlock'
    assert identify(cfg.model).row == 'mask_rcnn_r50_gc'
    cfg.model.backbone.plugins.append(
        dict(cfg=dict(type='mmdet_attn.SE'), position='after_conv2')
    )
    found = identify(cfg.model)
    assert (found.attention, found.row) == ('ContextBlock + SE', None)
    cfg = load('faster_rcnn_r50_eca')
    cfg.model.neck.type = 'PAFPN'
    assert identify(cfg.model).row is None


@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        ('faster_rcnn_r50_eca', '3, 5, 5, 7'),
        ('mask_rcnn_r101_eca', '3, 3, 5, 7'),
        ('released/mask_rcnn_r50_eca_k3377', '3, 3, 7, 7'),
        ('mask_rcnn_r18_eca', '3, 5, 7, 7'),
        ('faster_rcnn_r50_se', 'none'),
        ('retinanet_mobilenetv2_eca', '1 (narrow blocks)/3'),
    ],
)
def test_kernel_sizes(name, sizes):
    assert kernel_sizes(load(name).model) == sizes


@pytest.mark.parametrize(
    ('depth', 'position', 'sizes'),
    [
        (50, 'after_conv3', '5, 5, 5, 7'),
        (50, 'after_conv2', '3, 5, 5, 5'),
        (18, 'after_block', '3, 5, 5, 5'),
    ],
)
def test_adaptive_kernel_sizes(depth, position, sizes):
    """The paper's formula, on the channels where the module sits."""
    plugin = dict(cfg=dict(type='mmdet_attn.ECA'), position=position)
    backbone = dict(type='ResNet', depth=depth, plugins=[plugin])
    assert kernel_sizes(dict(backbone=backbone)) == sizes
    plugin['stages'] = (False, False, True, True)
    cut = re.sub(r'^\d, \d', '-, -', sizes)
    assert kernel_sizes(dict(backbone=backbone)) == cut


@pytest.mark.parametrize(
    ('options', 'what', 'text'),
    [
        ({'train_dataloader.batch_size': 4}, 'batch', '8 (2 x 4)'),
        (
            {'optim_wrapper.accumulative_counts': 2},
            'batch',
            '8 (2 x 2 x 2 steps)',
        ),
        ({'optim_wrapper.optimizer.lr': 0.02}, 'learning rate', '0.02'),
        ({'optim_wrapper.type': 'AmpOptimWrapper'}, 'precision', 'mixed'),
        ({'optim_wrapper.clip_grad': None}, 'gradient clipping', 'none'),
        (
            {'optim_wrapper.optimizer': dict(type='AdamW', betas=(0.9, 0.99))},
            'optimiser',
            'AdamW, betas=(0.9, 0.99), momentum=0.9, weight_decay=0.0001',
        ),
        ({'train_cfg.max_epochs': 24}, 'schedule', '24 epochs, x 0.1 after'),
        ({'param_scheduler.1.milestones': [16]}, 'schedule', 'after 16'),
        ({'param_scheduler.0.start_factor': 0.001}, 'warm-up', 'from 0.001'),
        ({'param_scheduler': []}, 'warm-up', 'none'),
        ({'model.backbone.frozen_stages': 0}, 'frozen stages', 'the stem'),
        ({'model.backbone.frozen_stages': -1}, 'frozen stages', 'none'),
        ({'model.backbone.norm_eval': False}, 'norm', 'BN, learning'),
        ({'model.backbone.norm_cfg.type': 'SyncBN'}, 'norm', 'SyncBN, fixed'),
        ({'model.backbone.init_cfg': None}, 'weights', 'none'),
        ({'load_from': 'coco.pth'}, 'detector loaded', 'coco.pth'),
        (
            {'train_dataloader.dataset.pipeline.2.scale': (1000, 600)},
            'image scale',
            '1000 x 600; 1333 x 800 in evaluation',
        ),
        (
            {'val_dataloader.dataset.ann_file': 'x.json'},
            'data set',
            'data/coco, annotations/instances_train2017.json, x.json',
        ),
        (
            {'train_dataloader.dataset.indices': 100},
            'data set',
            'a part of it',
        ),
        (
            {'val_dataloader.dataset.metainfo': dict(classes=('cat',))},
            'data set',
            '1 classes',
        ),
    ],
)
def test_facts(options, what, text):
    cfg = load('faster_rcnn_r50')
    if 'optim_wrapper.clip_grad' in options:
        cfg.optim_wrapper.clip_grad = None
    elif 'param_scheduler' in options:
        cfg.param_scheduler = []
    elif 'model.backbone.init_cfg' in options:
        cfg.model.backbone.init_cfg = None
    else:
        cfg.merge_from_dict(options)
    found = facts(cfg, Run(ROOT, processes=2))[what]
    assert text in found
    assert found != recipe('faster_rcnn_r50')[what] or what == 'batch'


# --- Gains


def test_gain_beside_the_paper(pair):
    base, eca = compare(pair[::-1])
    assert (base.training.name, eca.training.name) == ('a', 'b')
    assert base.gain is None
    assert base.differs == []
    assert eca.gain.baseline is base.training
    assert eca.gain.epoch == 12
    assert eca.gain.ap == {'bbox': AP(1.7, 2.6, 1.6, 1.9, 2.0, None)}
    assert eca.gain.paper == {'bbox': AP(1.6, 2.4, 1.7, 1.6, 2.1, 1.8)}
    assert eca.result('bbox') == AP(39.1, 60.7, 42.0, 23.1, 43.0, None)
    assert eca.paper == {'bbox': AP(38.0, 60.6, 40.9, 23.4, 42.1, 48.0)}
    assert noted(eca, 'finished, epoch 12 of 12')
    assert told(eca.differs) == {
        'kernel sizes': ('3, 5, 5, 7', '5, 5, 5, 5'),
    }
    weights = 'eca_resnet50_k3557.pth.tar', 'torchvision://resnet50'
    assert told(eca.gain.differs) == {'weights': weights}


def test_mask_ap(tmp_path):
    for name, box, mask in (('', 0.382, 0.347), ('_gc', 0.397, 0.361)):
        write_run(
            tmp_path / f'x{name}',
            f'mask_rcnn_r50{name}',
            {12: box},
            mask={12: mask},
        )
    base, gc = compare(sorted(tmp_path.iterdir()))
    assert base.result('segm').ap == 34.7
    assert (gc.gain.ap['bbox'].ap, gc.gain.ap['segm'].ap) == (1.5, 1.4)
    assert gc.gain.paper['segm'] == AP(1.6, 2.9, 1.4, None, None, None)
    assert gc.gain.differs == []
    assert noted(gc, "GCNet's with SyncBN")
    text = markdown([base, gc])
    assert '| x\\_gc | 12 | +1.4 | +1.4 |' in text
    assert '| the paper | 12 | +1.6 | +2.9 | +1.4 | - | - | - |' in text


def test_no_baseline(pair):
    (eca,) = compare(pair[1:])
    assert eca.gain is None
    assert noted(eca, 'no baseline was given')
    text = markdown([eca])
    assert 'no fair comparison can be made' in text
    assert '0.3 to 1.0 AP above' in text


@pytest.mark.parametrize(
    ('config', 'options'),
    [
        ('faster_rcnn_r101', {}),
        ('retinanet_r50', {}),
        ('faster_rcnn_r50', {'val_dataloader__dataset__ann_file': 'x.json'}),
    ],
)
def test_not_a_baseline(pair, tmp_path, config, options):
    """Another depth, detector or data set."""
    write_run(tmp_path / 'c', config, {12: 0.4}, **options)
    compared = compare([pair[1], tmp_path / 'c'])
    assert [each.gain for each in compared] == [None, None]


def test_nearest_baseline(pair, tmp_path):
    """And in what a gain is not fair, in the words of both."""
    write_run(
        tmp_path / 'c',
        'faster_rcnn_r50',
        {12: 0.3},
        processes=1,
        model__roi_head__bbox_head__loss_bbox__type='SmoothL1Loss',
        train_dataloader__num_workers=7,
    )
    compared = compare([tmp_path / 'c', *pair])
    eca = next(each for each in compared if each.gain)
    assert eca.gain.baseline.name == 'a'
    compared = compare([tmp_path / 'c', pair[1]])
    found = told(compared[1].gain.differs)
    assert found.pop('weights')
    assert found == {
        'batch': ('8 (4 x 2)', '2 (1 x 2)'),
        'model.roi_head.bbox_head.loss_bbox.type': ('L1Loss', 'SmoothL1Loss'),
    }
    assert 'batch: 8 (4 x 2); c: 2 (1 x 2)' in markdown(compared)


def test_neck_attention_has_a_baseline(tmp_path):
    """The neck's own entry is the same, whether alone or behind attention."""
    write_run(tmp_path / 'a', 'yolox_s', {300: 0.4})
    write_run(tmp_path / 'b', 'yolox_s_eca', {300: 0.41})
    _, eca = compare([tmp_path / 'a', tmp_path / 'b'])
    assert eca.gain.ap['bbox'].ap == 1.0
    assert eca.gain.differs == []
    assert eca.gain.paper == {}
    assert noted(eca, 'no row in the paper')


def test_other_data(tmp_path):
    for name in ('r50', 'r50_eca'):
        write_run(
            tmp_path / name,
            f'faster_rcnn_{name}',
            {12: 0.5 if 'eca' in name else 0.48},
            train_dataloader__dataset__ann_file='instances_train.json',
            train_dataloader__dataset__metainfo=dict(classes=('a', 'b')),
            val_dataloader__dataset__ann_file='instances_val.json',
            val_dataloader__dataset__metainfo=dict(classes=('a', 'b')),
        )
    _, eca = compare(sorted(tmp_path.iterdir()))
    assert noted(eca, 'not comparable with the paper: trained on data/coco')
    assert eca.paper == eca.gain.paper == {}
    assert eca.gain.ap['bbox'].ap == 2.0
    assert 'the paper |' not in markdown([eca])


# --- Unfinished, crashed and resumed runs


def test_unfinished(pair, tmp_path):
    write_run(tmp_path / 'c', 'faster_rcnn_r50_se', {4: 0.2, 5: 0.3}, end=6)
    write_run(tmp_path / 'd', 'faster_rcnn_r50', {4: 0.18, 5: 0.27}, end=6)
    base, se = compare([tmp_path / 'c', tmp_path / 'd'])
    assert noted(se, 'unfinished, epoch 6 of 12; AP of epoch 5')
    assert (se.gain.epoch, se.gain.ap['bbox'].ap) == (5, 3.0)
    assert noted(se, "at epoch 5, the last that both have; the paper's is")
    assert '| c | 5 of 12 | 30.0 |' in markdown([base, se])
    # The finished baseline of the pair has none of these epochs.
    _, se = compare([tmp_path / 'c', pair[0]])
    assert se.gain.epoch is None
    assert se.gain.ap == {}
    assert noted(se, 'no gain: a has no AP at the same epoch')


def test_no_evaluation_yet(tmp_path):
    file = write_run(tmp_path / 'a', 'faster_rcnn_r50_eca', {}, end=1)
    (each,) = compare([tmp_path / 'a'])
    assert noted(each, 'epoch 1 of 12, no evaluation yet')
    assert '| a | no AP yet |' in markdown([each])
    with file.open('a') as log:
        log.write('{"pascal_voc/mAP": 0.5, "step": 1}\n')
    (each,) = compare([tmp_path / 'a'])
    assert noted(each, "without COCO's box AP (pascal_voc/mAP)")
    file.unlink()
    (each,) = compare([tmp_path / 'a'])
    assert noted(each, 'no training was logged yet')
    assert told(each.differs).keys() == {'kernel sizes', "attention's start"}


@pytest.mark.parametrize('end', ['{"loss": 1.0, "ep', '{"loss": 1.0\0\0\0'])
def test_cut_line(pair, end):
    file = next(pair[1].glob('*/vis_data/scalars.json'))
    with file.open('a') as log:
        log.write(end)
    _, eca = compare(pair)
    assert eca.gain.ap['bbox'].ap == 1.7
    assert noted(eca, 'the last line of a log is cut off')


@pytest.mark.parametrize('broken', ['{"loss": 1.0, "ep', '[1]', '{"a": 1}'])
def test_broken_line(pair, broken):
    file = next(pair[1].glob('*/vis_data/scalars.json'))
    lines = file.read_text().split('\n')
    lines[4] = broken
    file.write_text('\n'.join(lines))
    with pytest.raises(InputError, match=r'scalars.json, line 5: not a rec'):
        compare(pair)


@pytest.mark.parametrize(
    ('value', 'word'), [(math.nan, 'NaN'), (math.inf, 'infinite')]
)
def test_loss_is_no_number(tmp_path, value, word):
    step = 2 * LENGTH + 4
    write_run(
        tmp_path / 'a',
        'faster_rcnn_r50',
        {1: 0.1, 2: 0.2, 3: 0.0},
        end=4,
        loss=dict.fromkeys(range(step, 4 * LENGTH + 1), value),
    )
    code, output = run_here(TOOL, tmp_path / 'a', '--plot', tmp_path / 'x.png')
    assert code == 0
    assert f'loss {word} at epoch 3 (iteration {step})' in output


def test_resumed(tmp_path):
    """Behind the checkpoint that it resumes from, the later run counts."""
    work = tmp_path / 'a'
    first = dict.fromkeys(range(1, 8), 0.1)
    write_run(work, 'faster_rcnn_r50_eca', first, end=7, status='loaded')
    write_run(
        work,
        'faster_rcnn_r50_eca',
        {5: 0.25},
        start=5,
        end=6,
        time='20260102_000000',
        resume=True,
        load_from=str(work / 'epoch_4.pth'),
        optim_wrapper__optimizer__lr=0.005,
        model__backbone__plugins__0__cfg__kernel_size=5,
    )
    (each,) = compare([work])
    training = each.training
    assert {e: ap.ap for e, ap in training.ap['bbox'].items()} == {
        1: 10.0,
        2: 10.0,
        3: 10.0,
        4: 10.0,
        5: 25.0,
    }
    steps = [record['step'] for record in training.train]
    assert steps == list(range(2, 6 * LENGTH + 1, 2))
    assert training.train[-1]['at'] == 6  # epochs
    assert noted(each, 'unfinished, epoch 6 of 12; AP of epoch 5')
    (note,) = (n for n in each.notes if n.startswith('resumed in epoch 5'))
    assert 'learning rate 0.005, before 0.01' in note
    assert 'kernel sizes 5, 5, 5, 7, before 3, 5, 5, 7' in note
    assert 'detector' not in note
    assert training.facts['learning rate'] == '0.005'
    # Only the first run's start is one.
    assert training.facts["attention's start"] == 'from the weights'
    assert training.facts['detector loaded'] == 'none'


def test_resumed_as_it_was(tmp_path):
    for start, time in ((1, '20260101_000000'), (3, '20260102_000000')):
        write_run(
            tmp_path,
            'faster_rcnn_r50',
            {start: 0.1},
            start=start,
            end=start + 1,
            time=time,
            resume=True,
        )
    (each,) = compare([tmp_path])
    assert 'resumed in epoch 3' in each.notes
    assert each.training.ap['bbox'].keys() == {1, 3}


@pytest.mark.parametrize('resume', [False, True])
def test_started_afresh(tmp_path, resume):
    """Nothing of an older training in the same folder is mixed in.

    --resume without a checkpoint starts afresh, too.
    """
    write_run(tmp_path, 'faster_rcnn_r50', {6: 0.3, 12: 0.4})
    write_run(
        tmp_path,
        'faster_rcnn_r50',
        {1: 0.1},
        end=2,
        time='20260102_000000',
        resume=resume,
    )
    (each,) = compare([tmp_path])
    assert each.training.ap['bbox'].keys() == {1}
    assert each.training.epoch == 2
    assert noted(each, 'started afresh on 20260102_000000')


def test_tests_in_between_do_not_count(pair):
    """tools/test.py leaves a config, too, with settings of its own."""
    cfg = load('faster_rcnn_r50')
    cfg.load_from = 'epoch_12.pth'
    folder = pair[0] / '20270101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    cfg.dump(folder / 'config.py')
    base, _ = compare(pair)
    assert base.training.facts['detector loaded'] == 'none'
    assert noted(base, 'finished, epoch 12 of 12')


def test_without_the_text_log(tmp_path):
    write_run(tmp_path, 'faster_rcnn_r50', {12: 0.4}, processes=None)
    (each,) = compare([tmp_path])
    found = told(each.differs)
    assert found == {'batch': ('2 on an unknown number of GPUs', '8 (4 x 2)')}
    assert each.training.train[0]['at'] == 1


def test_scaled_learning_rate(tmp_path):
    """--auto-scale-lr is in the log, and not in the config."""
    file = write_run(tmp_path, 'faster_rcnn_r50', {}, processes=1)
    with next(tmp_path.glob('*/*.log')).open('a') as log:
        log.write('batch size is 2. Scaling the original LR by 0.25.\n')
    (run,) = read_runs(tmp_path)
    assert facts(run.config, run)['learning rate'] == '0.0025'
    assert file.exists()


# --- What mmengine itself writes


class Steady(BaseModel):
    """A model that mmengine can train, of a loss that is known."""

    def __init__(self, loss):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.loss = loss

    def forward(self, inputs, mode='tensor'):
        if mode == 'loss':
            zero = 0 * self.layer.weight.sum()
            return {'loss_cls': zero + self.loss, 'loss_bbox': zero + 1}
        return [inputs]


class Growing(BaseMetric):
    """AP that grows by 0.1 with every evaluation, under COCO's names."""

    default_prefix = 'coco'
    value = 0.2

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        self.value += 0.1
        return {f'bbox_{size}': round(self.value, 3) for size in SIZES}


def train(work, name, until, loss=2.0, **options):
    """Epochs of five iterations, by mmengine's own runner, hooks and log.

    The config is a detector's, only what it trains is not.
    """
    cfg = load(name)
    cfg.merge_from_dict(
        {
            'work_dir': str(work),
            'default_hooks.logger.interval': 2,
            **options,
        }
    )
    loader = dict(
        dataset=list(range(5)),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=1,
        num_workers=0,
    )

    class Stop(Hook):
        """As if the training had been killed."""

        def before_train_epoch(self, runner):
            if runner.epoch == until:
                raise KeyboardInterrupt

    hooks = dict(cfg.default_hooks)
    del hooks['visualization']  # for images, of which there are none
    runner = Runner(
        model=Steady(loss),
        train_dataloader=loader,
        val_dataloader=loader,
        val_evaluator=Evaluator(Growing()),
        custom_hooks=[Stop()],
        visualizer=dict(
            type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
        ),
        cfg=cfg,
        **{
            key: cfg.get(key)
            for key in (
                'work_dir',
                'train_cfg',
                'val_cfg',
                'optim_wrapper',
                'param_scheduler',
                'default_scope',
                'resume',
                'load_from',
            )
        },
        default_hooks=hooks,
    )
    with contextlib.suppress(KeyboardInterrupt):
        runner.train()


@pytest.fixture
def no_layout():
    """Dumped configs are laid out for reading, which takes seconds."""
    with contextlib.ExitStack() as stack:
        # Where the one mmengine imports it from, and where the other has it.
        for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
            stack.enter_context(
                mock.patch(
                    f'{module}.FormatCode',
                    lambda text, **style: (text, True),
                    create=True,
                )
            )
        yield


def test_true_logs(no_layout, tmp_path):
    """Killed in epoch 3 of 4 and resumed, with NaN: all by mmengine."""
    work = tmp_path / 'true'
    short = {'train_cfg.max_epochs': 4}
    train(work, 'retinanet_r50_eca', 2, **short)
    (each,) = compare([work])
    assert noted(each, 'unfinished, epoch 2 of 4; AP of epoch 2')
    assert each.result('bbox') == AP(*(40.0,) * 6)
    assert each.training.identity.row == 'retinanet_r50_eca'
    assert told(each.differs).keys() == {
        'batch',
        'schedule',
        'kernel sizes',
        "attention's start",
    }
    assert each.training.facts['batch'] == '2 (1 x 2)'
    places = [record['at'] for record in each.training.train]
    assert places == [0.4, 0.8, 1.4, 1.8]
    written = each.training.train[0].keys()

    short['optim_wrapper.optimizer.lr'] = 0.005
    register(False)  # as tools/train.py, which can then resume
    sleep(1.1)  # mmengine names the folder of a run by the second
    train(work, 'retinanet_r50_eca', 4, math.nan, resume=True, **short)
    (each,) = compare([work])
    assert noted(each, 'finished, epoch 4 of 4')
    assert noted(each, 'loss NaN at epoch 3 (iteration 12)')
    assert noted(
        each,
        'resumed in epoch 3 with other settings: learning rate 0.005, before',
    )
    assert each.training.ap['bbox'].keys() == {1, 2, 3, 4}
    assert each.training.train[-1]['at'] == 3.8

    # The logs of the other tests are of the same form.
    file = write_run(tmp_path / 'a', 'retinanet_r50_eca', {12: 0.4})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0].keys() < written
    evaluated = [line for line in lines if 'coco/bbox_mAP' in line]
    true = sorted(work.glob('*/vis_data/scalars.json'))[1]
    last = json.loads(true.read_text().splitlines()[-1])
    assert evaluated[0].keys() <= last.keys()
    (other,) = compare([tmp_path / 'a'])
    for key in ('model', 'train_dataloader', 'val_evaluator'):
        assert other.training.cfg[key] == each.training.cfg[key]


# --- The tool


def tool(*command):
    return run_here(TOOL, *command)


def test_tool(pair, tmp_path):
    files = [tmp_path / name for name in ('x.md', 'x.json', 'x.png')]
    flags = ['--markdown', files[0], '--json', files[1], '--plot', files[2]]
    code, output = tool(*pair, *flags)
    assert code == 0, output
    for text in (
        'Results beside the paper',
        'Box AP, gain over the baseline beside it',
        'b          12     +1.7  +2.6  +1.6  +1.9  +2.0     -',
        'the paper  12     +1.6  +2.4  +1.7  +1.6  +2.1  +1.8',
        'set up as the paper',
        'differs from the paper in:',
        'kernel sizes: 3, 5, 5, 7; the paper: 5, 5, 5, 5',
        'torchvision://resnet50 (so in the paper)',
    ):
        assert text in output, output

    base, eca = json.loads(files[1].read_text())
    assert base['gain'] is None
    assert eca['row'] == 'faster_rcnn_r50_eca'
    assert eca['ap']['bbox']['11']['ap'] == 38.0
    assert eca['ap']['bbox']['12']['ap_l'] is None
    assert eca['paper']['bbox']['ap'] == 38.0
    assert eca['gain']['baseline'] == 'a'
    assert eca['gain']['ap']['bbox']['ap'] == 1.7
    assert eca['gain']['paper']['bbox']['ap'] == 1.6
    assert eca['setup']['learning rate'] == '0.01'
    assert eca['finished'] is True

    text = files[0].read_text()
    assert '![Loss, learning rate and AP over epochs](<x.png>)' in text
    tables = re.findall(r'(?:^\|.*\|\n)+', text, re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        widths = {line.count('|') for line in table.splitlines()}
        assert widths == {9}
    assert '| the paper | 12 of 12 | 38.0 | 60.6 | 40.9 |' in text

    picture = cv2.imread(str(files[2]))
    third = picture.shape[1] // 3
    for start in range(0, 3 * third, third):
        assert picture[:, start : start + third].std() > 5


def test_plot_shows_every_line(tmp_path):
    """Two with one schedule, and a dashed line for the paper of each."""
    for name in ('r50', 'r50_eca'):
        mask = {e: 0.02 * e for e in range(1, 13)}
        write_run(
            tmp_path / name,
            f'mask_rcnn_{name}',
            {e: 0.03 * e for e in range(1, 13)},
            mask=mask,
        )
    compared = compare([tmp_path / 'r50', tmp_path / 'r50_eca'])
    with mock.patch('mmdet_attn.study.results.curves._save') as save:
        plot_comparison(compared, tmp_path / 'x.png')
    loss, rate, box, masks = save.call_args.args[0].axes
    assert loss.get_title() == 'training loss'
    assert [len(line.get_xdata()) for line in rate.lines] == [36, 36]
    assert rate.lines[0].get_xdata()[0] == pytest.approx(2 / LENGTH)
    styles = [line._unscaled_dash_pattern for line in rate.lines]
    assert styles[0] != styles[1]
    assert all(dashes for _, dashes in styles)
    for panel, kind in ((box, 'bbox'), (masks, 'segm')):
        solid = [line for line in panel.lines if line.get_linestyle() == '-']
        dashed = [line for line in panel.lines if line.get_linestyle() != '-']
        assert len(solid) == len(dashed) == 2
        names = ('mask_rcnn_r50', 'mask_rcnn_r50_eca')
        wanted = [paper_ap(name, kind).ap for name in names]
        assert [line.get_ydata()[0] for line in dashed] == wanted
        colours = [
            [line.get_color() for line in group] for group in (solid, dashed)
        ]
        assert colours[0] == colours[1]
        assert solid[0].get_ydata()[-1] == pytest.approx(
            36.0 if kind == 'bbox' else 24.0
        )


def test_same_names(tmp_path):
    """Folders of one name are told apart by where they are."""
    for seed in ('1', '2'):
        write_run(tmp_path / seed / 'run', 'faster_rcnn_r50', {12: 0.37})
    compared = compare([tmp_path / '1' / 'run', tmp_path / '2' / 'run'])
    names = [each.training.name for each in compared]
    assert names == [f'{tmp_path}/1/run', f'{tmp_path}/2/run']


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--json', 'no/x.json'], '--json no/x.json: there is no such folder'),
        (['--json', 'x.txt'], '--json must end in .json, got x.txt'),
        (['--markdown', 'x.html'], '--markdown must end in .md, got x.html'),
        (['--plot', 'x.gif'], '--plot must end in .png, got x.gif'),
        (['--plot', 'no/x.png'], '--plot no/x.png: there is no such folder'),
    ],
)
def test_refused_output(tmp_path, flags, message):
    """Before any folder is looked at."""
    code, output = tool(tmp_path / 'missing', *flags)
    assert code == 2
    assert message in output


def test_refused_folders(pair, tmp_path):
    cases = [
        ([tmp_path / 'c'], 'there is no such folder'),
        ([pair[0], pair[0] / '..' / 'a'], 'is given 2 times'),
        ([tmp_path], 'holds no log of mmengine'),
        ([next(pair[0].glob('2026*'))], 'is one run of a work directory'),
    ]
    for folders, message in cases:
        code, output = tool(*folders)
        assert code == 2
        assert message in ' '.join(output.split()), output
        assert 'Traceback' not in output


def test_refused_configs(tmp_path):
    work = tmp_path / 'a'
    file = write_run(work, 'faster_rcnn_r50', {12: 0.4})
    config = file.with_name('config.py')
    text = config.read_text()
    config.write_text(
        text + "train_cfg = dict(type='IterBasedTrainLoop', max_iters=100)\n"
    )
    with pytest.raises(InputError, match='by iteration: only trainings by e'):
        compare([work])
    config.write_text(text + 'val_dataloader = None\n')
    with pytest.raises(InputError, match='its config has no val_dataloader'):
        compare([work])
    config.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match='cannot be read as a config'):
        compare([work])
