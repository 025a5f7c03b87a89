"""Results of trainings beside the paper's, read from mmengine's logs."""

import json
import math
import re
import shutil
from unittest import mock

import pytest
from conftest import (
    DEMO,
    ROOT,
    box_ap,
    load_config,
    quick_options,
    run_here,
    run_tool,
)

from mmdet_attn.errors import InputError
from mmdet_attn.study.results.attention import kernel_sizes
from mmdet_attn.study.results.compare import compare
from mmdet_attn.study.results.curves import plot_comparison
from mmdet_attn.study.results.logs import Run, read_runs
from mmdet_attn.study.results.markdown import markdown
from mmdet_attn.study.results.paper import (
    AP,
    FROM_GCNET,
    TABLE_5,
    TABLE_6,
    paper_ap,
    paper_gain,
)
from mmdet_attn.study.results.recipe import recipe
from mmdet_attn.study.results.rows import identify
from mmdet_attn.study.results.setup import facts

TOOL = 'tools/analysis_tools/compare_results.py'
LENGTH = 6  # iterations in an epoch, logged every second one
SIZES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
LOADED = """\
2026/01/01 00:00:00 - mmengine - INFO - AttentionPretrained: eca.pth
  layer1.*.eca   3  {}
  layer2.*.eca   4  {}
"""


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
    cfg = load_config(config)
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
            losses = dict(loss=value, loss_cls=value)
            place = dict(epoch=epoch, iter=step, step=step)
            lines.append(dict(lr=0.01, **losses, **place))
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
    assert paper_ap(None, 'bbox') is paper_gain(None, 'bbox') is None
    with pytest.raises(InputError, match="got 'box'"):
        paper_ap('mask_rcnn_r50', 'box')


# --- What a config holds


@pytest.mark.parametrize(
    'name', [n for n in [*TABLE_5, *FROM_GCNET] if 'r50' in n or 'eca' in n]
)
def test_row_by_content(name):
    """Our configs are the paper's rows, and follow its recipe."""
    cfg = load_config(name)
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
    ('name', 'said'),
    [
        ('mask_rcnn_r18_eca', 'ResNet-18 + ECA'),
        ('mask_rcnn_x50', 'ResNeXt-50 (groups=32, base_width=4)'),
        ('faster_rcnn_r50_gc', 'Faster R-CNN, ResNet-50 + GC'),
        ('faster_rcnn_r50_psaconv2d', 'PSAConv2d'),
        ('retinanet_mobilenetv2_eca', 'MobileNetV2 + ECA'),
        ('yolox_s_eca', 'widen_factor=0.5'),
        ('demo/faster_rcnn_r50_eca_shapes', 'base_channels=16'),
    ],
)
def test_no_row(name, said):
    found = identify(load_config(name).model)
    assert found.row is None
    assert said in found.title


