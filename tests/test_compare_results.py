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
from mmdet_attn.study.results import curves, paper
from mmdet_attn.study.results.attention import kernel_sizes, unwrap
from mmdet_attn.study.results.compare import compare
from mmdet_attn.study.results.logs import Run, read_runs
from mmdet_attn.study.results.markdown import markdown
from mmdet_attn.study.results.paper import AP, paper_ap, paper_gain
from mmdet_attn.study.results.recipe import recipe
from mmdet_attn.study.results.rows import identify
from mmdet_attn.study.results.setup import facts

TOOL = 'tools/analysis_tools/compare_results.py'
LENGTH = 6  # iterations in an epoch, logged every second one
SIZES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
ROWS = [*paper.TABLE_5, *paper.FROM_GCNET]
LATER = '20260102_000000'
SIX = [
    (0.374, 0.581, 0.404, 0.212, 0.41, 0.481),
    (0.391, 0.607, 0.42, 0.231, 0.43, -1.0),
]


def write_run(
    work,
    config,
    ap,
    *,
    mask=None,
    start=1,
    end=None,
    time='20260101_000000',
    processes=4,
    loss=None,
    **changes,
):
    """Write what mmengine writes of one run, without training.

    `ap` and `mask` are AP by epoch: one for all sizes, or six. The epochs
    go from `start` to `end`. `loss` are losses by iteration where they are
    not 1, `changes` options of the config, with __ for a dot. Without
    `processes` there is no text log.
    """
    cfg = load_config(config)
    cfg.merge_from_dict({k.replace('__', '.'): v for k, v in changes.items()})
    vis = work / time / 'vis_data'
    vis.mkdir(parents=True)
    # As Config.dump, without the time it takes to lay out the text.
    settings = (cfg.to_dict() | dict(work_dir=str(work))).items()
    dumped = ''.join(f'{key} = {value!r}\n' for key, value in settings)
    (vis / 'config.py').write_text(dumped)
    lines, text = [], [f'    GPU number: {processes}']
    if start == 1:
        text += ['  layer1.*.eca   3  loaded']
    for epoch in range(start, (end or cfg.train_cfg.max_epochs) + 1):
        for done in range(2, LENGTH + 1, 2):
            step = (epoch - 1) * LENGTH + done
            value = (loss or {}).get(step, 1.0)
            losses = dict(lr=0.01, loss=value, loss_cls=value / 2)
            lines.append(dict(losses, epoch=epoch, iter=step, step=step))
            text.append(f'Epoch(train) [{epoch:2d}][{done}/{LENGTH}]  lr: 0.1')
        record = {}
        for kind, found in (('bbox', ap), ('segm', mask or {})):
            for index, size in enumerate(SIZES if epoch in found else ()):
                one = found[epoch]
                value = one[index] if isinstance(one, tuple) else one
                record[f'coco/{kind}_{size}'] = value
        if record:
            lines.append({**record, 'time': 0.1, 'step': epoch})
    if processes is not None:
        (vis.parent / f'{time}.log').write_text('\n'.join(text) + '\n')
    log = ''.join(json.dumps(line) + '\n' for line in lines)
    (vis / 'scalars.json').write_text(log)
    return work


def compare_runs(folder, boxes, masks=(), **options):
    """Compare runs that are written with AP by config and epoch."""
    masks = dict(masks)
    return compare(
        [
            write_run(folder / name, name, ap, mask=masks.get(name), **options)
            for name, ap in boxes.items()
        ]
    )


def log_of(work):
    return next(work.glob('*/vis_data/scalars.json'))


@pytest.fixture
def pair(tmp_path):
    """Faster R-CNN with ECA, trained as the paper's, and its baseline."""
    base = {11: 0.37, 12: SIX[0]}
    base = write_run(tmp_path / 'a', 'faster_rcnn_r50', base)
    eca = write_run(
        tmp_path / 'b',
        'faster_rcnn_r50_eca',
        {11: 0.38, 12: SIX[1]},
        model__backbone__init_cfg__checkpoint='eca_resnet50_k3557.pth.tar',
    )
    return base, eca


def noted(each, text):
    return any(text in note for note in each.notes)


