"""The command line tools as a user runs them, on a very small shapes set."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import NO_WORKERS, ROOT, run_here, run_tool
from filelock import FileLock
from mmengine.config import Config

from mmdet_attn.datasets.shapes import make_shapes
from mmdet_attn.errors import InputError

CONFIG = 'configs/demo/faster_rcnn_r50_eca_shapes.py'
QUICK = [
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    *NO_WORKERS,
    # Found at random, so that AP is not zero by construction.
    'model.test_cfg.rcnn.score_thr=0.0',
    'default_hooks.logger.interval=1',
]


def on(data, work):
    """The options of every quick run; more --cfg-options may follow."""
    options = ['--data-root', data, '--work-dir', work]
    return [*options, '--cfg-options', *QUICK]


def box_ap(output):
    """The last AP that a tool printed."""
    return re.findall(r'coco/bbox_mAP: ([-\d.]+)', output)[-1]


def user_error(*command, process=False):
    """The one message of a command that must fail on bad input.

    Scripts run in this process, which need not import everything again;
    ``process`` is for those that come as far as a runner.
    """
    command = [str(part) for part in command]
    if process or not command[0].endswith('.py'):
        output = run_tool(*command, ok=False)
        assert 'Traceback' not in output, output[-3000:]
        return output
    code, output = run_here(*command)
    assert code == 2, output
    return output


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """Data set, work directory and log of one training in two processes."""
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        base = base.parent  # the workers share it
    base = base / 'trained'
    with FileLock(f'{base}.lock'):
        if not (base / 'log').exists():
            make_shapes(base / 'data', train=8, val=4, size=96)
            log = run_tool(
                'tools/dist_train.sh',
                CONFIG,
                2,
                *on(base / 'data', base / 'work'),
            )
            (base / 'log').write_text(log)
    return base / 'data', base / 'work', (base / 'log').read_text()


def last_checkpoint(work):
    return Path((work / 'last_checkpoint').read_text().strip())


def test_two_processes_train(trained):
    _, work, log = trained
    # 8 images, 2 processes of 4: one iteration to an epoch.
    assert '[2][1/1]' in log
    assert last_checkpoint(work).name == 'epoch_2.pth'
    assert box_ap(log)
    losses = re.findall(r' loss: ([\d.]+)', log)
    assert len(losses) == 2
    assert all(float(loss) > 0 for loss in losses)
    # The processes evaluate with the same statistics of batch norm.
    assert 'SyncBuffersHook' in log


@pytest.mark.parametrize('processes', [1, 2])
def test_same_ap_as_in_training(trained, tmp_path, processes):
    data, work, log = trained
    command = ['tools/test.py', CONFIG, last_checkpoint(work)]
    engine = 'faster'
    if processes == 2:
        command = ['tools/dist_test.sh', *command[1:], 2]
        command += ['--eval-backend', 'pycocotools']
        engine = 'pycocotools'
    output = run_tool(
        *command,
        '--out',
        tmp_path / 'out.pkl',
        '--show-dir',
        'pictures',
        *on(data, tmp_path),
    )
    assert box_ap(output) == box_ap(log)
    # Once, by the first process: AP by class, and everything in a file.
    (written,) = tmp_path.glob('*/*.log')
    for text in (output, written.read_text()):
        assert f'Evaluating bbox ({engine})' in text
        rows = re.findall(r'^\| (circle|cross|all) +\| ', text, re.M)
        assert rows == ['circle', 'cross', 'all']
    (file,) = tmp_path.glob('*/*_metrics.json')
    assert file.parent == written.parent
    assert f'Metrics in full precision: {file}' in output
    report = json.loads(file.read_text())['coco']
    assert report['backend'] == engine
    assert round(report['bbox']['all']['AP'], 3) == float(box_ap(output))
    assert len(report['bbox']['classes']) == 5
    assert 'Average Precision  (AP) @[ IoU=0.50:0.95' in output
    assert (tmp_path / 'out.pkl').stat().st_size > 1000
    pictures = list(tmp_path.glob('*/pictures/*.png'))
    assert len(pictures) == 4 // processes  # the first process draws its own


def test_tta(trained, tmp_path):
    data, work, _ = trained
    output = run_tool(
        'tools/test.py',
        CONFIG,
        last_checkpoint(work),
        '--tta',
        *on(data, tmp_path),
    )
    assert box_ap(output)
    message = user_error(
        'tools/test.py',
        'configs/demo/mask_rcnn_r50_eca_shapes.py',
        last_checkpoint(work),
        '--tta',
        '--work-dir',
        tmp_path,
    )
    assert '--cfg-options test_evaluator.metric=bbox' in message


def test_engine_of_another_metric():
    """Asked of a config that computes no AP of COCO."""
    message = user_error(
        'tools/train.py',
        CONFIG,
        '--eval-backend',
        'pycocotools',
        '--cfg-options',
        'val_evaluator.type=VOCMetric',
        'test_evaluator.type=VOCMetric',
    )
    assert '--eval-backend pycocotools: no evaluator' in message


def test_resume(trained, tmp_path):
    """Optimizer, counters and log buffers come back; training goes on."""
    data, work, _ = trained
    copy = shutil.copytree(work, tmp_path / 'work')
    (copy / 'last_checkpoint').write_text(str(copy / 'epoch_2.pth'))
    options = [
        *on(data, copy),
        'train_cfg.max_epochs=3',
        'train_dataloader.batch_size=8',
    ]
    output = run_tool('tools/train.py', CONFIG, '--resume', *options)
    assert 'Auto resumed from the latest checkpoint' in output
    assert 'resumed epoch: 2, iter: 2' in output
    assert '[3][1/1]' in output
    assert '[1][1/1]' not in output
    assert last_checkpoint(copy).name == 'epoch_3.pth'
    named = run_tool(
        'tools/train.py', CONFIG, '--resume', work / 'epoch_2.pth', *options
    )
    assert 'resumed epoch: 2, iter: 2' in named


def test_flags_reach_the_config(trained, tmp_path):
    data, _, _ = trained
    output = run_tool(
        'tools/train.py',
        CONFIG,
        '--auto-scale-lr',
        *on(data, tmp_path),
        'train_cfg.max_epochs=1',
        'model.backbone.plugins.0.cfg.kernel_size=7',
        'optim_wrapper.optimizer.lr=0.008',
        'param_scheduler=None',
    )
    # One process with a batch of 4, base 8: half the rate.
    assert 'lr: 4.0000e-03' in output
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    key = 'backbone.layer1.0.eca.conv.weight'
    assert state['state_dict'][key].shape == (1, 1, 7)


def test_predict(trained, tmp_path):
    data, work, _ = trained
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('000001.png', '000002.png'):
        shutil.copy(data / 'val' / name, images)
    one = shutil.copy(data / 'val/000003.png', tmp_path)
    output = run_tool(
        'tools/predict.py',
        CONFIG,
        last_checkpoint(work),
        images,
        one,
        '--out-dir',
        tmp_path / 'out',
        '--score-thr',
        0.1,
    )
    assert '3 images: pictures in' in output
    assert len(list((tmp_path / 'out/vis').glob('*.png'))) == 3
    found = json.loads((tmp_path / 'out/preds/000003.json').read_text())
    assert {'labels', 'scores', 'bboxes'} <= found.keys()

    def refused(*arguments):
        return user_error('tools/predict.py', CONFIG, *arguments)

    checkpoint = last_checkpoint(work)
    assert 'no such image or folder' in refused(checkpoint, tmp_path / 'x')
    assert 'holds no images' in refused(checkpoint, data / 'annotations')
    assert '2 images are named 000003' in refused(
        checkpoint, one, data / 'val/000003.png'
    )
    assert '--score-thr must be between 0 and 1, got 2.0' in refused(
        checkpoint, one, '--score-thr', 2
    )


def test_misfit_is_refused(trained, tmp_path):
    data, work, _ = trained
    arguments = [
        'tools/test.py',
        CONFIG,
        last_checkpoint(work),
        *on(data, tmp_path),
        'model.backbone.plugins.0.cfg.kernel_size=9',
    ]
    message = user_error(*arguments, process=True)
    assert 'The checkpoint does not fit the config' in message
    assert 'another ECA kernel_size: stage 1 has 3, the config 9' in message
    assert box_ap(run_tool(*arguments, '--non-strict'))


class Fetch:
    def __reduce__(self):
        return shutil.which, ('ls',)


def test_unsafe_checkpoints_are_refused(trained, tmp_path):
    data, work, _ = trained
    content = torch.load(last_checkpoint(work), weights_only=False)
    content['meta']['fetch'] = Fetch()
    file = tmp_path / 'unsafe.pth'
    torch.save(content, file)
    for command in (
        ['tools/test.py', CONFIG, file],
        ['tools/predict.py', CONFIG, file, data / 'val/000001.png'],
        ['tools/train.py', CONFIG, '--resume', file],
    ):
        message = user_error(*command)
        assert 'wants to import shutil.which' in message
        assert '--trust-checkpoint' in message
    output = run_tool(
        'tools/test.py',
        CONFIG,
        file,
        '--trust-checkpoint',
        *on(data, tmp_path),
    )
    assert box_ap(output)


def test_bad_command_lines(trained, tmp_path):
    checkpoint = last_checkpoint(trained[1])
    for command, expected in (
        (['tools/train.py', 'configs/none.py'], 'configs/none.py: no such'),
        (['tools/train.py', CONFIG, '--amp'], '--amp needs a GPU'),
        (
            ['tools/train.py', CONFIG, '--launcher', 'pytorch'],
            'runs under torchrun: tools/dist_train.sh CONFIG GPUS',
        ),
        (
            ['tools/train.py', CONFIG, '--launcher', 'slurm'],
            '--launcher slurm needs GPUs',
        ),
        (
            ['tools/train.py', CONFIG, '--data-root', tmp_path],
            f'{tmp_path} lacks the train split',
        ),
        (
            ['tools/train.py', CONFIG, '--resume', 'none.pth'],
            'none.pth: no such checkpoint',
        ),
        (['tools/test.py', CONFIG, 'none.pth'], 'none.pth: no such check'),
        (
            ['tools/test.py', CONFIG, checkpoint, '--out', 'x.json'],
            '--out must end in .pkl, got x.json',
        ),
        (['tools/dist_train.sh', CONFIG], 'usage: tools/dist_train.sh CONF'),
        (['tools/dist_test.sh', CONFIG, 'x'], 'CONFIG CHECKPOINT GPUS'),
        (['tools/slurm_train.sh', 'p'], 'PARTITION JOB_NAME CONFIG WORK_DI'),
        (['tools/slurm_test.sh', 'p'], 'PARTITION JOB_NAME CONFIG CHECKPO'),
    ):
        assert expected in user_error(*command), command
    assert not (ROOT / 'x.json').exists()


def test_more_processes_than_gpus(monkeypatch):
    from mmdet_attn import launch

    monkeypatch.setattr(launch, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    cfg = Config(dict(model=dict(type='RetinaNet')))
    with pytest.raises(InputError, match=r'4 processes .* 2 GPU\(s\): start'):
        launch.prepare_launch(cfg, 'pytorch')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    launch.prepare_launch(cfg, 'pytorch')
    assert 'model_wrapper_cfg' not in cfg  # mmengine binds the GPUs itself


@pytest.mark.parametrize(
    ('script', 'arguments', 'expected'),
    [
        ('slurm_train.sh', ['part', 'job', CONFIG, 'work'], 'train.py'),
        ('slurm_test.sh', ['part', 'job', CONFIG, 'x.pth'], 'test.py'),
    ],
)
def test_slurm(tmp_path, script, arguments, expected):
    """A stand-in for srun shows what the cluster would be asked."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    asked = run_tool(
        'tools/' + script,
        *arguments,
        '--cfg-options',
        'a="[1, 2]"',
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        GPUS='4',
        GPUS_PER_NODE='4',
        SRUN_ARGS='--qos=high --exclusive',
    ).splitlines()
    for word in (
        '--partition=part',
        '--job-name=job',
        '--gres=gpu:4',
        '--ntasks=4',
        '--ntasks-per-node=4',
        '--cpus-per-task=5',
        '--qos=high',
        '--exclusive',
        '--launcher=slurm',
        'a="[1, 2]"',
        CONFIG,
    ):
        assert word in asked
    assert any(word.endswith('/' + expected) for word in asked)


