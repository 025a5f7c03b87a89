"""Import, packaging and the environment that make sets up."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata, util
from pathlib import Path

import pytest
from conftest import ROOT, run_tool, user_error

from mmdet_attn.errors import EXTRAS
from mmdet_attn.study.paper import TABLE_5


def python(code, **env):
    return subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT)} | env,
        check=False,
    )


def test_import_needs_torch_and_mmengine_only():
    done = python(
        'import torch, mmengine.model, sys; before = set(sys.modules)\n'
        'import mmdet_attn\n'
        'print(*{m.split(".")[0] for m in set(sys.modules) - before})\n'
        'from mmengine.registry import MODELS\n'
        'MODELS.build(dict(type="ECA", in_channels=64))'
    )
    assert done.returncode == 0, done.stderr
    new = set(done.stdout.split())
    assert 'mmdet_attn' in new
    foreign = new - {'mmdet_attn'} - set(sys.stdlib_module_names)
    assert foreign <= {'mmengine', 'torch'}


@pytest.mark.parametrize(
    ('package', 'scope'), [('mmdet', 'mmdet'), ('mmdet', None), ('mmseg',) * 2]
)
def test_dotted_name_needs_no_import(package, scope):
    """In anybody's script: the type alone imports mmdet_attn."""
    pytest.importorskip(package, exc_type=ImportError)
    done = python(
        'import sys\n'
        'from mmengine.registry import init_default_scope\n'
        f'from {package}.models import ResNet\n'
        f'if {scope!r}: init_default_scope({scope!r})\n'
        'assert "mmdet_attn" not in sys.modules\n'
        'plugin = dict(cfg=dict(type="mmdet_attn.ECA"),\n'
        '              position="after_conv3")\n'
        'print(type(ResNet(depth=50, plugins=[plugin]).layer4[2].eca))'
    )
    assert "<class 'mmdet_attn.plugins.eca.ECA'>" in done.stdout, done.stderr


def test_missing_stack_is_explained(monkeypatch):
    """A part that needs mmdet says what to install."""
    monkeypatch.setitem(sys.modules, 'mmdet.apis', None)
    output = user_error('tools/train.py', 'configs/retinanet_r50.py')
    assert 'mmdet.apis' in output
    assert "pip install --no-build-isolation -e '.[onedl]'" in output


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    # A copy: building must not meddle with the tree that is under test.
    for name in ('configs', 'mmdet_attn', 'tools'):
        shutil.copytree(ROOT / name, folder / 'source' / name)
    for pattern in ('LICENSE', '*.in', '*.md', '*.py', '*.toml'):
        for file in ROOT.glob(pattern):
            shutil.copy(file, folder / 'source')
    pip = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps']
    subprocess.run(
        [*pip, '--no-build-isolation', '-w', folder, folder / 'source'],
        check=True,
        capture_output=True,
    )
    return next(folder.glob('*.whl'))


@pytest.fixture
def installed(wheel, tmp_path):
    """What pip would make of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    return tmp_path / 'site'


def test_wheel_has_data_configs_and_tools(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(
            next(name for name in names if name.endswith('entry_points.txt'))
        ).decode()
    for name in TABLE_5:
        assert f'mmdet_attn/.mim/configs/{name}.py' in names
    for tool in ('train.py', 'test.py', 'dist_train.sh'):
        assert f'mmdet_attn/.mim/tools/{tool}' in names
    for file in ROOT.glob('mmdet_attn/**/*'):
        if file.suffix in ('.j2', '.py', '.typed'):
            assert file.relative_to(ROOT).as_posix() in names
    assert not any(name.startswith('tests') for name in names)
    assert not any('__pycache__' in name for name in names)
    assert 'mmdet-attn = mmdet_attn_cli:main' in entry_points
    assert 'mmdet_attn_cli.py' in names
    # MIM refuses a name that it finds twice.
    (file,) = (n for n in names if n.endswith('/faster_rcnn_r50_eca.py'))
    assert file.startswith('mmdet_attn/.mim/')


def test_plugins_need_torch_and_mmengine(wheel):
    """The rest is in extras, and what a message asks for is in its extra."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
        text = archive.read(name).decode()
    needed = re.findall(r'^Requires-Dist: ([\w-]+)([^;\n]*)$', text, re.M)
    assert {name for name, _ in needed} == {'torch', 'onedl-mmengine'}
    for extra in ('tools', 'onedl', 'openmmlab', 'docs', 'dev'):
        assert f'Provides-Extra: {extra}' in text
    tools = re.findall(r'Requires-Dist: ([\w-]+).*extra == "tools"', text)
    imports = {name.replace('-', '_') for name in tools}
    imports = imports - {'pillow'} | {'PIL'}
    assert imports == EXTRAS["'mmdet_attn[tools]'"]


