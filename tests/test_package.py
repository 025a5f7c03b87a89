"""Import, packaging, environment set-up, and the README's truth."""

import ast
import os
import re
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_attn.study.results.paper import TABLE_5

README = (ROOT / 'README.md').read_text()


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
        'print(*{m.split(".")[0] for m in set(sys.modules) - before})'
    )
    new = set(done.stdout.split())
    assert 'mmdet_attn' in new, done.stderr
    foreign = new - {'mmdet_attn'} - set(sys.stdlib_module_names)
    assert foreign <= {'mmengine', 'torch'}


@pytest.mark.parametrize('scope', ['mmdet', None])
def test_dotted_name_needs_no_import(scope):
    """In anybody's script: the type alone imports mmdet_attn."""
    done = python(
        'import sys\n'
        'from mmengine.registry import init_default_scope\n'
        'from mmdet.models import ResNet\n'
        f'if {scope!r}: init_default_scope({scope!r})\n'
        'assert "mmdet_attn" not in sys.modules\n'
        'plugin = dict(cfg=dict(type="mmdet_attn.ECA"),\n'
        '              position="after_conv3")\n'
        'print(type(ResNet(50, plugins=[plugin]).layer4[2].eca))'
    )
    assert "<class 'mmdet_attn.plugins.eca.ECA'>" in done.stdout, done.stderr


def test_missing_stack_is_explained(tmp_path):
    """A part that needs mmdet says what to install."""
    (tmp_path / 'mmdet.py').write_text('raise ImportError("no mmdet here")')
    output = run_tool(
        'tools/train.py',
        'configs/retinanet_r50.py',
        ok=False,
        PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}',
    )
    assert 'no mmdet here' in output
    assert "pip install --no-build-isolation -e '.[onedl]'" in output
    assert 'Traceback' not in output


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    # A copy: building must not meddle with the tree that is under test.
    files = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split('\n')
    for name in filter(None, files):
        if (ROOT / name).is_file():
            target = folder / 'source' / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps']
    subprocess.run(
        [*pip, '--no-build-isolation', '-w', folder, folder / 'source'],
        check=True,
        capture_output=True,
    )
    return next(folder.glob('*.whl'))