def test_demo(trained, tmp_path):
    """The whole of ``make demo``, on the very small set."""
    data, _, _ = trained
    output = run_tool('tools/demo.py', '--data', data, '--work-dir', tmp_path)
    assert re.search(r'box AP +. 0\.\d{3}', output)
    assert '$ tools/dist_train.sh configs/demo/faster' in output
    assert len(list((tmp_path / 'pictures/vis').glob('*.png'))) == 4
    assert (tmp_path / 'curves.png').stat().st_size > 10_000
    assert last_checkpoint(tmp_path).name == 'epoch_8.pth'


@pytest.mark.parametrize(
    'tool',
    [
        'train.py',
        'test.py',
        'predict.py',
        'demo.py',
        'setup_env.py',
        'analysis_tools/benchmark.py',
        'analysis_tools/compare_results.py',
        'analysis_tools/complexity.py',
        'analysis_tools/identity_start.py',
        'analysis_tools/visualize_attention.py',
        'dataset_converters/make_shapes.py',
        'model_converters/convert_checkpoint.py',
    ],
)
def test_help_is_complete(tool):
    code, text = run_here(f'tools/{tool}', '--help')
    assert code == 0
    assert 'usage:' in text
    flags = re.findall(r'^  (-{1,2}[\w-]+|\w+)(.*)', text, re.MULTILINE)
    assert len(flags) >= 3
    source = (ROOT / 'tools' / tool).read_text()
    for flag in re.findall(r"add_argument\(\s*'(--[\w-]+)'", source):
        assert flag in text
