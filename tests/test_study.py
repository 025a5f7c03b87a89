"""Study files, the configs that they make, and what the command shows."""

import json
import os
import re

import pytest
import torch
import yaml
from conftest import DEMO, NO_WORKERS, run_here
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console

from mmdet_attn.commands.study import view
from mmdet_attn.config_files import CONFIGS, load_config_file
from mmdet_attn.errors import InputError
from mmdet_attn.study import execute
from mmdet_attn.study.configs import (
    add_attention,
    make_config,
    remove_attention,
    write_configs,
)
from mmdet_attn.study.plan import read_study
from mmdet_attn.study.status import (
    State,
    is_locked,
    state_of,
    status_table,
    summary,
    time_left,
)
from mmdet_attn.weights.plugins import plugins_of

TOOL = 'tools/study.py'
LEAST = {
    'name': 'few',
    'base': ['faster_rcnn_r50'],
    'attention': ['eca'],
    'seeds': [0],
}
ATTENTION = sorted(
    path.stem for path in (CONFIGS / '_base_' / 'attention').glob('*.py')
)
# Not for the backbone of a ResNet, or with more groups than a narrow one has
# channels.
ELSEWHERE = {
    'eca_mobilenetv2': 'matches no module of ResNet',
    'neck': 'attention neck is part of a neck',
}
TOO_NARROW = {'psaconv2d', 'shuffleattention', 'skconv2d'}


@pytest.fixture
def write(tmp_path):
    """Writes a study file: the least one, with changes."""

    def write(**changes):
        content = {**LEAST, 'work_dir': str(tmp_path / 'study'), **changes}
        content = {k: v for k, v in content.items() if v is not None}
        file = tmp_path / 'file.yaml'
        file.write_text(yaml.safe_dump(content))
        return file

    return write


def test_plan(write):
    study = read_study(
        write(
            base=[
                'faster_rcnn_r50',
                DEMO,
                'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
                {'name': 'mine', 'config': 'mask_rcnn_r50', 'epochs': 3},
            ],
            attention=['se', {'name': 'a', 'plugin': {'type': 'X'}}],
            seeds=[3, 0],
            data_root='data',
            work_dir=None,
        )
    )
    names = [run.name for run in study.runs]
    # Those without attention are implied, and first.
    assert names[:6] == [
        f'faster_rcnn_r50_{attention}_seed{seed}'
        for attention in ('none', 'se', 'a')
        for seed in (3, 0)
    ]
    assert len(names) == len(set(names)) == 4 * 3 * 2
    bases = [run.base for run in study.runs[::6]]
    assert [base['name'] for base in bases] == [
        'faster_rcnn_r50',
        'faster_rcnn_r50_eca_shapes',
        'retinanet_r50_fpn_1x_coco',
        'mine',
    ]
    assert bases[3]['epochs'] == 3
    assert str(study.folder) == 'work_dirs/few'
    assert study.launch == {'kind': 'local', 'gpus': 1, 'at_once': 1}
    assert study.data_root == 'data'


def test_none_may_be_named(write):
    file = write(attention=['eca', {'name': 'none', 'epochs': 2}])
    runs = read_study(file).runs
    assert [run.attention['name'] for run in runs] == ['none', 'eca']
    assert runs[0].attention['epochs'] == 2