def told(differs):
    return {d.what: (d.here, d.there) for d in differs}


# --- The paper


def test_gains_of_the_paper():
    """As its text has them, except where that contradicts its table."""
    gains = {
        'faster_rcnn_r50_se': [1.3, None],
        'faster_rcnn_r50_eca': [1.6, None],
        'faster_rcnn_r101_se': [0.9, None],
        'faster_rcnn_r101_eca': [1.6, None],
        'mask_rcnn_r50_se': [1.5, 1.3],
        'mask_rcnn_r50_nonlocal': [0.8, 0.6],
        'mask_rcnn_r50_gc': [2.2, 1.6],
        'mask_rcnn_r50_eca': [1.8, 1.5],
        'mask_rcnn_r101_se': [1.3, 0.9],
        'mask_rcnn_r101_eca': [1.9, 1.5],
        'retinanet_r50_se': [1.5, None],
        'retinanet_r50_eca': [1.7, None],
        'retinanet_r101_se': [1.0, None],
        'retinanet_r101_eca': [1.4, None],
    }
    for row in ROWS:
        found = [paper_gain(row, kind) for kind in ('bbox', 'segm')]
        wanted = gains.get(row, [None, None])
        assert [gain and gain.ap for gain in found] == wanted, row
    gain = paper_gain('mask_rcnn_r50_gc', 'segm')
    assert gain == AP(1.6, 2.9, 1.4, None, None, None)


def test_tables_are_consistent():
    for name, mask in paper.TABLE_6.items():
        box = paper_ap(name, 'bbox')
        assert mask.ap < min(mask.ap50, mask.ap75)
        assert all(a < b for a, b in zip(mask[:3], box[:3], strict=True))
        # Large masks are found best, better than large boxes.
        assert mask.ap_l is None or mask.ap_l > max(mask.ap_m, box.ap_l)
        assert mask.ap_s is None or mask.ap_s < min(mask.ap_m, box.ap_s)
    assert paper.TABLE_6.keys() == {n for n in ROWS if n.startswith('mask')}
    assert paper_ap('faster_rcnn_r50', 'segm') is None
    assert paper_ap(None, 'bbox') is paper_gain(None, 'bbox') is None
    with pytest.raises(InputError, match="got 'box'"):
        paper_ap('mask_rcnn_r50', 'box')


# --- What a config holds


@pytest.mark.parametrize('name', [n for n in ROWS if 'r50' in n or 'eca' in n])
def test_row_by_content(name):
    """Our configs are the paper's rows, and follow its recipe."""
    cfg = load_config(name)
    assert identify(cfg.model).row == name
    found = facts(cfg, Run(ROOT, processes=4, starts=frozenset({'loaded'})))
    differing = {k: found[k] for k, v in recipe(name).items() if found[k] != v}
    wanted = {}
    if name.endswith('r50_eca'):
        wanted = {'kernel sizes': '3, 5, 5, 7'}
    elif name in paper.FROM_GCNET:
        wanted = {'norm': 'BN, fixed'}
    assert differing == wanted


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('mask_rcnn_r18_eca', 'ResNet-18 + ECA'),
        ('mask_rcnn_x50', 'ResNeXt-50 (groups=32, base_width=4)'),
        ('faster_rcnn_r50_psaconv2d', 'Faster R-CNN, ResNet-50 + PSAConv2d'),
        ('retinanet_mobilenetv2_eca', 'MobileNetV2 + ECA'),
        ('yolox_s_eca', 'widen_factor=0.5'),
        ('demo/faster_rcnn_r50_eca_shapes', 'base_channels=16'),
    ],
)
def test_no_row(name, said):
    found = identify(unwrap(load_config(name).model))
    assert found.row is None
    assert said in found.title


def test_row_takes_stock_modules_and_refuses_mixtures():
    cfg = load_config('mask_rcnn_r50_gc')
    cfg.model.backbone.plugins[0].cfg.type = 'ContextBlock'
    assert identify(cfg.model).row == 'mask_rcnn_r50_gc'
    se = dict(cfg=dict(type='mmdet_attn.SE'), position='after_conv2')
    cfg.model.backbone.plugins.append(se)
    found = identify(cfg.model)
    assert (found.attention, found.row) == ('ContextBlock + SE', None)
    cfg = load_config('faster_rcnn_r50_eca')
    cfg.model.neck.type = 'PAFPN'
    assert identify(cfg.model).row is None


