"""The facts that each training writes, and those of old logs."""

import itertools
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from conftest import DEMO, load_config, quick_options, run_tool
from mmengine.config import Config
from tiny_training import (
    At,
    Line,
    Points,
    Scores,
    loader,
    make_runner,
    resumed,
)
from torch import nn

from mmdet_attn import ECA, SE, NonLocal, SimAM
from mmdet_attn.errors import InputError
from mmdet_attn.study import facts as module
from mmdet_attn.study.facts import FactsHook, plain, read_facts
from mmdet_attn.study.settings import differences, settings
from mmdet_attn.weights.save import sha256

FIRST, LATER = '20260101_000000', '20260102_000000'
LENGTH = 6  # iterations in an epoch, logged every second one


# --- A training in this process


def run(work, scores=({'coco/bbox_mAP': 0.25},) * 2, make=make_runner, **more):
    """A training with its facts, which evaluates after each epoch."""
    if scores:
        more |= dict(
            val_dataloader=loader([]),
            val_cfg={},
            val_evaluator=Scores(scores),
        )
    runner = make(work, **more)
    runner.register_hook(FactsHook())
    return runner


def train(work, **more):
    runner = run(work, **more)
    runner.train()
    return read_facts(work)


def written(work):
    return json.loads((work / 'facts.json').read_text())


def test_of_a_training(tmp_path):
    report = {
        'images': 6,
        'bbox': {'all': {'AP': 0.123456789}, 'classes': {'a': {'AP': None}}},
    }
    metric = SimpleNamespace(report=report, evaluators={}, keep=False)
    metrics = {'coco/bbox_mAP': 0.123, 'acc': torch.tensor(2.0), 'text': 'x'}
    runner = run(tmp_path, [metrics] * 2)
    runner.val_loop.evaluator.metrics = [metric]
    losses, rates = [], []

    def keep(runner):
        scalars = runner.message_hub.log_scalars
        losses.append(scalars['train/loss'].current())
        rates.append(scalars['train/lr'].current())

    for iteration in range(1, 7):
        runner.register_hook(At(iteration, keep))
    runner.train()
    facts = read_facts(tmp_path)
    assert metric.keep
    assert facts['finished'] is True
    assert facts['schedule'] == {
        'epochs': 2,
        'iterations_per_epoch': 3,
        'batch_size': 2,
        'lr': [[1, rates[2]], [2, rates[5]]],
    }
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [epoch for epoch, _ in facts['loss']] == [1, 2]
    assert [loss for _, loss in facts['loss']] == pytest.approx(means)
    first, last = facts['evaluations']
    assert (first['epoch'], first['iteration']) == (1, 3)
    assert (last['epoch'], last['iteration']) == (2, 6)
    assert last['bbox'] == report['bbox']
    assert last['metrics'] == {'coco/bbox_mAP': 0.123, 'acc': 2, 'text': None}
    assert facts['parameters'] == 5
    assert facts['processes'] == 1
    assert facts['lr_scale'] == 1
    assert facts['seed'] == 0
    assert facts['weights']['init'] is facts['weights']['load_from'] is None
    assert facts['plugins'] == []
    assert facts['versions']['torch'] == torch.__version__
    assert facts['device']
    assert facts['memory_mb'] > 10
    assert 0 < facts['seconds'] < 100
    (start,) = facts['starts']
    assert (start['iteration'], start['changed']) == (0, [])
    assert (tmp_path / start['folder']).is_dir()


def test_without_a_report(tmp_path):
    """Then AP is what was logged; -1 means that there was nothing to find."""
    found = {
        'coco/bbox_mAP': 0.25,
        'coco/bbox_mAP_50': 0.5,
        'coco/bbox_mAP_l': -1.0,
        'coco/segm_mAP': math.nan,
        'pascal_voc/mAP': 0.3,
    }
    (last,) = train(tmp_path, scores=[found], epochs=1)['evaluations']
    assert last['bbox']['all'] == {'AP': 0.25, 'AP50': 0.5, 'APl': None}
    assert last['segm']['all'] == {'AP': None}
    assert last['metrics']['pascal_voc/mAP'] == 0.3