def test_wheel_has_configs_and_tools_for_mim(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(
            next(n for n in names if n.endswith('METADATA'))
        ).decode()
    for name in TABLE_5:
        assert f'mmdet_attn/.mim/configs/{name}.py' in names
    for tool in ('train.py', 'test.py', 'dist_train.sh'):
        assert f'mmdet_attn/.mim/tools/{tool}' in names
    assert 'mmdet_attn/plugins/eca.py' in names
    assert not any(name.startswith('tests') for name in names)
    for extra in ('onedl', 'openmmlab', 'dev'):
        assert f'Provides-Extra: {extra}' in metadata
    needed = re.findall(r'Requires-Dist: ([\w-]+)[^;\n]*\n', metadata)
    named = {'torch', 'jinja2', 'matplotlib', 'numpy', 'pillow', 'rich'}
    assert set(needed) == named


def test_installed_wheel_trains_by_config_name(wheel, tmp_path):
    """What ``mim train mmdet_attn NAME`` does: both found below .mim."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    mim = tmp_path / 'mmdet_attn/.mim'
    found = list(mim.rglob('faster_rcnn_r50_eca.py'))
    assert len(found) == 1  # mim refuses an ambiguous name
    output = run_tool(
        mim / 'tools/train.py',
        found[0],
        '--data-root',
        tmp_path,
        ok=False,
        PYTHONPATH=str(tmp_path),
    )
    assert 'lacks the train split' in output


def test_no_asserts_for_user_input():
    for file in [
        *ROOT.glob('mmdet_attn/**/*.py'),
        *ROOT.glob('tools/**/*.py'),
    ]:
        if '.mim' not in file.parts:
            tree = ast.parse(file.read_text())
            asserts = [n for n in ast.walk(tree) if isinstance(n, ast.Assert)]
            assert not asserts, file


SETUP = [sys.executable, str(ROOT / 'tools/setup_env.py')]


def setup(*arguments, **env):
    return subprocess.run(
        [*SETUP, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | env,
        check=False,
    )


@pytest.fixture
def stack():
    from importlib import metadata

    try:
        metadata.version('onedl-mmengine')
    except metadata.PackageNotFoundError:
        return 'openmmlab'
    return 'onedl'


def test_setup_leaves_an_environment_with_the_stack_alone(stack):
    done = setup(
        '--stack',
        stack,
        '--python',
        sys.executable,
        '--',
        'python',
        '-c',
        'import sys; print(sys.executable)',
    )
    assert os.path.samefile(done.stdout.split()[-1], sys.executable)
    active = os.path.dirname(os.path.dirname(sys.executable))
    done = setup('--stack', stack, '--', 'true', VIRTUAL_ENV=active)
    assert f'using the active environment {active}' in done.stdout


def test_setup_explains_itself(stack, tmp_path):
    done = setup('--python', tmp_path / 'python')
    assert 'setup: error: --python' in done.stderr
    other = 'onedl' if stack == 'openmmlab' else 'openmmlab'
    done = setup('--stack', other, '--python', sys.executable)
    assert f'lacks {"onedl-mmengine" if other == "onedl" else "mmeng"}' in (
        done.stderr
    )
    assert done.returncode == 1


def test_setup_without_registry(tmp_path):
    """One clear line, and the next run can carry on."""
    done = setup(
        '--env',
        tmp_path / 'env',
        '--',
        'true',
        VIRTUAL_ENV='',
        CONDA_PREFIX='',
        PIP_INDEX_URL='http://127.0.0.1:9/simple',
        PIP_EXTRA_INDEX_URL='',
        PIP_FIND_LINKS='',
        PIP_CONFIG_FILE=os.devnull,
        PIP_RETRIES='0',
    )
    assert done.returncode == 1
    assert 'the package registry cannot be reached' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_setup_without_compiler():
    code = (
        'import sys; sys.path.insert(0, "tools"); import setup_env\n'
        'setup_env.check_compiler()'
    )
    done = python(code, CXX='no-such-compiler')
    assert 'no C++ compiler (no-such-compiler)' in done.stderr
    assert 'apt-get install build-essential' in done.stderr
    assert python(code).returncode == 0


def test_readme_is_short_and_true():
    assert len(README.splitlines()) <= 365
    for path in re.findall(r'\]\((?!http)([^)#]+)\)', README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r'\b(?:tools|configs)/[\w/.]+\.(?:py|sh)', README):
        if 'name' not in path:
            assert (ROOT / path).exists(), path
    for name, row in TABLE_5.items():
        cells = f'| {row.params_m:.2f} | {row.gflops:.2f} | {row.ap:.1f} |'
        assert f'| [{name}](configs/{name}.py) {cells}' in README
    flags = set(re.findall(r'--[a-z][a-z-]+', README))
    sources = ''.join(
        f.read_text()
        for f in [*ROOT.glob('tools/**/*.py'), ROOT / 'mmdet_attn/cli.py']
    )
    for flag in flags:
        assert f"'{flag}'" in sources, flag


def test_readme_has_every_module():
    """With its own file and config, and the parameters of that config."""
    from mmdet.registry import MODELS

    from mmdet_attn import plugins

    def parameters(config):
        backbone = Config.fromfile(ROOT / config).model.backbone
        backbone.init_cfg = None
        with torch.device('meta'):
            network = MODELS.build(backbone)
        # alpha is the identity start's, not the paper's.
        return sum(
            parameter.numel()
            for key, parameter in network.named_parameters()
            if not key.endswith('alpha')
        )

    init_default_scope('mmdet')
    plain = parameters('configs/faster_rcnn_r50.py')
    rows = re.findall(
        r'^\| \[`(\w+)`\]\(mmdet_attn/plugins/(\w+)\.py\) .*?'
        r'\| (-?[\d,]+) \|.*\((configs/\S+\.py)\) \|$',
        README,
        re.MULTILINE,
    )
    names = {name for name, *_ in rows}
    helpers = {'Attention', 'Gate', 'SimAMConv2d'}
    assert names == set(plugins.__all__) - helpers
    for name, file, added, config in rows:
        module = getattr(plugins, name).__module__
        assert module == f'mmdet_attn.plugins.{file}'
        assert int(added.replace(',', '')) == parameters(config) - plain


def test_readme_network_runs():
    """The example for plain PyTorch."""
    blocks = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    (code,) = (b for b in blocks if 'from mmdet_attn import CBAM' in b)
    names: dict = {}
    exec(code, names)
    assert names['model'](torch.randn(2, 3, 32, 32)).shape == (2, 10)