def adaptive(depth, position, **stages):
    plugin = dict(cfg=dict(type='mmdet_attn.ECA'), position=position, **stages)
    return dict(backbone=dict(type='ResNet', depth=depth, plugins=[plugin]))


LAST = dict(stages=(False, False, True, True))


@pytest.mark.parametrize(
    ('model', 'sizes'),
    [
        ('mask_rcnn_r101_eca', '3, 3, 5, 7'),
        ('released/mask_rcnn_r50_eca_k3377', '3, 3, 7, 7'),
        ('mask_rcnn_r18_eca', '3, 5, 7, 7'),
        ('faster_rcnn_r50_se', 'none'),
        ('retinanet_mobilenetv2_eca', '1/3'),
        # The paper's formula, on the channels where the module sits.
        (adaptive(50, 'after_conv3'), '5, 5, 5, 7'),
        (adaptive(50, 'after_conv2'), '3, 5, 5, 5'),
        (adaptive(18, 'after_block'), '3, 5, 5, 5'),
        (adaptive(50, 'after_conv3', **LAST), '-, -, 5, 7'),
    ],
)
def test_kernel_sizes(model, sizes):
    if isinstance(model, str):
        model = load_config(model).model
    assert kernel_sizes(model) == sizes


TRAIN, VAL = 'train_dataloader.dataset', 'val_dataloader.dataset'
SCALE = '1000 x 600; 1333 x 800 in evaluation'
FILES = 'data/coco, annotations/instances_train2017.json, x.json'
ADAMW = dict(type='AdamW', betas=(0.9, 0.99))


@pytest.mark.parametrize(
    ('key', 'value', 'what', 'text'),
    [
        ('train_dataloader.batch_size', 4, 'batch', '8 (2 x 4)'),
        ('optim_wrapper.accumulative_counts', 2, 'batch', '(2 x 2 x 2 steps)'),
        ('optim_wrapper.optimizer.lr', 0.02, 'learning rate', '0.02'),
        ('optim_wrapper.type', 'AmpOptimWrapper', 'precision', 'mixed'),
        ('optim_wrapper.clip_grad', None, 'gradient clipping', 'none'),
        ('optim_wrapper.optimizer', ADAMW, 'optimiser', 'AdamW, betas=(0.9, '),
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
        (f'{TRAIN}.pipeline.2.scale', (1000, 600), 'image scale', SCALE),
        (f'{VAL}.ann_file', 'x.json', 'data set', FILES),
        (f'{TRAIN}.indices', 9, 'data set', 'a part of it'),
        (f'{VAL}.metainfo.classes', ('cat',), 'data set', '1 classes'),
    ],
)
def test_facts(key, value, what, text):
    cfg = load_config('faster_rcnn_r50')
    cfg.merge_from_dict({key: value})
    found = facts(cfg, Run(ROOT, processes=2))[what]
    assert text in found
    assert found != recipe('faster_rcnn_r50')[what] or what == 'batch'


# --- Gains


def test_gain_beside_the_paper(pair):
    base, eca = compare(pair[::-1])
    assert base.gain is None
    assert base.differs == []
    assert eca.gain.baseline is base.training
    assert eca.gain.epoch == 12
    assert eca.gain.ap == {'bbox': AP(1.7, 2.6, 1.6, 1.9, 2.0, None)}
    assert eca.gain.paper == {'bbox': AP(1.6, 2.4, 1.7, 1.6, 2.1, 1.8)}
    assert eca.result('bbox') == AP(39.1, 60.7, 42.0, 23.1, 43.0, None)
    assert eca.paper == {'bbox': AP(38.0, 60.6, 40.9, 23.4, 42.1, 48.0)}
    assert noted(eca, 'finished, epoch 12 of 12')
    kernels = {'kernel sizes': ('3, 5, 5, 7', '5, 5, 5, 5')}
    assert told(eca.differs) == kernels
    weights = 'eca_resnet50_k3557.pth.tar', 'torchvision://resnet50'
    assert told(eca.gain.differs) == {'weights': weights}