def test_folder_of_a_study_may_have_moved(write, tmp_path):
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    write(work_dir='work_dirs/gone').rename(folder / 'study.yaml')
    assert read_study(folder).folder == folder


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'name': None, 'seeds': None}, 'is no study: it lacks name, seeds'),
        ({'atention': []}, "no key 'atention'; did you mean attention?"),
        ({'zzz': 1}, "a study has no key 'zzz'. It may have attention"),
        ({'name': 'a/b'}, "the name of a study must be made .* got 'a/b'"),
        ({'base': 'yolox_s'}, "base must be a list .* got 'yolox_s'"),
        ({'base': []}, 'base must be a list of at least one'),
        ({'base': ['none_such']}, 'none_such'),
        ({'base': [3]}, 'a base must be a name, or have one, got 3'),
        ({'base': [{'config': DEMO}]}, 'a base must be a name'),
        ({'base': [{'name': 'a', 'at': 'b'}]}, "a base has no key 'at'"),
        ({'base': [{'name': 'a b', 'config': DEMO}]}, "got 'a b'"),
        ({'base': [DEMO, DEMO]}, 'base has faster_.* more than once'),
        ({'attention': ['eac']}, r'eac.py; did you mean \w+.* An attention'),
        ({'attention': ['zzzzzz']}, 'zzzzzz.py. An attention of your own'),
        ({'attention': ['se', 'se']}, 'attention has se more than once'),
        (
            {'attention': [{'name': 'none', 'plugin': {'type': 'X'}}]},
            'attention none has no plugin',
        ),
        (
            {'attention': [{'name': 'a', 'at': 'b', 'place': 'after'}]},
            'attention a: at, place needs a plugin',
        ),
        (
            {'attention': [{'name': 'a', 'plugin': 'ECA'}]},
            "attention a: plugin must have a type, got 'ECA'",
        ),
        ({'seeds': [0, 0]}, 'seeds has 0 more than once'),
        ({'seeds': [True]}, 'seeds must be whole numbers .* got True'),
        ({'seeds': [-1]}, 'got -1'),
        ({'seeds': 3}, 'seeds must be a list'),
        ({'options': [1]}, 'options of a study must be keys and values'),
        (
            {'base': [{'name': 'a', 'config': DEMO, 'options': 'b'}]},
            "options of a base must be .* got 'b'",
        ),
        ({'image_scale': 600}, r'image_scale must be \[width, height\]'),
        ({'launch': 'local'}, "launch must have a kind, got 'local'"),
        ({'launch': {'kind': 'k8s'}}, "'local' or 'slurm', got 'k8s'"),
        (
            {'launch': {'time': 60}},
            "a local launch has no key 'time'",
        ),
        ({'launch': {'at_once': 0}}, 'at_once must be .* from 1 on, got 0'),
        ({'launch': {'gpus': '4'}}, "gpus must be .* got '4'"),
        ({'launch': {'kind': 'slurm'}}, 'launch: slurm needs time'),
        (
            {'launch': {'kind': 'slurm', 'time': 2}},
            'time must be a whole number from 5 on, got 2',
        ),
        (
            {'launch': {'kind': 'slurm', 'time': 60, 'parameters': 'x'}},
            "parameters must be keys and values, .* got 'x'",
        ),
    ],
)
def test_bad_study_files(write, changes, message):
    with pytest.raises(InputError, match=message):
        read_study(write(**changes))


@pytest.mark.parametrize('text', ['[', 'name', '- 1', '\0'])
def test_no_study_files(tmp_path, text):
    file = tmp_path / 'file.yaml'
    file.write_text(text)
    with pytest.raises(InputError, match=r'file\.yaml (cannot|must)'):
        read_study(file)


def test_no_study_file(tmp_path):
    with pytest.raises(InputError, match='cannot be read as a study file'):
        read_study(tmp_path)


@pytest.fixture(scope='module')
def bases():
    init_default_scope('mmdet')
    names = ('faster_rcnn_r50', 'faster_rcnn_r50_psaconv2d')
    found = {name: load_config_file(CONFIGS / f'{name}.py') for name in names}
    demo = 'demo/faster_rcnn_r50_eca_shapes.py'
    return found | {'demo': load_config_file(CONFIGS / demo)}


def backbone_of(cfg, attention):
    """The backbone of a base with the attention of a study."""
    cfg = cfg.copy()
    remove_attention(cfg)
    add_attention(cfg, attention)
    return MODELS.build(cfg.model.backbone)


@pytest.mark.parametrize('name', ATTENTION)
def test_attention_by_name(bases, name):
    """It replaces what the base has."""
    plain = bases['faster_rcnn_r50']
    if name in ELSEWHERE:
        with pytest.raises(InputError, match=re.escape(ELSEWHERE[name])):
            backbone_of(plain, {'name': name})
        return
    found = plugins_of(backbone_of(plain, {'name': name}))
    assert found
    used = backbone_of(bases['faster_rcnn_r50_psaconv2d'], {'name': name})
    assert plugins_of(used).keys() == found.keys()
    if name in TOO_NARROW:
        with pytest.raises(InputError, match='groups must be'):
            backbone_of(bases['demo'], {'name': name})
    else:
        narrow = plugins_of(backbone_of(bases['demo'], {'name': name}))
        assert narrow.keys() == found.keys()


