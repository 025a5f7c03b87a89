"""The tools as a user runs them, on a very small shapes set."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import (
    DEMO,
    ROOT,
    box_ap,
    last_checkpoint,
    quick_options,
    run_tool,
    user_error,
)
from mmengine.config import Config

from mmdet_attn import launch
from mmdet_attn.errors import InputError

TRAIN = ['tools/train.py', DEMO]
TEST = ['tools/test.py', DEMO]
slow = pytest.mark.slow


class Fetch:
    def __reduce__(self):
        return shutil.which, ('ls',)


NO_COCO = [f'{split}_evaluator.type=VOCMetric' for split in ('val', 'test')]


@pytest.mark.parametrize(
    ('command', 'expected'),
    [
        (['tools/train.py', 'configs/none.py'], 'configs/none.py: no such'),
        ([*TRAIN, '--amp'], '--amp needs a GPU'),
        ([*TRAIN, '--launcher', 'pytorch'], 'tools/dist_train.sh CONFIG GPUS'),
        ([*TRAIN, '--launcher', 'mpi'], '--launcher mpi needs GPUs'),
        ([*TRAIN, '--data-root', 'tests'], 'tests lacks the train split'),
        ([*TRAIN, '--resume', 'none.pth'], 'none.pth: no such checkpoint'),
        (
            [*TRAIN, '--eval-backend', 'faster', '--cfg-options', *NO_COCO],
            '--eval-backend faster: no evaluator',
        ),
        ([*TEST, 'none.pth'], 'none.pth: no such checkpoint'),
        ([*TEST, 'none.pth', '--out', 'x.json'], 'in .pkl, got x.json'),
        (['tools/dist_train.sh', DEMO], 'usage: tools/dist_train.sh CONF'),
        (['tools/dist_test.sh', DEMO, 'x'], 'CONFIG CHECKPOINT GPUS'),
        (['tools/slurm_train.sh', 'p'], 'PARTITION JOB_NAME CONFIG WORK_DI'),
        (['tools/sbatch_train.sh', 'c'], 'CONFIG WORK_DIR'),
        (['tools/slurm_test.sh', 'p'], 'PARTITION JOB_NAME CONFIG CHECKPO'),
    ],
)
def test_bad_command_lines(command, expected):
    assert expected in user_error(*command)
    assert not (ROOT / 'x.json').exists()


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['x'], 'no such image or folder'),
        (['annotations'], 'holds no images'),
        (['val/000003.png', 'train/000003.png'], '2 images are named 000003'),
        (['val/000003.png', '--score-thr', '2'], 'between 0 and 1, got 2.0'),
    ],
)
def test_bad_images(shapes, arguments, expected):
    """Before the checkpoint is looked for."""
    names = [
        shapes / name if name[0] in 'xavt' else name for name in arguments
    ]
    error = user_error('tools/predict.py', DEMO, 'none.pth', *names)
    assert expected in error


def test_unsafe_checkpoints_are_refused(shapes, tmp_path):
    file = tmp_path / 'unsafe.pth'
    torch.save({'state_dict': {}, 'meta': {'fetch': Fetch()}}, file)
    for command in (
        ['tools/test.py', DEMO, file],
        ['tools/predict.py', DEMO, file, shapes / 'val/000001.png'],
        [*TRAIN, '--resume', file],
    ):
        message = user_error(*command)
        assert 'wants to import shutil.which' in message
        assert '--trust-checkpoint' in message


def test_more_processes_than_gpus(monkeypatch):
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
    ('script', 'argument'),
    [('slurm_train.sh', 'work'), ('slurm_test.sh', 'x.pth')],
)
def test_slurm(tmp_path, script, argument):
    """A stand-in for srun shows what the cluster would be asked."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    command = [f'tools/{script}', 'part', 'job', DEMO, argument]
    asked = run_tool(
        *(*command, '--cfg-options', 'a="[1, 2]"'),
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        GPUS='4',
        GPUS_PER_NODE='4',
        SRUN_ARGS='--qos=high --exclusive',
    ).splitlines()
    slurm = (
        '--partition=part --job-name=job --gres=gpu:4 --ntasks=4 --qos=high '
        '--ntasks-per-node=4 --cpus-per-task=5 --exclusive --launcher=slurm'
    )
    assert {*slurm.split(), 'a="[1, 2]"', DEMO} <= set(asked)
    tool = script.removeprefix('slurm_').replace('.sh', '.py')
    assert any(word.endswith(f'/{tool}') for word in asked)


@slow
def test_two_processes_train(trained):
    # 8 images, 2 processes of 4: one iteration to an epoch.
    assert '[2][1/1]' in trained.log
    assert trained.checkpoint.name == 'epoch_2.pth'
    assert box_ap(trained.log)
    losses = re.findall(r' loss: ([\d.]+)', trained.log)
    assert len(losses) == 2
    assert all(float(loss) > 0 for loss in losses)
    (file,) = trained.work.glob('*/*.log')
    written = file.read_text()
    # The processes evaluate with the same statistics of batch norm.
    assert 'SyncBuffersHook' in written
    # Lists are in the file, and the first loss is soon in the terminal.
    lists = ('System environment', "type='FasterRCNN'", 'torch.Size([')
    assert all(part in written for part in lists)
    assert not any(part in trained.log for part in lists)
    assert str(file) in trained.log
    assert len(trained.log.partition(' loss: ')[0].splitlines()) <= 60