def test_mask_ap(tmp_path):
    boxes = {'mask_rcnn_r50': {12: 0.382}, 'mask_rcnn_r50_gc': {12: 0.397}}
    masks = {'mask_rcnn_r50': {12: 0.347}, 'mask_rcnn_r50_gc': {12: 0.361}}
    base, gc = compare_runs(tmp_path, boxes, masks)
    assert base.result('segm').ap == 34.7
    assert (gc.gain.ap['bbox'].ap, gc.gain.ap['segm'].ap) == (1.5, 1.4)
    assert gc.gain.paper['segm'] == AP(1.6, 2.9, 1.4, None, None, None)
    assert gc.gain.differs == []
    assert noted(gc, "GCNet's with SyncBN")
    text = markdown([base, gc])
    assert '| mask\\_rcnn\\_r50\\_gc | 12 | +1.4 | +1.4 |' in text
    assert '| the paper | 12 | +1.6 | +2.9 | +1.4 | - | - | - |' in text


@pytest.mark.parametrize(
    ('config', 'options'),
    [
        (None, {}),
        ('faster_rcnn_r101', {}),
        ('retinanet_r50', {}),
        ('faster_rcnn_r50', {'val_dataloader__dataset__ann_file': 'x.json'}),
    ],
)
def test_not_a_baseline(pair, tmp_path, config, options):
    """None, another depth, detector or data set."""
    folders = [pair[1]]
    if config:
        folders += [write_run(tmp_path / 'c', config, {12: 0.4}, **options)]
    compared = compare(folders)
    assert not any(each.gain for each in compared)
    (eca,) = (each for each in compared if each.training.name == 'b')
    assert noted(eca, 'no baseline was given')
    assert 'no baseline was given' in markdown([eca])


def test_nearest_baseline(pair, tmp_path):
    """And in what a gain is not fair, in the words of both."""
    other = write_run(
        tmp_path / 'c',
        'faster_rcnn_r50',
        {12: 0.3},
        processes=1,
        model__roi_head__bbox_head__loss_bbox__type='SmoothL1Loss',
        train_dataloader__num_workers=7,
    )
    (eca,) = (each for each in compare([other, *pair]) if each.gain)
    assert eca.gain.baseline.name == 'a'
    compared = compare([other, pair[1]])
    found = told(compared[1].gain.differs)
    assert found.pop('weights')
    assert found == {
        'batch': ('8 (4 x 2)', '2 (1 x 2)'),
        'model.roi_head.bbox_head.loss_bbox.type': ('L1Loss', 'SmoothL1Loss'),
    }
    assert 'batch: 8 (4 x 2); c: 2 (1 x 2)' in markdown(compared)


def test_neck_attention_has_a_baseline(tmp_path):
    """The neck's own entry is the same, whether alone or behind attention."""
    boxes = {'yolox_s': {300: 0.4}, 'yolox_s_eca': {300: 0.41}}
    _, eca = compare_runs(tmp_path, boxes)
    assert eca.gain.ap['bbox'].ap == 1.0
    assert eca.gain.differs == []
    assert eca.gain.paper == {}
    assert noted(eca, 'no row in the paper')


def test_other_data(tmp_path):
    data = {
        f'{split}_dataloader__dataset__ann_file': f'instances_{split}.json'
        for split in ('train', 'val')
    }
    boxes = {'faster_rcnn_r50': {12: 0.48}, 'faster_rcnn_r50_eca': {12: 0.5}}
    _, eca = compare_runs(tmp_path, boxes, **data)
    assert noted(eca, 'not comparable with the paper: trained on data/coco')
    assert eca.paper == eca.gain.paper == {}
    assert eca.gain.ap['bbox'].ap == 2.0
    assert 'the paper |' not in markdown([eca])


# --- Unfinished, crashed and resumed runs