def test_row_takes_stock_modules_and_refuses_mixtures():
    cfg = load_config('mask_rcnn_r50_gc')
    cfg.model.backbone.plugins[0].cfg.type = 'ContextBlock'
    assert identify(cfg.model).row == 'mask_rcnn_r50_gc'
    cfg.model.backbone.plugins.append(
        dict(cfg=dict(type='mmdet_attn.SE'), position='after_conv2')
    )
    found = identify(cfg.model)
    assert (found.attention, found.row) == ('ContextBlock + SE', None)
    cfg = load_config('faster_rcnn_r50_eca')
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
    assert kernel_sizes(load_config(name).model) == sizes


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
    ('key', 'value', 'what', 'text'),
    [
        ('train_dataloader.batch_size', 4, 'batch', '8 (2 x 4)'),
        ('optim_wrapper.accumulative_counts', 2, 'batch', '(2 x 2 x 2 steps)'),
        ('optim_wrapper.optimizer.lr', 0.02, 'learning rate', '0.02'),
        ('optim_wrapper.type', 'AmpOptimWrapper', 'precision', 'mixed'),
        ('optim_wrapper.clip_grad', None, 'gradient clipping', 'none'),
        (
            'optim_wrapper.optimizer',
            dict(type='AdamW', betas=(0.9, 0.99)),
            'optimiser',
            'AdamW, betas=(0.9, 0.99), momentum=0.9, weight_decay=0.0001',
        ),
        ('train_cfg.max_epochs', 24, 'schedule', '24 epochs, x 0.1 after'),
        ('param_scheduler.1.milestones', [16], 'schedule', 'after 16'),
        ('param_scheduler.0.start_factor', 0.001, 'warm-up', 'from 0.001'),
        ('param_scheduler', [], 'warm-up', 'none'),
        ('model.backbone.frozen_stages', 0, 'frozen stages', 'the stem'),
        ('model.backbone.frozen_stages', -1, 'frozen stages', 'none'),
        ('model.backbone.norm_eval', False, 'norm', 'BN, learning'),
        ('model.backbone.norm_cfg.type', 'SyncBN', 'norm', 'SyncBN, fixed'),
        ('model.backbone.init_cfg', None, 'weights', 'none'),
        ('load_from', 'coco.pth', 'detector loaded', 'coco.pth'),
        (
            'train_dataloader.dataset.pipeline.2.scale',
            (1000, 600),
            'image scale',
            '1000 x 600; 1333 x 800 in evaluation',
        ),
        (
            'val_dataloader.dataset.ann_file',
            'x.json',
            'data set',
            'data/coco, annotations/instances_train2017.json, x.json',
        ),
        ('train_dataloader.dataset.indices', 9, 'data set', 'a part of it'),
        (
            'val_dataloader.dataset.metainfo',
            dict(classes=('cat',)),
            'data set',
            '1 classes',
        ),
    ],
)
def test_facts(key, value, what, text):
    cfg = load_config('faster_rcnn_r50')
    if not value:  # merging leaves what is there
        section, _, name = key.rpartition('.')
        part = cfg
        for step in section.split('.') if section else ():
            part = part[step]
        part[name] = value
    else:
        cfg.merge_from_dict({key: value})
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
    plot_comparison(compare([tmp_path / 'a']), tmp_path / 'x.png')
    (each,) = compare([tmp_path / 'a'])
    assert noted(each, f'loss {word} at epoch 3 (iteration {step})')


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
    cfg = load_config('faster_rcnn_r50')
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
    write_run(tmp_path, 'faster_rcnn_r50', {}, processes=1)
    with next(tmp_path.glob('*/*.log')).open('a') as log:
        log.write('batch size is 2. Scaling the original LR by 0.25.\n')
    (run,) = read_runs(tmp_path)
    assert facts(run.config, run)['learning rate'] == '0.0025'


# --- What mmengine itself writes


@pytest.mark.slow
def test_true_logs(trained, tmp_path):
    """Trained for two epochs, resumed with other settings: all by mmengine."""
    (each,) = compare([trained.work])
    training = each.training
    assert training.finished
    assert training.facts['batch'] == '8 (2 x 4)'
    assert each.result('bbox').ap == round(100 * float(box_ap(trained.log)), 1)
    assert [record['at'] for record in training.train] == [1, 2]
    assert 'ECA' in training.identity.title
    written = training.train[0].keys()

    work = shutil.copytree(trained.work, tmp_path / 'work')
    options = [
        *quick_options(trained.data, work),
        'train_cfg.max_epochs=4',
        'optim_wrapper.optimizer.lr=0.005',
    ]
    checkpoint = work / trained.checkpoint.name
    run_tool('tools/train.py', DEMO, '--resume', checkpoint, *options)
    (each,) = compare([work])
    assert noted(each, 'finished, epoch 4 of 4')
    assert noted(each, 'resumed in epoch 3')
    assert noted(each, 'learning rate 0.005, before')
    assert each.training.ap['bbox'].keys() == {2, 4}
    # One process has two iterations to an epoch.
    places = [record['at'] for record in each.training.train]
    assert places == [1, 2, 2.5, 3, 3.5, 4]

    # The logs of the other tests are of the same form.
    file = write_run(tmp_path / 'a', 'retinanet_r50_eca', {12: 0.4})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0].keys() < written
    true = max(work.glob('*/vis_data/scalars.json'))
    last = json.loads(true.read_text().splitlines()[-1])
    assert lines[-1].keys() <= last.keys()


# --- The tool