@pytest.mark.parametrize(
    'options',
    [
        dict(scores=()),
        dict(by_epoch=False),
        dict(scores=(), by_epoch=False),
        dict(wrapper={'accumulative_counts': 2}),
        dict(auto_scale_lr={'enable': True, 'base_batch_size': 8}),
    ],
)
def test_other_trainings(tmp_path, options):
    facts = train(tmp_path, **options)
    assert facts['finished'] is True
    by_epoch = options.get('by_epoch', True)
    assert facts['schedule']['epochs'] == (2 if by_epoch else None)
    assert len(facts['loss']) == (2 if by_epoch else 0)
    validations = 2 if by_epoch else 1
    wanted = 0 if 'scores' in options else validations
    assert len(facts['evaluations']) == wanted
    assert facts['lr_scale'] == (0.25 if 'auto_scale_lr' in options else 1)


def test_loss_that_is_no_number(tmp_path):
    points = Points(_0=math.nan)
    facts = train(tmp_path, points=points)
    assert facts['loss'] == [[1, None], [2, None]]


def test_plugins_and_weights(tmp_path):
    """How each plugin started, whoever loaded its weights."""

    class Net(Line):
        def __init__(self):
            super().__init__()
            self.plugins = nn.ModuleList(
                [SE(16), ECA(16, identity_init=True), SimAM(16), NonLocal(16)]
            )
            self.plugins.append(ECA(16))

    with mock.patch('tiny_training.Line', Net):
        weights = tmp_path / 'weights.pth'
        state = Net().state_dict()
        del state['plugins.4.conv.weight']
        del state['plugins.1.conv.weight'], state['plugins.1.alpha']
        torch.save(state, weights)
        work = tmp_path / 'work'
        facts = train(
            work, load_from=str(weights), cfg=Config({'model': CHECKPOINT})
        )
        again = train(
            work, make=resumed, checkpoint=work / 'epoch_1.pth', epochs=3
        )
    kinds = [(p['name'], p['type'], p['start']) for p in facts['plugins']]
    assert kinds == [
        ('plugins.0', 'SE', 'loaded'),
        ('plugins.1', 'ECA', 'identity'),
        ('plugins.2', 'SimAM', 'no weights'),
        ('plugins.3', 'NonLocal', 'loaded'),
        ('plugins.4', 'ECA', 'fresh'),
    ]
    assert facts['weights'] == {
        'init': 'torchvision://resnet50',
        'init_sha256': None,
        'load_from': str(weights),
        'load_from_sha256': sha256(weights),
    }
    for key in ('weights', 'plugins'):
        assert again[key] == facts[key]


CHECKPOINT = dict(
    init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')
)


# --- Kills and resumes (test_resume.py has more)


def resume(work, checkpoint, **options):
    options |= dict(make=resumed, checkpoint=work / checkpoint)
    return run(work, **options)


def test_each_write_is_a_whole(tmp_path):
    """At the start, after each evaluation, and at the end."""
    seen = []

    def look(file, content):
        assert file == tmp_path / 'facts.json'
        facts = json.loads(bytes(content))
        epochs = [one['epoch'] for one in facts['evaluations']]
        seen.append((epochs, len(facts['loss']), facts['finished']))

    with mock.patch.object(module, 'write_bytes', look):
        run(tmp_path).train()
    assert seen == [
        ([], 0, False),
        ([1], 1, False),
        ([1, 2], 2, False),
        ([1, 2], 2, True),
    ]


def test_resume_from_an_earlier_epoch(tmp_path):
    """What came behind it is gone; nothing is there twice."""
    scores = [{'coco/bbox_mAP': i / 8} for i in range(3)]
    train(tmp_path, scores=scores, epochs=3)
    runner = resume(
        tmp_path,
        'epoch_2.pth',
        scores=[{'coco/bbox_mAP': 0.875}],
        epochs=3,
        wrapper={'optimizer': dict(type='SGD', lr=0.5)},
    )
    at_start = []
    hook = At(7, lambda _: at_start.append(written(tmp_path)))
    runner.register_hook(hook)
    runner.train()
    # The evaluation of epoch 2 came after its checkpoint.
    assert [one['epoch'] for one in at_start[0]['evaluations']] == [1]
    assert not at_start[0]['finished']
    facts = read_facts(tmp_path)
    ap = {e['epoch']: e['bbox']['all']['AP'] for e in facts['evaluations']}
    assert ap == {1: 0, 3: 0.875}
    assert [epoch for epoch, _ in facts['loss']] == [1, 2, 3]
    assert [start['iteration'] for start in facts['starts']] == [0, 6]