@slow
def test_torchrun_starts_the_package(shapes, tmp_path):
    """In another folder, with the config by its name."""
    output = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', '--standalone'),
            *('--nproc_per_node', '2', '-m', 'mmdet_attn', 'train'),
            'mmdet_attn::demo/faster_rcnn_r50_eca_shapes.py',
            *('--launcher', 'pytorch', '--data-root', shapes),
            *quick_options(shapes, 'here')[2:],
            'train_cfg.max_epochs=1',
        ],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 0, output.stderr[-3000:]
    assert last_checkpoint(tmp_path / 'here').name == 'epoch_1.pth'
    assert '[1][1/1]' in output.stdout + output.stderr


@slow
@pytest.mark.parametrize('processes', [1, 2])
def test_same_ap_as_in_training(trained, tmp_path, processes):
    command = [*TEST, trained.checkpoint]
    engine = 'faster'
    if processes == 2:
        command = ['tools/dist_test.sh', *command[1:], 2]
        command += ['--eval-backend', 'pycocotools']
        engine = 'pycocotools'
    command += ['--out', tmp_path / 'out.pkl', '--show-dir', 'pictures']
    output = run_tool(*command, *quick_options(trained.data, tmp_path))
    assert box_ap(output) == box_ap(trained.log)
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


@slow
def test_tta(trained, tmp_path):
    options = quick_options(trained.data, tmp_path)
    assert box_ap(run_tool(*TEST, trained.checkpoint, '--tta', *options))
    masks = 'configs/demo/mask_rcnn_r50_eca_shapes.py'
    command = ['tools/test.py', masks, trained.checkpoint, '--tta']
    message = user_error(*command, '--work-dir', tmp_path)
    assert '--cfg-options test_evaluator.metric=bbox' in message


@slow
@pytest.mark.parametrize('named', [False, True])
def test_resume(trained, tmp_path, named):
    """Optimizer, counters and log buffers come back; training goes on."""
    work = tmp_path / 'work'
    if not named:
        shutil.copytree(trained.work, work)
        (work / 'last_checkpoint').write_text(str(work / 'epoch_2.pth'))
    output = run_tool(
        *TRAIN,
        '--resume',
        *([trained.checkpoint] * named),
        *quick_options(trained.data, work),
        'train_cfg.max_epochs=3',
        'train_dataloader.batch_size=8',
    )
    assert 'resumed epoch: 2, iter: 2' in output
    assert '[3][1/1]' in output
    assert '[1][1/1]' not in output
    assert last_checkpoint(work).name == 'epoch_3.pth'


@slow
def test_flags_reach_the_config(shapes, tmp_path):
    output = run_tool(
        *TRAIN,
        '--auto-scale-lr',
        *quick_options(shapes, tmp_path),
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


@slow
def test_predict(trained, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('000001.png', '000002.png'):
        shutil.copy(trained.data / 'val' / name, images)
    one = shutil.copy(trained.data / 'val/000003.png', tmp_path)
    output = run_tool(
        'tools/predict.py',
        'mmdet_attn::demo/faster_rcnn_r50_eca_shapes.py',
        trained.checkpoint,
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


@slow
def test_misfit_is_refused(trained, tmp_path):
    options = quick_options(trained.data, tmp_path)
    options.append('model.backbone.plugins.0.cfg.kernel_size=9')
    arguments = [*TEST, trained.checkpoint, *options]
    message = user_error(*arguments)
    assert 'does not fit the config' in message
    assert 'kernel_size' in message
    assert box_ap(run_tool(*arguments, '--non-strict'))


@slow
def test_trusted_checkpoint_is_loaded(trained, tmp_path):
    content = torch.load(trained.checkpoint, weights_only=False)
    content['meta']['fetch'] = Fetch()
    file = tmp_path / 'unsafe.pth'
    torch.save(content, file)
    options = quick_options(trained.data, tmp_path)
    output = run_tool(*TEST, file, '--trust-checkpoint', *options)
    assert box_ap(output) == box_ap(trained.log)


@slow
def test_demo(shapes, tmp_path):
    """The whole of `make demo`, on the very small set."""
    output = run_tool(
        'tools/demo.py', '--data', shapes, '--work-dir', tmp_path
    )
    assert re.search(r'box AP +. 0\.\d{3}', output)
    assert f'$ tools/dist_train.sh {DEMO} 2' in output
    assert len(list((tmp_path / 'pictures/vis').glob('*.png'))) == 4
    assert (tmp_path / 'curves.png').stat().st_size > 10_000
    assert last_checkpoint(tmp_path).name == 'epoch_8.pth'