def test_unfinished(pair, tmp_path):
    boxes = {
        'faster_rcnn_r50_se': {4: 0.2, 5: 0.3},
        'faster_rcnn_r50': {4: 0.18, 5: 0.27},
    }
    _, each = compare_runs(tmp_path, boxes, end=6)
    assert noted(each, 'unfinished, epoch 6 of 12; AP of epoch 5')
    assert (each.gain.epoch, each.gain.ap['bbox'].ap) == (5, 3.0)
    assert noted(each, 'at epoch 5')
    assert '| 5 of 12 | 30.0 |' in markdown([each])
    assert '| 5 | +3.0 |' in markdown([each])
    # The finished baseline of the pair has none of these epochs.
    _, each = compare([each.training.work_dir, pair[0]])
    assert each.gain.epoch is None
    assert each.gain.ap == {}
    assert noted(each, 'no gain: a has no AP at the same epoch')


def test_no_evaluation_yet(tmp_path):
    work = write_run(tmp_path / 'a', 'faster_rcnn_r50_eca', {}, end=1)
    (each,) = compare([work])
    assert noted(each, 'epoch 1 of 12, no evaluation yet')
    assert '| a | no AP yet |' in markdown([each])
    with log_of(work).open('a') as log:
        log.write('{"pascal_voc/mAP": 0.5, "step": 1}\n')
    (each,) = compare([work])
    assert noted(each, '(pascal_voc/mAP)')
    log_of(work).unlink()
    (each,) = compare([work])
    assert noted(each, 'no training was logged yet')
    assert told(each.differs).keys() == {'kernel sizes'}


@pytest.mark.parametrize(
    'broken', ['{"loss": 1.0, "ep', '{"loss": 1.0\0\0\0', '[1]', '{"a": 1}']
)
def test_broken_line(pair, broken):
    """Only the last line of a log may be one."""
    file = log_of(pair[1])
    text = file.read_text()
    file.write_text(text + broken)
    _, eca = compare(pair)
    assert eca.gain.ap['bbox'].ap == 1.7
    assert noted(eca, 'the last line of a log is cut off')
    file.write_text(f'{broken}\n{text}')
    with pytest.raises(InputError, match=r'scalars.json, line 1: '):
        compare(pair)


@pytest.mark.parametrize(
    ('value', 'word'), [(math.nan, 'NaN'), (math.inf, 'infinite')]
)
def test_loss_is_no_number(tmp_path, value, word):
    step = 2 * LENGTH + 4
    loss = dict.fromkeys(range(step, 4 * LENGTH + 1), value)
    work = write_run(tmp_path, 'faster_rcnn_r50', {3: 0.0}, end=4, loss=loss)
    (each,) = compare([work])
    curves.plot_comparison([each], tmp_path / 'x.png')
    assert noted(each, f'loss {word} at epoch 3 (iteration {step})')


def test_resumed(tmp_path):
    """Behind the checkpoint that it resumes from, the later run counts."""
    name, first = 'faster_rcnn_r50_eca', dict.fromkeys(range(1, 8), 0.1)
    write_run(tmp_path, name, first, end=7)
    write_run(
        tmp_path,
        name,
        {5: 0.25},
        start=5,
        end=6,
        time=LATER,
        loss=dict.fromkeys(range(37), 2.0),
        resume=True,
        load_from=str(tmp_path / 'epoch_4.pth'),
        optim_wrapper__optimizer__lr=0.005,
        model__backbone__plugins__0__cfg__kernel_size=5,
    )
    (each,) = compare([tmp_path])
    training = each.training
    assert {e: ap.ap for e, ap in training.ap['bbox'].items()} == {
        **dict.fromkeys(range(1, 5), 10.0),
        5: 25.0,
    }
    steps = [record['step'] for record in training.train]
    assert steps == list(range(2, 6 * LENGTH + 1, 2))
    losses = [record['loss'] for record in training.train]
    assert losses == [1.0] * 12 + [2.0] * 6
    assert training.train[-1]['at'] == 6  # epochs
    assert noted(each, 'unfinished, epoch 6 of 12; AP of epoch 5')
    (note,) = (n for n in each.notes if n.startswith('resumed in epoch 5'))
    assert 'learning rate 0.005, before 0.01' in note
    assert 'kernel sizes 5, 5, 5, 7, before 3, 5, 5, 7' in note
    assert 'detector' not in note
    assert "attention's start" not in note
    assert training.facts['learning rate'] == '0.005'
    # Only the first run's start is one.
    assert training.facts["attention's start"] == 'from the weights'
    assert training.facts['detector loaded'] == 'none'
    # The picture of one training alone.
    with mock.patch('matplotlib.figure.Figure.savefig', autospec=True) as save:
        curves.plot_curves(tmp_path, 'x.png')
    left, right = save.call_args.args[0].axes
    assert [list(line.get_ydata()) for line in left.lines] == [
        losses,
        [loss / 2 for loss in losses],
    ]
    assert right.lines[0].get_xydata().tolist()[-2:] == [[4, 0.1], [5, 0.25]]