def test_started_afresh(tmp_path):
    train(tmp_path)
    facts = train(tmp_path, epochs=1)
    assert len(facts['evaluations']) == len(facts['starts']) == 1
    assert facts['schedule']['epochs'] == 1


def test_checkpoint_of_an_older_version(tmp_path):
    """What happened before it is not made up."""
    make_runner(tmp_path).train()
    runner = resume(tmp_path, 'epoch_1.pth')
    runner.train()
    facts = read_facts(tmp_path)
    assert facts['weights'] is None
    assert [epoch for epoch, _ in facts['loss']] == [2]
    assert [start['iteration'] for start in facts['starts']] == [3]


@pytest.mark.parametrize(
    ('broken', 'error', 'level', 'message'),
    [
        ('_fixed', KeyError, 'exception', 'facts.json is not up to date'),
        ('evaluation', ValueError, 'exception', 'not up to date'),
        ('write_bytes', InputError, 'warning', 'full The training goes on'),
    ],
)
def test_failure_is_shown_and_harmless(
    tmp_path, broken, error, level, message
):
    runner = run(tmp_path)
    failure = mock.patch.object(module, broken, side_effect=error('full'))
    with failure, mock.patch.object(runner.logger, level) as log:
        runner.train()
    assert (tmp_path / 'epoch_2.pth').exists()
    assert any(message in call.args[0] for call in log.call_args_list)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"schema": 1', 'cannot be read'),
        ('[]', 'cannot be read'),
        ('{"name": "x"}', 'cannot be read'),
        ('{"schema": 2}', 'newer mmdet_attn'),
        ('[' * 10**5, 'cannot be read'),
    ],
)
def test_damaged(tmp_path, content, message):
    (tmp_path / 'facts.json').write_text(content)
    with pytest.raises(InputError, match=message):
        read_facts(tmp_path)


def test_plain():
    value = {1: (math.inf, SE), 'a': Path('x'), 'b': [True, 0.5, None]}
    assert plain(value) == {
        '1': ['inf', 'SE'],
        'a': 'x',
        'b': [True, 0.5, None],
    }


# --- Settings


def facts_of(config, change=(), **other):
    """Facts with the settings of a config."""
    cfg = load_config(config)
    cfg.merge_from_dict(dict(change))
    found = {
        'config': plain(cfg.to_dict()),
        'schedule': {'iterations_per_epoch': 10},
        'weights': {'init': None, 'load_from': None},
        'plugins': [],
        'annotations': {'train': 'a' * 64, 'val': 'b' * 64},
        'seed': 0,
        'processes': 4,
        'lr_scale': 1.0,
        'versions': {'torch': '2.1'},
        'device': 'A100',
    }
    return found | other


@pytest.mark.parametrize(
    ('base', 'attention', 'rest'),
    [
        ('faster_rcnn_r50', 'faster_rcnn_r50_eca', []),
        ('mask_rcnn_r50', 'mask_rcnn_r50_gc', []),
        ('retinanet_swin_t', 'retinanet_swin_t_eca', []),
        ('yolox_s', 'yolox_s_eca', []),
        ('yolox_s', 'yolox_s_cbam_backbone', []),
        ('dino_r50', 'dino_r50_eca', []),
        # Without pretrained weights, nothing may be frozen.
        (
            'faster_rcnn_r50',
            'faster_rcnn_r50_psaconv2d',
            ['model.backbone.frozen_stages', 'model.backbone.norm_eval'],
        ),
    ],
)
def test_attention_is_apart(base, attention, rest):
    plugins = [{'name': 'x', 'type': 'ECA', 'start': 'identity'}] * 16
    found = differences(facts_of(base), facts_of(attention, plugins=plugins))
    assert found
    assert [d.key for d in found if not d.of_attention] == rest
    assert ('plugins.start', None, '16 identity') in found


LR = 'optim_wrapper.optimizer.lr'
NORM = 'model.backbone.norm_cfg.type'
INIT = {'init': '/a/x.pth', 'init_sha256': '1' * 64}