@pytest.mark.slow
@pytest.mark.parametrize('how', ['mim', 'name'])
def test_installed_wheel_trains_by_config_name(installed, how):
    """As `mim train mmdet_attn NAME` does, and by `mmdet_attn::NAME`."""
    name = 'faster_rcnn_r50_eca.py'
    mim = installed / 'mmdet_attn/.mim'
    command = {
        'mim': [mim / 'tools/train.py', *mim.rglob(name)],
        'name': [
            *(sys.executable, '-c', 'import mmdet_attn_cli as c; c.main()'),
            *('train', f'mmdet_attn::{name}'),
        ],
    }[how]
    output = run_tool(
        *command, '--data-root', installed, ok=False, PYTHONPATH=str(installed)
    )
    assert f'{installed} lacks the train split' in output


def test_no_asserts_for_user_input():
    for folder in ('mmdet_attn', 'tools'):
        for file in ROOT.glob(f'{folder}/**/*.py'):
            nodes = ast.walk(ast.parse(file.read_text()))
            assert not any(isinstance(n, ast.Assert) for n in nodes), file


SETUP = ROOT / 'tools/setup_env.py'


def setup(*arguments, **env):
    nothing = {'VIRTUAL_ENV': '', 'CONDA_PREFIX': ''}
    return subprocess.run(
        [sys.executable, str(SETUP), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | nothing | env,
        check=False,
    )


@pytest.fixture
def setup_env():
    spec = util.spec_from_file_location('setup_env', SETUP)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stack():
    try:
        metadata.version('onedl-mmengine')
    except metadata.PackageNotFoundError:
        return 'openmmlab'
    return 'onedl'


def test_setup_leaves_an_environment_with_the_stack_alone(stack):
    command = ('python', '-c', 'import sys; print(sys.executable)')
    known = ('--stack', stack, '--python', sys.executable)
    done = setup(*known, '--', *command)
    assert os.path.samefile(done.stdout.split()[-1], sys.executable)
    active = str(Path(sys.executable).parents[1])
    done = setup('--stack', stack, '--', 'true', VIRTUAL_ENV=active)
    assert f'using the active environment {active}' in done.stdout


def test_setup_explains_itself(stack, tmp_path):
    done = setup('--python', tmp_path / 'python')
    assert 'setup: error: --python' in done.stderr
    other = 'onedl' if stack == 'openmmlab' else 'openmmlab'
    done = setup('--stack', other, '--python', sys.executable)
    assert f'lacks {"onedl-mmcv" if other == "onedl" else "mmcv"}' in (
        done.stderr
    )
    assert done.returncode == 1


@pytest.mark.slow
def test_setup_without_registry(tmp_path):
    """One clear line, and the next run can carry on."""
    done = setup(
        *('--env', tmp_path / 'env', '--', 'true'),
        PIP_INDEX_URL='http://127.0.0.1:9/simple',
        PIP_EXTRA_INDEX_URL='',
        PIP_FIND_LINKS='',
        PIP_CONFIG_FILE=os.devnull,
        PIP_RETRIES='0',
    )
    assert done.returncode == 1
    assert 'the package registry cannot be reached' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_setup_never_clears_what_it_did_not_make(setup_env, tmp_path):
    """Another stack's environment is refused, not cleared."""
    (tmp_path / 'openmmlab-0123456789ab.stamp').touch()
    done = setup('--env', tmp_path, '--', 'true')
    assert f'{tmp_path} holds another stack' in done.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_setup_without_compiler(setup_env, monkeypatch):
    setup_env.check_compiler()
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(SystemExit) as stop:
        setup_env.check_compiler()
    assert 'no C++ compiler (no-such-compiler)' in str(stop.value)
    assert 'apt-get install build-essential' in str(stop.value)


def test_cut_build_leaves_no_wheel(setup_env, monkeypatch, tmp_path):
    """Only what pip has written to its end is taken from the cache."""
    monkeypatch.setattr(setup_env, 'CACHE', tmp_path)

    def build(step, command, log, interrupt, **variables):
        folder = Path(command[command.index('-w') + 1])
        folder.mkdir(exist_ok=True)
        (folder / 'mmcv-2.1.0-py3-none-any.whl').touch()
        if interrupt:
            raise KeyboardInterrupt

    for interrupt in (True, False):
        monkeypatch.setattr(
            setup_env, 'run', functools.partial(build, interrupt=interrupt)
        )
        arguments = sys.executable, 'mmcv==2.1.0', tmp_path / 'log'
        if interrupt:
            with pytest.raises(KeyboardInterrupt):
                setup_env.mmcv_wheel(*arguments)
            assert not list(tmp_path.glob('*/*.whl'))
        else:
            folder = setup_env.mmcv_wheel(*arguments)
            assert len(list(folder.glob('*.whl'))) == 1


def test_every_stack_is_pinned(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env, 'gpus', list)
    for stack, names in setup_env.STACKS.items():
        plan = setup_env.Plan(stack)
        for name in names:
            assert plan.pin(name).startswith(f'{name}==')
        for line in plan.pins.splitlines():
            assert re.match(r'[\w.\[\]-]+==[\w.]+( ; .*)?$', line), line


@pytest.mark.parametrize(
    ('version', 'gpus', 'expected'),
    [
        ((3, 12), [((9, 0), 580)], ('2.12.0', 'cu130')),
        ((3, 12), [((8, 9), 570)], ('2.10.0', 'cu129')),
        ((3, 10), [((7, 5), 535), ((12, 0), 580)], ('2.8.0', 'cu128')),
        ((3, 12), [((12, 1), 590)], ('2.12.0', 'cu130')),
        ((3, 11), [((9, 0), 580)], 'BOOTSTRAP=python3.12'),
        ((3, 12), [((9, 0), 470)], 'driver 525 or later'),
        ((3, 12), [((8, 0), 580)], 'compute capability 8.0'),
        ((3, 12), [((9, 0), 580), ((8, 0), 580)], 'compute capability 8.0'),
        ((3, 12), [((7, 0), 580)], 'compute capability 7.0'),
    ],
)
def test_prebuilt_pairs(setup_env, version, gpus, expected):
    if isinstance(expected, tuple):
        assert setup_env.prebuilt(version, gpus) == expected
        return
    with pytest.raises(SystemExit) as stop:
        setup_env.prebuilt(version, gpus)
    assert expected in str(stop.value)


def test_prebuilt_pair_changes_one_pin(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env, 'gpus', list)
    without = setup_env.Plan('onedl')
    monkeypatch.setattr(setup_env, 'gpus', lambda: [((9, 0), 580)])
    monkeypatch.setattr(setup_env, 'nvcc', lambda: None)
    monkeypatch.setattr(setup_env, 'prebuilt', lambda *_: ('2.12.0', 'cu130'))
    plan = setup_env.Plan('onedl')
    assert plan.stamp != without.stamp
    changed = set(plan.pins.splitlines()) - set(without.pins.splitlines())
    assert changed == {'torch==2.12.0+cu130'}
    assert plan.index[-1].endswith('/cu130')
    assert '/cu130-torch2120/' in plan.wheels
    with pytest.raises(SystemExit, match='nvcc is missing'):
        setup_env.Plan('openmmlab')
    # With nvcc the ops are compiled, for the torch of the lock.
    monkeypatch.setattr(setup_env, 'nvcc', lambda: '/usr/bin/nvcc')
    assert setup_env.Plan('openmmlab').pin('torch') == without.pin('torch')


@pytest.mark.parametrize('hidden', [False, True])
def test_dry_run_on_a_machine_with_a_gpu(setup_env, tmp_path, hidden):
    """A stand-in for nvidia-smi; nothing is made."""
    stand_in = tmp_path / 'nvidia-smi'
    stand_in.write_text('#!/bin/sh\necho "9.0, 580.65.06"\n')
    stand_in.chmod(0o755)
    env = {'PATH': str(tmp_path), 'CUDA_HOME': str(tmp_path)}
    if hidden:
        env['CUDA_VISIBLE_DEVICES'] = '-1'
    done = setup('--dry-run', '--env', tmp_path / 'env', '--', 'true', **env)
    assert not (tmp_path / 'env').exists()
    pairs = {version for version, *_ in setup_env.PREBUILT}
    if hidden:
        assert 'no GPU is visible' in done.stdout
    elif sys.version_info[:2] in pairs:
        assert 'mmwheels.onedl.ai' in done.stdout
        assert 'we have not tried it' in done.stdout
    else:
        assert 'BOOTSTRAP=python3.12' in done.stderr