def test_no_attention(bases):
    for cfg in bases.values():
        assert not plugins_of(backbone_of(cfg, {'name': 'none'}))
    for name in ('yolox_s_eca', 'yolox_s_eca_backbone', 'rtmdet_tiny_eca'):
        cfg = load_config_file(CONFIGS / f'{name}.py')
        remove_attention(cfg)
        plain = load_config_file(CONFIGS / f'{name.split("_eca")[0]}.py')
        assert cfg.model.to_dict() == plain.model.to_dict(), name


def test_weights_are_those_of_the_base(bases):
    for name in ('eca_k5', 'se'):
        cfg = bases['faster_rcnn_r50'].copy()
        before = cfg.model.backbone.init_cfg
        add_attention(cfg, {'name': name})
        assert cfg.model.backbone.init_cfg == before
    assert bases['demo'].model.backbone.get('init_cfg') is None


def test_insert_by_pattern():
    cfg = load_config_file(CONFIGS / 'yolox_s.py')
    entry = {
        'name': 'a',
        'plugin': {'type': 'mmdet_attn.SE', 'reduction': 8},
        'at': ['stage[2-4]', 'stem'],
        'place': 'before',
    }
    add_attention(cfg, entry)
    init_default_scope('mmdet')
    found = plugins_of(MODELS.build(cfg.model.backbone))
    assert len(found) == 4
    assert {type(plugin).__name__ for plugin in found.values()} == {'SE'}


def test_plugin_in_chosen_blocks(bases):
    entry = {
        'name': 'a',
        'plugin': {'type': 'mmdet_attn.ECA'},
        'stages': [False, False, False, True],
        'position': 'after_conv2',
    }
    found = plugins_of(backbone_of(bases['demo'], entry))
    assert [name.split('.')[0] for name in found] == ['layer4'] * 3


def test_configs(write, shapes, tmp_path):
    """What is said of an attention counts more than what is said of all."""
    weights = tmp_path / 'mine.pth'
    cfg = load_config_file(CONFIGS / 'demo/faster_rcnn_r50_eca_shapes.py')
    remove_attention(cfg)
    init_default_scope('mmdet')
    torch.save(MODELS.build(cfg.model).state_dict(), weights)
    loader = 'train_dataloader.batch_size'
    study = read_study(
        write(
            base=[
                {
                    'name': 'demo',
                    'config': DEMO,
                    'options': {loader: 3},
                    'image_scale': [80, 48],
                }
            ],
            attention=[
                {'name': 'eca', 'options': {loader: 5}, 'epochs': 7},
                {'name': 'se', 'load_from': str(weights)},
            ],
            seeds=[4],
            epochs=2,
            data_root=str(shapes),
            options={loader: 1, 'val_dataloader.batch_size': 9},
        )
    )
    none, eca, se = (make_config(study, run) for run in study.runs)
    assert [c.train_dataloader.batch_size for c in (none, eca)] == [3, 5]
    assert none.val_dataloader.batch_size == 9
    assert [c.train_cfg.max_epochs for c in (none, eca)] == [2, 7]
    assert none.randomness.seed == 4
    assert none.load_from is None
    assert se.load_from == str(weights)
    assert none.work_dir == str(study.folder / 'runs' / 'demo_none_seed4')
    assert (80, 48) in [
        tuple(step['scale'])
        for step in none.train_dataloader.dataset.pipeline
        if step['type'] == 'Resize'
    ]
    assert none.train_dataloader.dataset.data_root == str(shapes)


def test_only_what_has_not_begun_may_change(write):
    def write_all(epochs, **changes):
        changes['base'] = [{'name': 'demo', 'config': DEMO}]
        study = read_study(write(**changes))
        cfg = Config({'train_cfg': {'max_epochs': epochs}, 'lr': [1, 2]})
        write_configs(study, {run.name: cfg for run in study.runs})
        return study

    study = write_all(epochs=2)
    write_all(epochs=3)
    begun = study.work_dir(study.runs[0])
    begun.mkdir(parents=True)
    (begun / 'epoch_1.pth').touch()
    before = study.config(study.runs[0]).read_text()
    message = (
        'demo_none_seed0 has begun with another config: '
        '.*max_epochs is 4, and was 3'
    )
    with pytest.raises(InputError, match=message):
        write_all(epochs=4)
    assert study.config(study.runs[0]).read_text() == before
    # New ones are no change.
    more = write_all(epochs=3, attention=['eca', 'se'], seeds=[0, 1])
    assert len(list((more.folder / 'configs').glob('*.py'))) == 6
    # A training that has failed at once may be mended.
    (begun / 'epoch_1.pth').rename(begun / 'facts.json')
    (begun / 'failed.json').touch()
    write_all(epochs=5)
    (begun / 'failed.json').unlink()
    with pytest.raises(InputError, match='has begun with another config'):
        write_all(epochs=6)