@pytest.mark.parametrize(
    ('change', 'other', 'keys'),
    [
        ({LR: 0.1}, {}, {LR}),
        ({}, {'seed': 1}, {'seed'}),
        ({}, {'processes': 1}, {'processes'}),
        ({}, {'lr_scale': 0.5}, {'lr_scale'}),
        ({}, {'versions': {'torch': '2.2'}}, {'versions.torch'}),
        ({}, {'device': 'cpu'}, {'device'}),
        ({}, {'weights': INIT}, {'weights.init'}),
        ({}, {'weights': {'load_from': 'y.pth'}}, {'weights.load_from'}),
        (
            {},
            {'annotations': {'train': 'c' * 64, 'val': 'b' * 64}},
            {'annotations.train'},
        ),
        ({NORM: 'SyncBN'}, {}, {NORM}),
        ({'custom_hooks': [{'type': 'EMAHook'}]}, {}, {'custom_hooks.0.type'}),
        ({'randomness': {'benchmark': 1}}, {}, {'randomness.benchmark'}),
        (
            {'train_dataloader.dataset.pipeline.3.prob': 0.0},
            {},
            {'train_dataloader.dataset.pipeline.3.prob'},
        ),
        # What has no influence.
        (
            {
                'work_dir': 'x',
                'default_hooks.logger.interval': 7,
                'train_dataloader.num_workers': 7,
                'train_dataloader.dataset.data_root': '/elsewhere',
                'val_evaluator.ann_file': '/elsewhere/x.json',
                'custom_hooks': [dict(type='SyncBuffersHook')],
                'randomness': dict(seed=3),
                'visualizer.type': 'mmdet.DetLocalVisualizer',
                'model.type': 'mmdet.FasterRCNN',
                'train_cfg.val_interval': 3,
            },
            {},
            set(),
        ),
    ],
)  # fmt: skip
def test_differences(change, other, keys):
    base = facts_of('faster_rcnn_r50')
    found = differences(base, facts_of('faster_rcnn_r50', change, **other))
    assert {d.key for d in found} == keys
    for d in found:
        assert d.here != d.there
        assert not d.of_attention


def test_same_weights_elsewhere():
    """Another place of the same file is no difference, other content is."""
    base = facts_of('faster_rcnn_r50', weights=INIT)
    moved = INIT | {'init': '/b/x.pth'}
    assert not differences(base, facts_of('faster_rcnn_r50', weights=moved))
    other = INIT | {'init_sha256': '2' * 64}
    (found,) = differences(base, facts_of('faster_rcnn_r50', weights=other))
    assert (found.key, found.there) == (
        'weights.init',
        'x.pth (sha256 22222222)',
    )


def test_paths_count_without_hashes():
    change = {'train_dataloader.dataset.data_root': '/elsewhere'}
    found = differences(
        *(
            facts_of('faster_rcnn_r50', c, annotations=None)
            for c in ({}, change)
        )
    )
    assert [d.key for d in found] == list(change)


# --- Old logs


def write_run(
    work, ap, *, start=1, end=12, time=FIRST, text=True, step=0, **changes
):
    """Write what mmengine writes of one run, without training.

    `ap` is by epoch. With `step`, the run begins behind this iteration of
    its first epoch. `changes` are options of the config, with __ for a dot.
    """
    cfg = load_config('faster_rcnn_r50_eca')
    cfg.merge_from_dict({k.replace('__', '.'): v for k, v in changes.items()})
    vis = work / time / 'vis_data'
    vis.mkdir(parents=True)
    values = (cfg.to_dict() | dict(work_dir=str(work))).items()
    dumped = ''.join(f'{key} = {value!r}\n' for key, value in values)
    (vis / 'config.py').write_text(dumped)
    lines, log = [], ['    seed: 5', '    GPU number: 4', '    GPU 0,1: H200']
    if start == 1:
        log.append('  layer1.*.eca   3  loaded')
    else:
        done = (start - 1) * LENGTH + step
        log.append(f'resumed epoch: {start - 1}, iter: {done}')
    for epoch, done in itertools.product(
        range(start, end + 1), range(2, LENGTH + 1, 2)
    ):
        if epoch > start or done > step:
            number = (epoch - 1) * LENGTH + done
            record = dict(lr=0.01 / epoch, loss=1.0, memory=done)
            lines.append(dict(record, epoch=epoch, step=number))
            log.append(f'Epoch(train) [{epoch:2d}][{done}/{LENGTH}]  lr: 0.1')
        if done == LENGTH and epoch in ap:
            values = {'coco/bbox_mAP': ap[epoch], 'coco/bbox_mAP_l': -1.0}
            lines.append({**values, 'time': 0.1, 'step': epoch})
    if text:
        (vis.parent / f'{time}.log').write_text('\n'.join(log) + '\n')
    scalars = ''.join(json.dumps(line) + '\n' for line in lines)
    (vis / 'scalars.json').write_text(scalars)
    return vis