@pytest.mark.parametrize(
    ('start', 'resume', 'epochs', 'note'),
    [
        (3, True, {2, 3}, 'resumed in epoch 3'),
        # Nothing of an older training in the same folder is mixed in.
        (1, False, {1}, f'started afresh on {LATER}'),
        # --resume without a checkpoint starts afresh, too.
        (1, True, {1}, f'started afresh on {LATER}'),
    ],
)
def test_second_run(tmp_path, start, resume, epochs, note):
    name = 'faster_rcnn_r50'
    write_run(tmp_path, name, {2: 0.3, 12: 0.4}, resume=True)
    run = dict(start=start, end=start + 1, time=LATER, resume=resume)
    (each,) = compare([write_run(tmp_path, name, {start: 0.1}, **run)])
    assert each.training.ap['bbox'].keys() == epochs
    assert each.training.epoch == start + 1
    assert noted(each, note)
    assert not noted(each, 'other settings')


@pytest.mark.parametrize('epoch', [1, 4])
def test_resumed_within_an_epoch(tmp_path, epoch):
    """What the earlier run logged of this epoch counts."""
    name, done = 'faster_rcnn_r50', (epoch - 1) * LENGTH + 3
    write_run(tmp_path, name, {1: 0.1}, end=epoch)
    run = dict(start=epoch, end=epoch + 1, time=LATER, resume=True)
    work = write_run(tmp_path, name, {1: 0.2, epoch: 0.3}, **run)
    for file in (work / LATER).rglob(f'*{LATER}.log'):
        lines = file.read_text().splitlines()
        resumed = f'resumed epoch: {epoch - 1}, iter: {done}'
        kept = [line for line in lines if f'[{epoch:2d}][2/' not in line]
        file.write_text('\n'.join([resumed, *kept]))
    file = work / LATER / 'vis_data/scalars.json'
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(''.join(lines[1:]))
    training = compare([tmp_path])[0].training
    steps = [record['step'] for record in training.train]
    assert steps == list(range(2, (epoch + 1) * LENGTH + 1, 2))
    assert training.train[-1]['at'] == epoch + 1
    assert training.ap['bbox'][epoch].ap == 30
    assert any(note.startswith('resumed in') for note in training.notes)


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
    name = 'retinanet_r101_eca'
    work = write_run(tmp_path, name, {12: 0.4}, processes=None)
    (each,) = compare([work])
    assert told(each.differs) == {
        'batch': ('2 on an unknown number of GPUs', '8 (4 x 2)'),
        "attention's start": ('not in the log', 'from the weights'),
    }
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

    work = shutil.copytree(trained.work, tmp_path / 'work')
    run_tool(
        *('tools/train.py', DEMO, '--resume', work / trained.checkpoint.name),
        *quick_options(trained.data, work),
        *('train_cfg.max_epochs=4', 'optim_wrapper.optimizer.lr=0.005'),
    )
    (each,) = compare([work])
    assert noted(each, 'finished, epoch 4 of 4')
    assert noted(each, 'resumed in epoch 3')
    assert noted(each, 'learning rate 0.005, before')
    assert each.training.ap['bbox'].keys() == {2, 4}
    # One process has two iterations to an epoch.
    places = [record['at'] for record in each.training.train]
    assert places == [1, 2, 2.5, 3, 3.5, 4]

    # The logs of the other tests are of the same form.
    ours = write_run(tmp_path / 'a', 'retinanet_r50_eca', {12: 0.4})
    first, *_, last = map(json.loads, log_of(ours).read_text().splitlines())
    assert first.keys() < training.train[0].keys()
    true = max(work.glob('*/vis_data/scalars.json'))
    assert last.keys() <= json.loads(true.read_text().splitlines()[-1]).keys()