@pytest.mark.slow
def test_dry_run(write, shapes, tmp_path, monkeypatch):
    file = write(
        base=[{'name': 'demo', 'config': DEMO}],
        data_root=str(shapes),
        seeds=[0, 1],
        epochs=2,
        options={
            key: json.loads(value.lower())
            for key, value in (each.split('=') for each in NO_WORKERS)
        },
    )
    code, output = run_here(TOOL, file, '--dry-run')
    assert code == 0, output
    assert re.search(r'demo_eca +0, 1 +2,306,841 .* 0:00:\d\d', output)
    assert '4 trainings: 4 waiting; about 0:' in output
    folder = tmp_path / 'study'
    plan = json.loads((folder / 'plan.json').read_text())
    assert [run['name'] for run in plan['runs']] == [
        *('demo_none_seed0', 'demo_none_seed1'),
        *('demo_eca_seed0', 'demo_eca_seed1'),
    ]
    assert plan['runs'][2]['parameters'] == 2306841
    assert not [file for file in folder.glob('runs/**/*') if file.is_file()]
    config = load_config_file(folder / 'configs' / 'demo_eca_seed0.py')
    assert len(config.model.backbone.plugins) == 3
    zero, one = (
        (folder / 'configs' / f'demo_eca_seed{seed}.py').read_text()
        for seed in (0, 1)
    )
    assert one == zero.replace('seed=0', 'seed=1').replace('seed0', 'seed1')
    # The second time, what is as it was is not built again.
    monkeypatch.delattr('mmdet_attn.study.configs.check_configuration')
    assert run_here(TOOL, file, '--dry-run')[0] == 0
    assert json.loads((folder / 'plan.json').read_text()) == plan
    code, output = run_here(TOOL, 'status', folder)
    assert code == 0
    assert '4 trainings: 4 waiting' in output
    code, output = run_here(TOOL, 'results', folder)
    assert code == 2
    assert 'no training has finished yet' in output


def test_status_of_what_has_not_begun(write):
    code, output = run_here(TOOL, 'status', write())
    assert code == 0
    assert '2 trainings: 2 waiting (' in output


def facts(folder, **more):
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        'schedule': {'epochs': 4, 'iterations_per_epoch': 50},
        'seconds': 80.0,
        'finished': False,
        'evaluations': [{'epoch': 2, 'bbox': {'all': {'AP': 0.1234}}}],
    }
    (folder / 'facts.json').write_text(json.dumps({**content, **more}))


def records(folder, name, *lines, cut=''):
    log = folder / name / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.with_name('config.py').touch()
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    log.write_text(text + cut)
    os.utime(log.with_name('config.py'), (1000, 1000))
    os.utime(log, (1060, 1060))


def test_states(tmp_path):
    folder = tmp_path / 'run'
    assert state_of(folder) == State('waiting')
    facts(folder)
    assert state_of(folder).word == 'waiting'
    # The last line is being written.
    records(folder, '1', {'loss': 1.0, 'step': 60}, cut='{"loss": 2.0, "st')
    state = state_of(folder)
    assert state[:6] == ('stopped', 2, 4, 0.3, 60.0, 12.34)
    assert state.left == pytest.approx(140)
    # A new start has said nothing yet; one that evaluates counts epochs.
    records(folder, '2', cut='{')
    assert state_of(folder).done == 0.3
    records(folder, '3', {'coco/bbox_mAP': 0.1, 'step': 2})
    assert state_of(folder)[:4] == ('stopped', 3, 4, 0.5)
    (folder / 'failed.json').write_text('{"error": "why"}')
    assert state_of(folder).word == 'failed'
    assert state_of(folder).error == 'why'
    (folder / 'facts.json').write_text('{"half')
    assert state_of(folder).word == 'failed'
    facts(folder, finished=True)
    assert state_of(folder)[:5] == ('finished', 4, 4, 1.0, 80.0)
    assert not state_of(folder).error
    assert state_of(folder).left == 0