def by_epoch(facts):
    return {e['epoch']: e['bbox']['all']['AP'] for e in facts['evaluations']}


def test_old_log(tmp_path):
    write_run(tmp_path, {11: 0.37, 12: 0.38})
    facts = read_facts(tmp_path)
    assert facts['name'] == tmp_path.name
    assert facts['finished'] is True
    assert by_epoch(facts) == {11: 0.37, 12: 0.38}
    assert facts['evaluations'][0]['bbox']['all']['APl'] is None
    assert facts['schedule']['iterations_per_epoch'] == LENGTH
    assert facts['schedule']['batch_size'] == 8
    assert facts['schedule']['lr'][3] == [4, 0.0025]
    assert facts['loss'] == [[epoch, 1.0] for epoch in range(1, 13)]
    assert (facts['seed'], facts['processes'], facts['lr_scale']) == (5, 4, 1)
    assert (facts['device'], facts['memory_mb']) == ('H200', 6)
    assert [p['start'] for p in facts['plugins']] == ['loaded'] * 3
    assert facts['weights']['init'] == 'torchvision://resnet50'
    (start,) = facts['starts']
    assert (start['folder'], start['iteration']) == (FIRST, 0)
    assert start['at'] == '2026-01-01T00:00:00'
    json.dumps(facts, allow_nan=False)
    assert settings(facts)['plugins.start'] == '3 loaded'


def test_same_keys(tmp_path):
    """Old logs have the keys of facts.json, and no others."""
    write_run(tmp_path / 'a', {12: 0.38})
    old, new = read_facts(tmp_path / 'a'), train(tmp_path / 'b')
    assert old.keys() == new.keys()
    for key in ('schedule', 'evaluations', 'starts'):
        one, other = (
            found[key][0] if isinstance(found[key], list) else found[key]
            for found in (old, new)
        )
        assert one.keys() == other.keys(), key


def test_old_log_resumed(tmp_path):
    """Behind its checkpoint, the later run counts."""
    write_run(tmp_path, dict.fromkeys(range(1, 8), 0.1), end=7)
    write_run(
        tmp_path,
        {5: 0.25},
        start=5,
        end=6,
        time=LATER,
        resume=True,
        load_from='epoch_4.pth',
        optim_wrapper__optimizer__lr=0.005,
    )
    facts = read_facts(tmp_path)
    assert by_epoch(facts) == {**dict.fromkeys(range(1, 5), 0.1), 5: 0.25}
    assert [epoch for epoch, _ in facts['loss']] == [*range(1, 7)]
    assert facts['finished'] is False
    first, second = facts['starts']
    assert (second['iteration'], first['changed']) == (4 * LENGTH, [])
    assert second['changed'] == [['optim_wrapper.optimizer.lr', 0.01, 0.005]]
    assert facts['weights']['load_from'] is None
    assert len(facts['plugins']) == 3  # only the first run's start is one


def test_old_log_resumed_within_an_epoch(tmp_path):
    write_run(tmp_path, {1: 0.1}, end=4)
    write_run(
        tmp_path, {4: 0.3}, start=4, end=5, step=3, time=LATER, resume=True
    )
    facts = read_facts(tmp_path)
    assert facts['starts'][1]['iteration'] == 3 * LENGTH + 3
    assert by_epoch(facts) == {1: 0.1, 4: 0.3}
    assert [epoch for epoch, _ in facts['loss']] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize('resume', [True, False])
def test_old_log_started_afresh(tmp_path, resume):
    """Nothing of an older training in the same folder is mixed in."""
    write_run(tmp_path, {2: 0.3, 12: 0.4})
    write_run(tmp_path, {1: 0.1}, end=2, time=LATER, resume=resume)
    # A test leaves a config, too.
    shutil.copytree(tmp_path / FIRST, tmp_path / '20270101_000000')
    (tmp_path / '20270101_000000/vis_data/scalars.json').unlink()
    facts = read_facts(tmp_path)
    assert by_epoch(facts) == {1: 0.1}
    assert [start['folder'] for start in facts['starts']] == [LATER]