# --- The tool


def test_tool(pair, tmp_path):
    files = [tmp_path / name for name in ('x.md', 'x.json', 'x.png')]
    flags = ['--markdown', files[0], '--json', files[1], '--plot', files[2]]
    code, output = run_here(TOOL, *pair, *flags)
    assert code == 0, output
    assert re.search(r'b +12 +\+1.7 +\+2.6 +\+1.6 +\+1.9 +\+2.0 +-', output)
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
    assert {row.count('|') for row in re.findall(r'^\|.*', text, re.M)} == {9}
    assert files[2].read_bytes().startswith(b'\x89PNG')


def test_plot_shows_every_line(tmp_path):
    """A dashed line for the paper, of the colour of each training."""
    names, epochs = ('mask_rcnn_r50', 'mask_rcnn_r50_eca'), range(1, 13)
    box, mask = ({e: ap * e for e in epochs} for ap in (0.03, 0.02))
    boxes, masks = dict.fromkeys(names, box), dict.fromkeys(names, mask)
    compared = compare_runs(tmp_path, boxes, masks)
    with mock.patch('matplotlib.figure.Figure.savefig', autospec=True) as save:
        curves.plot_comparison(compared, tmp_path / 'x.png')
    _, rate, *panels = save.call_args.args[0].axes
    assert [len(line.get_xdata()) for line in rate.lines] == [36, 36]
    assert rate.lines[0].get_xdata()[0] == pytest.approx(2 / LENGTH)
    kinds = ('bbox', 'segm'), (36, 24)
    for panel, kind, last in zip(panels, *kinds, strict=True):
        solid, dashed = (
            [line for line in panel.lines if line.get_linestyle() == style]
            for style in ('-', '--')
        )
        wanted = [paper_ap(name, kind).ap for name in names]
        assert [line.get_ydata()[0] for line in dashed] == wanted
        ends = [line.get_ydata()[-1] for line in solid]
        assert ends == pytest.approx([last, last])
        colours = [line.get_color() for line in solid]
        assert [line.get_color() for line in dashed] == colours


def test_same_names(tmp_path):
    """Folders of one name are told apart by where they are."""
    folders = [tmp_path / '1/run', tmp_path / '2/run']
    for folder in folders:
        write_run(folder, 'faster_rcnn_r50', {12: 0.37})
    names = [each.training.name for each in compare(folders)]
    assert names == list(map(str, folders))


def test_refused_output(tmp_path):
    """Before any folder is looked at."""
    for option in ('--json no/x.json', '--markdown x.html', '--plot x.gif'):
        code, output = run_here(TOOL, tmp_path / 'missing', *option.split())
        assert code == 2
        assert all(word in output for word in option.split())


def test_refused_folders(pair, tmp_path):
    for folders, message in (
        ([tmp_path / 'c'], 'no such folder'),
        ([pair[0], pair[0] / '..' / 'a'], '2 times'),
        ([tmp_path], 'no log of mmengine'),
        ([next(pair[0].glob('2026*'))], 'one run of a work directory'),
    ):
        with pytest.raises(InputError, match=message):
            compare(folders)
    with pytest.raises(InputError, match='no log of a training'):
        curves.read_scalars(tmp_path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ("train_cfg = dict(type='IterBasedTrainLoop')", 'by iteration'),
        ('val_dataloader = None', 'no val_dataloader'),
        ('train_cfg = dict(', 'cannot be read as a config'),
    ],
)
def test_refused_configs(tmp_path, content, message):
    work = write_run(tmp_path / 'a', 'faster_rcnn_r50', {12: 0.4})
    with log_of(work).with_name('config.py').open('a') as config:
        config.write(f'{content}\n')
    with pytest.raises(InputError, match=message):
        compare([work])