def test_state_of_what_runs(tmp_path):
    """Asking does not take the lock; a colleague may ask, too."""
    folder = tmp_path / 'run'
    folder.mkdir()
    read, end = os.pipe()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        from mmdet_attn.training.alone import take_lock

        os.write(end, b'held' if take_lock(str(folder))[0] is None else b'no')
        os.read(wait, 1)
        os._exit(0)
    assert os.read(read, 4) == b'held'
    (folder / 'lock').chmod(0o444)
    assert is_locked(folder)
    assert state_of(folder).word == 'running'
    os.write(go, b'.')
    os.waitpid(child, 0)
    assert state_of(folder).word == 'waiting'


def test_time_left():
    half = State('running', done=0.5, seconds=100.0)
    waiting, finished = State('waiting'), State('finished')
    assert time_left([half, finished], 1, float('nan')) == 100
    assert time_left([half, waiting, waiting], 1, 7.0) == 500
    assert time_left([half, waiting, waiting], 2, 7.0) == 250
    assert time_left([waiting, waiting], 4, 7.0) == 7
    assert time_left([finished, State('failed')], 1, 7.0) == 0


def screen(renderable, width, height=25):
    console = Console(width=width, height=height, force_terminal=True)
    with console.capture() as capture:
        console.print(renderable)
    return re.sub(r'\x1b\[[\d;]*m', '', capture.get())


def test_narrow_terminal(write):
    """No column vanishes, and no figure."""
    names = [f'faster_rcnn_r50_tripletattention_seed{i}' for i in range(2)]
    study = read_study(write(attention=['tripletattention'], seeds=[0, 1]))
    state = State('running', 11, 12, 0.876, 36000.0, 37.5)
    states = dict.fromkeys([run.name for run in study.runs], state)
    for width in (80, 60):
        text = screen(status_table(study, states), width)
        for word in ('training', 'state', 'epoch', 'done', 'left', 'box AP'):
            assert word in text
        for word in ('running', '11/12', '88%', '10:00:00', '1:24:', '37.5'):
            assert text.count(word) == 4, (word, text)
        assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert all(
        name in screen(status_table(study, states), 120) for name in names
    )


def test_more_trainings_than_lines(write):
    """What runs and what has failed is seen, and all are counted."""
    study = read_study(write(seeds=list(range(100))))
    states = {run.name: State('waiting') for run in study.runs}
    names = list(states)
    states |= {name: State('finished') for name in names[:50]}
    states[names[150]] = State('running')
    states[names[170]] = State('failed', error='why ' * 60)
    line = summary(study, states)
    assert '50 finished' in line
    for height in (24, 50):
        console = Console(width=80, height=height)
        text = screen(view(study, states, console, line), 80, height)
        lines = text.splitlines()
        assert len(lines) < height
        assert max(map(len, lines)) <= 80
        assert re.search(rf'{names[150]} +running', text)
        assert re.search(rf'{names[170]} +failed', text)
        assert '200 trainings: 148 waiting, 50 finished' in text or (
            '200 trainings: 50 finished' in text
        )
    # Elsewhere all are shown.
    table = screen(status_table(study, states), 120, 300)
    assert all(name in table for name in names)


@pytest.mark.parametrize('visible', [None, '5,3,7,1'])
def test_slots(monkeypatch, visible):
    """GPUs are those that this process may use."""
    monkeypatch.setattr('torch.cuda.device_count', lambda: 4)
    monkeypatch.setattr(execute, 'available_cores', lambda: [2, 4, 6, 8])
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    numbers = (visible or '0,1,2,3').split(',')
    one, other = execute.slots({'at_once': 2, 'gpus': 2})
    assert [*one.gpus, *other.gpus] == numbers
    assert [one.cores, other.cores] == [(2, 4), (6, 8)]
    last = execute.slots({'at_once': 4, 'gpus': 0, 'cores': 1})[3]
    assert last == ((), (8,))
    with pytest.raises(InputError, match=r'need 6 GPUs, and .* has 4: lower'):
        execute.slots({'at_once': 3, 'gpus': 2})
    with pytest.raises(InputError, match=r'need 6 cores, and .* has 4: lower'):
        execute.slots({'at_once': 2, 'gpus': 1, 'cores': 3})


def test_command(write, monkeypatch):
    study = read_study(write())
    run = study.runs[0]
    words = execute.command(study, run)
    assert words[1].endswith('tools/train.py')
    assert words[-3:] == ['--work-dir', str(study.work_dir(run)), '--resume']
    study = read_study(write(launch={'gpus': 2}))
    words = execute.command(study, run)
    assert words[0].endswith('tools/dist_train.sh')
    assert words[2] == '2'
