"""NaN and infinity stop a training, and are refused in weights."""

import multiprocessing
import re
import shutil

import pytest
import torch
from conftest import DEMO, quick_options, run_tool, user_error
from mmengine.optim import OptimWrapper
from tiny_training import At, Points, make_runner, resumed, saved

from mmdet_attn.errors import InputError
from mmdet_attn.training.checkpoints import save_now
from mmdet_attn.training.finite import FiniteHook

NAN, INF = float('nan'), float('inf')


def train(work, *hooks, runner=make_runner, **options):
    runner = runner(work, **options)
    for hook in (FiniteHook(), *hooks):
        runner.register_hook(hook)
    runner.train()


def stopped(*args, **options) -> str:
    with pytest.raises(InputError) as caught:
        train(*args, **options)
    return str(caught.value)


def contents(folder):
    return {f.name: f.read_bytes() for f in folder.glob('*.pth')}


@pytest.mark.parametrize('value', [NAN, INF])
def test_loss(tmp_path, value):
    """The fifth input is in the third iteration of each epoch."""
    train(tmp_path, epochs=1)
    before = contents(tmp_path)
    message = stopped(
        tmp_path,
        runner=resumed,
        checkpoint=tmp_path / 'epoch_1.pth',
        points=Points(_4=value),
    )
    assert 'iteration 6 (epoch 2)' in message
    assert 'Losses: loss nan, loss_y nan, loss_x nan. Images: ' in message
    # Batch norm's statistics change in the forward pass.
    assert 'Weights: 2 of 7 not finite (norm.running_mean' in message
    assert 'Gradients: 4 of 4 not finite (line.weight, line.bias' in message
    assert 'Learning rate: 0.1.' in message
    assert f'Last good checkpoint: {tmp_path / "epoch_1.pth"}' in message
    assert contents(tmp_path) == before


def test_before_the_weights_change(tmp_path):
    runner = make_runner(tmp_path, points=Points(_4=NAN))
    runner.register_hook(FiniteHook())
    with pytest.raises(InputError, match='iteration 3'):
        runner.train()
    assert all(p.isfinite().all() for p in runner.model.parameters())


def spoil_gradient(runner):
    """From now on, one gradient is infinite; losses are finite."""
    bias = runner.model.norm.bias
    bias.register_hook(lambda gradient: gradient / 0)


@pytest.mark.parametrize('clip', [None, {'max_norm': 1}])
def test_gradient(tmp_path, clip):
    message = stopped(
        tmp_path, At(1, spoil_gradient), wrapper={'clip_grad': clip}
    )
    assert 'iteration 2 (epoch 1)' in message
    assert 'Losses: finite.' in message
    assert 'Gradients: 1 of 4 not finite (norm.bias).' in message


def spoil_statistic(runner):
    runner.model.norm.running_var[0] = NAN


@pytest.mark.parametrize('save', [None, save_now])
def test_weights_that_are_saved(tmp_path, save):
    """A running statistic is used in tests only: no loss shows it."""
    hooks = [At(4, spoil_statistic)]
    if save:
        hooks.append(At(5, save))
    message = stopped(tmp_path, *hooks)
    assert 'Weights: 1 of 7 not finite (norm.running_var).' in message
    assert saved(tmp_path) == {'epoch_1.pth'}


class Scaled(OptimWrapper):
    """As mmengine's AmpOptimWrapper, which needs a GPU."""

    def __init__(self, *args, scale=2.0**127, **options):
        super().__init__(*args, **options)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
        self.skipped = []

    def backward(self, loss, **_):
        self.loss_scaler.scale(1e4 * loss).backward()
        self._inner_count += 1

    def step(self, **_):
        before = self.loss_scaler.get_scale()
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()
        self.skipped.append(self.loss_scaler.get_scale() < before)


def test_loss_scale_may_overflow(tmp_path):
    runner = make_runner(tmp_path, wrapper={'type': Scaled})
    runner.register_hook(FiniteHook())
    runner.train()
    assert any(runner.optim_wrapper.skipped)
    assert saved(tmp_path) == {'epoch_1.pth', 'epoch_2.pth'}


@pytest.mark.parametrize(
    'wrapper', [{'type': Scaled, 'scale': 1.0}, {'accumulative_counts': 5}]
)
def test_loss_in_an_iteration_without_a_step(tmp_path, wrapper):
    message = stopped(tmp_path, points=Points(_4=NAN), wrapper=wrapper)
    assert 'iteration 3 (epoch 1)' in message
    assert 'loss_y nan' in message


def train_one_of_two(rank, work, results):
    """Only the second process has a loss that is not finite."""
    torch.distributed.init_process_group(
        'gloo', f'file://{work}/store', rank=rank, world_size=2
    )
    points = Points(_4=NAN) if rank else Points()
    results.put(stopped(work, points=points))


def test_one_process_stops_all(tmp_path):
    fork = multiprocessing.get_context('fork')
    results = fork.Queue()
    children = [
        fork.Process(target=train_one_of_two, args=(rank, tmp_path, results))
        for rank in (0, 1)
    ]
    for child in children:
        child.start()
    messages = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    for message in messages:
        assert 'iteration 3' in message
        assert message.count('Losses: loss nan, loss_y nan') == 1
        assert 'Losses: finite' not in message


# --- The commands


@pytest.fixture(scope='module')
def diverged(trained, tmp_path_factory):
    """The checkpoint of a training whose statistics diverged."""
    file = tmp_path_factory.mktemp('diverged') / 'epoch_2.pth'
    content = torch.load(trained.checkpoint, weights_only=False)
    for name, value in content['state_dict'].items():
        if name.endswith('running_var'):
            value[0] = INF
    torch.save(content, file)
    return file


@pytest.mark.slow
@pytest.mark.parametrize('command', ['test', 'predict', 'visualize_attention'])
def test_weights_are_refused(trained, diverged, tmp_path, command):
    folder = 'analysis_tools/' if command.startswith('vis') else ''
    call = [f'tools/{folder}{command}.py', DEMO, diverged]
    if command == 'test':
        call += quick_options(trained.data, tmp_path)
    else:
        call += [trained.data / 'val']
    message = user_error(*call)
    assert str(diverged) in message
    assert re.search(
        r'\d\d of 380 tensors .*\(backbone.bn1.running_v', message
    )


@pytest.mark.slow
def test_no_detections(trained, tmp_path):
    options = quick_options(trained.data, tmp_path)
    options += ['model.test_cfg.rcnn.score_thr=0.999']
    output = run_tool(
        'tools/test.py', DEMO, trained.checkpoint, *options, ok=False
    )
    assert 'the test gave no metric' in output
    assert 'Traceback' not in output


@pytest.mark.slow
def test_command(trained, tmp_path):
    """All processes stop, one message, the checkpoint is as it was."""
    work = shutil.copytree(trained.work, tmp_path / 'work')
    before = contents(work)
    options = quick_options(trained.data, work)
    weight = 'model.roi_head.bbox_head.loss_bbox.loss_weight=1e40'
    options += ['train_cfg.max_epochs=3', weight]
    options.insert(0, '--resume')
    output = run_tool('tools/dist_train.sh', DEMO, 2, *options, ok=False)
    assert output.count('has values that are NaN or infinite') == 1
    assert output.count('Losses: loss inf, loss_bbox inf. Images: ') == 2
    assert len(re.findall(r'/train/\d+\.png', output)) >= 8
    assert 'mmdet_attn/' not in output[output.index('has values') :]
    assert contents(work) == before