def test_tool(pair, tmp_path):
    files = [tmp_path / name for name in ('x.md', 'x.json', 'x.png')]
    flags = ['--markdown', files[0], '--json', files[1], '--plot', files[2]]
    code, output = run_here(TOOL, *pair, *flags)
    assert code == 0, output
    assert 'b          12     +1.7  +2.6  +1.6  +1.9  +2.0     -' in output
    assert 'kernel sizes: 3, 5, 5, 7; the paper: 5, 5, 5, 5' in output

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
    assert '(<x.png>)' in text
    assert '| the paper | 12 of 12 | 38.0 | 60.6 | 40.9 |' in text
    tables = re.findall(r'(?:^\|.*\|\n)+', text, re.MULTILINE)
    widths = {line.count('|') for t in tables for line in t.splitlines()}
    assert (len(tables), widths) == (2, {9})
    assert files[2].stat().st_size > 10_000


def test_plot_shows_every_line(tmp_path):
    """A dashed line for the paper, of the colour of each training."""
    epochs = range(1, 13)
    for name in ('r50', 'r50_eca'):
        write_run(
            tmp_path / name,
            f'mask_rcnn_{name}',
            {e: 0.03 * e for e in epochs},
            mask={e: 0.02 * e for e in epochs},
        )
    compared = compare([tmp_path / 'r50', tmp_path / 'r50_eca'])
    with mock.patch('matplotlib.figure.Figure.savefig', autospec=True) as save:
        plot_comparison(compared, tmp_path / 'x.png')
    _, rate, *panels = save.call_args.args[0].axes
    assert [len(line.get_xdata()) for line in rate.lines] == [36, 36]
    assert rate.lines[0].get_xdata()[0] == pytest.approx(2 / LENGTH)
    for panel, kind, last in zip(
        panels, ('bbox', 'segm'), (36, 24), strict=True
    ):
        solid, dashed = (
            [line for line in panel.lines if line.get_linestyle() == style]
            for style in ('-', '--')
        )
        names = ('mask_rcnn_r50', 'mask_rcnn_r50_eca')
        wanted = [paper_ap(name, kind).ap for name in names]
        assert [line.get_ydata()[0] for line in dashed] == wanted
        ends = [line.get_ydata()[-1] for line in solid]
        assert ends == pytest.approx([last, last])
        colours = [line.get_color() for line in solid]
        assert [line.get_color() for line in dashed] == colours


def test_same_names(tmp_path):
    """Folders of one name are told apart by where they are."""
    for seed in ('1', '2'):
        write_run(tmp_path / seed / 'run', 'faster_rcnn_r50', {12: 0.37})
    compared = compare([tmp_path / '1' / 'run', tmp_path / '2' / 'run'])
    names = [each.training.name for each in compared]
    assert names == [f'{tmp_path}/1/run', f'{tmp_path}/2/run']


@pytest.mark.parametrize(
    ('flag', 'file'),
    [
        ('--json', 'no/x.json'),
        ('--json', 'x.txt'),
        ('--markdown', 'x.html'),
        ('--plot', 'x.gif'),
    ],
)
def test_refused_output(tmp_path, flag, file):
    """Before any folder is looked at."""
    code, output = run_here(TOOL, tmp_path / 'missing', flag, file)
    assert code == 2
    assert flag in output
    assert file in output


def test_refused_folders(pair, tmp_path):
    for folders, message in (
        ([tmp_path / 'c'], 'no such folder'),
        ([pair[0], pair[0] / '..' / 'a'], '2 times'),
        ([tmp_path], 'no log of mmengine'),
        ([next(pair[0].glob('2026*'))], 'one run of a work directory'),
    ):
        with pytest.raises(InputError, match=message):
            compare(folders)


def test_refused_configs(tmp_path):
    work = tmp_path / 'a'
    file = write_run(work, 'faster_rcnn_r50', {12: 0.4})
    config = file.with_name('config.py')
    text = config.read_text()
    iterations = "train_cfg = dict(type='IterBasedTrainLoop', max_iters=9)\n"
    for content, message in (
        (text + iterations, 'by iteration'),
        (text + 'val_dataloader = None\n', 'no val_dataloader'),
        (text[: len(text) // 2], 'cannot be read as a config'),
    ):
        config.write_text(content)
        with pytest.raises(InputError, match=message):
            compare([work])