def test_old_log_without_text(tmp_path):
    write_run(tmp_path, {12: 0.38}, text=False)
    facts = read_facts(tmp_path)
    for key in ('processes', 'seed', 'plugins', 'device', 'lr_scale'):
        assert facts[key] is None
    assert by_epoch(facts) == {12: 0.38}


def test_old_log_of_a_start(tmp_path):
    """Nothing was logged yet."""
    (write_run(tmp_path, {}) / 'scalars.json').unlink()
    facts = read_facts(tmp_path)
    assert facts['loss'] == facts['evaluations'] == []
    assert facts['finished'] is False


@pytest.mark.parametrize(
    'broken', ['{"loss": 1.0, "ep', '{"loss": 1.0\0\0\0', '[1]', '{"a": 1}']
)
def test_old_log_with_a_broken_line(tmp_path, broken):
    """Only the last line of a log may be one."""
    file = write_run(tmp_path, {12: 0.38}) / 'scalars.json'
    text = file.read_text()
    file.write_text(text + broken)
    assert by_epoch(read_facts(tmp_path)) == {12: 0.38}
    file.write_text(f'{broken}\n{text}')
    with pytest.raises(InputError, match=r'scalars.json, line 1: '):
        read_facts(tmp_path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ("train_cfg = dict(type='IterBasedTrainLoop')", 'by iteration'),
        ('val_dataloader = None', 'no val_dataloader'),
        ('train_cfg = dict(', 'cannot be read as a config'),
    ],
)
def test_refused_configs(tmp_path, content, message):
    with (write_run(tmp_path, {}) / 'config.py').open('a') as config:
        config.write(f'{content}\n')
    with pytest.raises(InputError, match=message):
        read_facts(tmp_path)


def test_refused_folders(tmp_path):
    write_run(tmp_path / 'a', {})
    for folder, message in (
        (tmp_path / 'b', 'no such folder'),
        (tmp_path, 'no log of mmengine .* and no facts.json'),
        (tmp_path / 'a' / FIRST, 'one run of a work directory'),
    ):
        with pytest.raises(InputError, match=message):
            read_facts(folder)


# --- The command


@pytest.mark.slow
def test_of_the_command(trained, tmp_path):
    """Two processes; then resumed by one, with another learning rate."""
    facts = read_facts(trained.work)
    assert facts['name'] == Path(DEMO).stem
    assert facts['processes'] == 2
    assert facts['schedule']['batch_size'] == 8
    assert {p['start'] for p in facts['plugins']} == {'identity'}
    assert len(facts['plugins']) == 16
    (last,) = facts['evaluations']
    assert last['epoch'] == 2
    assert last['metrics']['coco/bbox_mAP'] == round(
        last['bbox']['all']['AP'], 3
    )
    assert len(last['bbox']['classes']) == 5
    assert facts['annotations']['train'] == sha256(
        trained.data / 'annotations/instances_train.json'
    )

    # mmengine's own files say the same.
    old = Path(shutil.copytree(trained.work, tmp_path / 'old'))
    (old / 'facts.json').unlink()
    logged = read_facts(old)
    for key in ('seed', 'processes', 'lr_scale', 'finished'):
        assert logged[key] == facts[key], key
    for key in ('epochs', 'iterations_per_epoch', 'batch_size'):
        assert logged['schedule'][key] == facts['schedule'][key], key
    assert logged['versions']['torch'] == facts['versions']['torch']
    for (epoch, one), (other, two) in zip(
        logged['loss'], facts['loss'], strict=True
    ):
        assert epoch == other
        assert one == pytest.approx(two, rel=0.3)  # mmengine smooths it

    work = Path(shutil.copytree(trained.work, tmp_path / 'work'))
    run_tool(
        *('tools/train.py', DEMO, '--resume', work / trained.checkpoint.name),
        *quick_options(trained.data, work),
        *('train_cfg.max_epochs=4', 'optim_wrapper.optimizer.lr=0.005'),
    )
    facts = read_facts(work)
    assert [e['epoch'] for e in facts['evaluations']] == [2, 4]
    assert facts['finished'] is True
    changed = {key: now for key, _, now in facts['starts'][1]['changed']}
    assert changed == {
        'processes': 1,
        'iterations_per_epoch': 2,
        'train_cfg.max_epochs': 4,
        LR: 0.005,
    }
