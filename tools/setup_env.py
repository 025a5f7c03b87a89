#!/usr/bin/env python3
"""Prepare an environment with a pinned stack, then run a command in it.

    python3 tools/setup_env.py --stack onedl -- python -m pytest

Needs Python 3.10 to 3.12 with venv, a C++ compiler and a package registry. An
active environment that has the stack is used as it is, otherwise one is made.
The compiled ops of mmcv are built once and kept as a wheel in the user's
cache. It is cheap to repeat and safe to interrupt.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
CACHE = CACHE / 'mmdet_attn'
SHARED = ('torch', 'pycocotools', 'faster-coco-eval')
STACKS = {  # what makes a stack complete; mmcv first
    'onedl': ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', *SHARED),
    'openmmlab': ('mmcv', 'mmengine', 'mmdet', *SHARED),
    'docs': ('mkdocs-material', 'mkdocstrings'),
}
# onedl-mmcv 2.3.6 with CUDA ops, from its maintainers: Python, torch, CUDA
# and the oldest driver. The first row that fits is taken.
PREBUILT = (
    ((3, 12), '2.12.0', 'cu130', 580),
    ((3, 12), '2.10.0', 'cu129', 525),
    ((3, 10), '2.8.0', 'cu128', 525),
)
ARCHITECTURES = ((7, 5), (8, 6), (8, 9), (9, 0), (12, 0))
TORCH_INDEX = 'https://download.pytorch.org/whl/{cuda}'
WHEELS = 'https://mmwheels.onedl.ai/{cuda}-torch{torch}/simple/onedl-mmcv/'
OR_ELSE = 'install nvcc, or stay on the CPU with CUDA_VISIBLE_DEVICES=-1'
LACKS = """
import glob, importlib.metadata, importlib.util, os
names, missing = %r, []
for name in names:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing.append(name)
if 'torch' in names and not missing:
    folder = os.path.dirname(importlib.util.find_spec('mmcv').origin)
    if not glob.glob(folder + '/_ext*'):
        missing.append("mmcv's compiled ops (mmcv._ext)")
print(', '.join(missing))
"""
TORCH = 'import torch as t; print(t.__version__, t.cuda.is_available())'
NETWORK = 'Failed to establish|Connection ?(refused|Error)|ProxyError|' + (
    'Network is unreachable|name resolution'
)


def fail(message):
    sys.exit(f'setup: error: {message}')


def say(message):
    print(f'setup: {message}', flush=True)


def ask(python, code):
    out = subprocess.run(
        [str(python), '-c', code], capture_output=True, text=True
    )
    if out.returncode:
        last = (out.stderr.strip().splitlines() or ['no output'])[-1]
        fail(f'{python} cannot be used: {last}')
    return out.stdout.strip()


def run(step, command, log, **env):
    """Run a command quietly, with a line of progress; explain a failure."""
    say(f'{step} ...')
    start, shown, lines = time.time(), 0.0, []
    process = subprocess.Popen(
        [str(part) for part in command],
        env=os.environ | env,
        text=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process, open(log, 'a') as file:
        for line in process.stdout:
            print(line, end='', file=file, flush=True)
            lines.append(line.strip())
            done = re.match(r'\[(\d+)/(\d+)\]', line.strip())
            if done and time.time() - shown > 20:
                shown = time.time()
                say(f'  {done[1]} of {done[2]} files compiled')
    if process.returncode:
        errors = [s for s in lines if re.search(r'error: ?\S', s, re.I)]
        reason = (errors or lines or ['no output'])[-1]
        if re.search(NETWORK, '\n'.join(lines), re.I):
            reason = (
                'the package registry cannot be reached; check the '
                'network, or point PIP_INDEX_URL at a mirror'
            )
        fail(f'{step}: {reason} (log: {log})')
    say(f'  done in {time.time() - start:.0f} s')


def nvcc():
    cuda = os.path.join(
        os.environ.get('CUDA_HOME') or '/usr/local/cuda', 'bin'
    )
    return shutil.which('nvcc') or shutil.which('nvcc', path=cuda)


def gpus():
    """Compute capability and driver of each GPU that nvidia-smi shows."""
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
    if hidden or not shutil.which('nvidia-smi'):
        return []
    query = 'nvidia-smi --query-gpu=compute_cap,driver_version --format=csv'
    out = subprocess.run(query.split(), capture_output=True, text=True)
    found = re.findall(r'^(\d+)\.(\d+), (\d+)', out.stdout, re.MULTILINE)
    return [((int(a), int(b)), int(driver)) for a, b, driver in found]


def prebuilt(python, found):
    """Torch and CUDA of a prebuilt mmcv, for a Python and some GPUs."""
    for (major, minor), _ in found:
        if not any(major == a and minor >= b for a, b in ARCHITECTURES):
            fail(
                'nvcc is missing, and the prebuilt onedl-mmcv has no code for '
                f'compute capability {major}.{minor}: {OR_ELSE}.'
            )
    driver = min(driver for _, driver in found)
    for version, torch, cuda, oldest in PREBUILT:
        if version == python and driver >= oldest:
            return torch, cuda
    fail(
        'nvcc is missing. The prebuilt onedl-mmcv needs Python 3.12 or 3.10 '
        f'and driver 525 or later, here are {python[0]}.{python[1]} and '
        f'{driver}: call make with BOOTSTRAP=python3.12, or {OR_ELSE}.'
    )


class Plan:
    """The pins of an environment, and where torch and mmcv come from."""

    def __init__(self, stack):
        if not (3, 10) <= sys.version_info[:2] <= (3, 12):
            fail(
                'Python 3.10 to 3.12 is needed, this is '
                f'{sys.version.split()[0]}; call make with '
                'BOOTSTRAP=python3.11 or another one you have.'
            )
        names = ('docs',) if stack == 'docs' else ('base', stack)
        files = [ROOT / f'requirements/{name}.txt' for name in names]
        text = ''.join(file.read_text() for file in files)
        self.stack = stack
        self.pins = re.sub('^(-r|#).*\n', '', text, flags=re.MULTILINE)
        self.index, self.wheels = [], None
        self.why = 'no GPU is visible: mmcv is compiled for the CPU'
        found = [] if stack == 'docs' else gpus()
        if found and nvcc():
            self.why = 'a GPU and nvcc are here: mmcv is compiled for CUDA'
        elif found and stack == 'openmmlab':
            fail(f'nvcc is missing, and no mmcv is prebuilt: {OR_ELSE}.')
        elif found:
            torch, cuda = prebuilt(sys.version_info[:2], found)
            short = torch.replace('.', '')
            self.index = ['--extra-index-url', TORCH_INDEX.format(cuda=cuda)]
            self.wheels = WHEELS.format(cuda=cuda, torch=short)
            self.why = (
                'a GPU is here and nvcc is not: mmcv is prebuilt by its '
                'maintainers; we have not tried it'
            )
            pin = f'torch=={torch}+{cuda}'
            self.pins = self.pins.replace(self.pin('torch'), pin)
        digest = hashlib.sha256(self.pins.encode()).hexdigest()
        self.stamp = f'{stack}-{digest[:12]}.stamp'
        self.mmcv = '' if stack == 'docs' else self.pin(STACKS[stack][0])

    def pin(self, name):
        """The requirement of a package, such as `mmcv==2.1.0`."""
        return re.search(f'^{name}==[^ \n]+', self.pins, re.MULTILINE)[0]

    def show(self, env):
        """Print what would be installed, from where and why."""
        registry = os.environ.get('PIP_INDEX_URL', 'the registry of pip')
        say(f'Python {sys.version.split()[0]}, {sys.executable}, in {env}')
        if self.mmcv:
            say(self.why)
            say(f'{self.pin("torch")} from {(self.index or [registry])[-1]}')
            say(f'{self.mmcv} from {self.wheels or "its source"}')
        say(f'requirements/{self.stack}.txt from {registry}')


def check_compiler():
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if not shutil.which(compiler):
        fail(
            f'no C++ compiler ({compiler}): mmcv compiles its ops. Install '
            'one (Debian, Ubuntu: apt-get install build-essential) or name '
            'it in CXX.'
        )
    header = Path(sysconfig.get_paths()['include'], 'Python.h')
    if not header.exists():
        fail(
            f'{header} is missing: install the Python headers (Debian, '
            'Ubuntu: apt-get install python3-dev).'
        )


def mmcv_wheel(python, pin, log):
    """The folder with mmcv's wheel for this Python and torch; built once."""
    torch, gpu = ask(python, TORCH).split()
    forced = os.environ.get('FORCE_CUDA') == '1'  # no GPU in a docker build
    kind = 'cuda' if gpu == 'True' or forced else 'cpu'
    if kind == 'cuda' and not nvcc():
        fail(f'torch sees a GPU, and nvcc is missing: {OR_ELSE}.')
    tag = sys.implementation.cache_tag
    parts = (pin.replace('==', '-'), tag, 'torch' + torch, kind)
    folder = CACHE / '-'.join([*parts, sysconfig.get_platform()])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if list(folder.glob('*.whl')):
            say(f'{pin} with compiled ops: from {folder}')
            return folder
        check_compiler()
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        # No cache of pip's: it does not tell one torch from another.
        flags = ['--no-cache-dir', '--no-deps', '--no-build-isolation', '-v']
        flags += ['--no-binary', ':all:', '-w', folder / 'built']
        run(
            f'build {pin} with {kind.upper()} ops, once for this Python and '
            'torch (5 to 8 minutes on 2 cores)',
            [python, '-m', 'pip', 'wheel', *flags, pin],
            log,
            MMCV_WITH_OPS='1',
            MAX_JOBS=str(max(1, min(os.cpu_count() or 1, memory // 2**31))),
            FORCE_CUDA='1' if kind == 'cuda' else '0',
            CFLAGS=os.environ.get('CFLAGS', '') + ' -g0',
            # ninja on the path: without it setuptools compiles on one core.
            PATH=f'{Path(python).parent}:{os.environ["PATH"]}',
        )
        # pip copies a wheel to where it is wanted, and a copy can be cut.
        for wheel in (folder / 'built').glob('*.whl'):
            wheel.rename(folder / wheel.name)
    return folder


def make_env(env, plan):
    """Create or complete the environment; its interpreter is returned."""
    python, stamp, stack = env / 'bin' / 'python', env / plan.stamp, plan.stack
    if stamp.exists():
        return python
    start, log, lock = time.time(), env / 'setup.log', env / 'pins.txt'
    stale = [file.name for file in env.glob('*.stamp')]
    if other := [name for name in stale if not name.startswith(stack)]:
        fail(f'{env} holds another stack ({other[0]}): name another --env.')
    if stale:
        say(f'the requirements have changed: {env} is made anew')
    if stale or not (env / 'bin' / 'pip').exists():
        tag = f'{plan.mmcv.replace("==", "-")}-{sys.implementation.cache_tag}'
        if plan.mmcv and not plan.wheels and not any(CACHE.glob(f'{tag}-*/*')):
            check_compiler()
        say(f'create {env}')
        # mmcv's ops fit one torch only: nothing old may stay. A folder that
        # was not made here, by its stamp, is never cleared.
        command = [sys.executable, '-m', 'venv', *(['--clear'] * bool(stale))]
        made = subprocess.run([*command, env], capture_output=True, text=True)
        if made.returncode:
            fail(
                'python -m venv failed; on Debian and Ubuntu: apt-get '
                f'install python3-venv. {made.stdout.strip()[-300:]}'
            )
    lock.write_text(plan.pins)
    install = [python, '-m', 'pip', 'install', '--retries', '2', *plan.index]
    wanted = ['-r', lock]
    if plan.mmcv:
        # With dependencies: torch's CUDA builds bring packages of their own.
        tools = ['torch', 'numpy', 'setuptools', 'wheel', 'ninja', 'packaging']
        step = 'install torch and the build tools'
        run(step, [*install, '-c', lock, *tools], log)
        wheels = plan.wheels or mmcv_wheel(python, plan.mmcv, log)
        install += ['--no-deps', '--no-build-isolation', '--find-links']
        install += [wheels, '--only-binary', STACKS[stack][0]]
        wanted += ['-e', ROOT]
    run(f'install the {stack} stack', [*install, *wanted], log)
    if gap := ask(python, LACKS % (STACKS[stack],)):
        fail(f'{env} still lacks {gap} (log: {log})')
    stamp.touch()
    say(f'{env} is ready, {time.time() - start:.0f} s')
    return python


def ready(args):
    """An interpreter that has the stack: the given or the active one."""
    active = os.environ.get('VIRTUAL_ENV') or os.environ.get('CONDA_PREFIX')
    python = shutil.which(args.python or Path(active or '', 'bin', 'python'))
    if args.python and not python:
        fail(f'--python {args.python}: no such program')
    if not python or not (args.python or active):
        return None
    gap = ask(python, LACKS % (STACKS[args.stack],))
    if args.python and gap:
        fail(
            f'{args.python} lacks {gap}; install the {args.stack} stack '
            'there, or leave PYTHON out and one is made.'
        )
    if not args.python and not gap:
        say(f'using the active environment {active}')
    return None if gap else Path(python)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    add = parser.add_argument
    add('--stack', choices=STACKS, default='onedl', help='default: onedl')
    add('--env', help='the environment to make (default: .venv, .venv-STACK)')
    add('--python', help='an interpreter that has the stack; used as it is')
    add(
        '--dry-run',
        action='store_true',
        help='print what would be installed, from where and why',
    )
    add('command', nargs=argparse.REMAINDER, help='what to run, after --')
    args = parser.parse_args()
    command = args.command[args.command[:1] == ['--'] :]
    python = ready(args)
    if not python:
        env = args.env or '.venv' + f'-{args.stack}' * (args.stack != 'onedl')
        env, plan = Path(env).absolute(), Plan(args.stack)
        if args.dry_run:
            return plan.show(env)
        python = make_env(env, plan)
    if not command or args.dry_run:
        return None
    paths = [str(ROOT), os.environ.get('PYTHONPATH')]
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    os.environ['PATH'] = f'{python.parent}:{os.environ["PATH"]}'
    if python.name != 'python' and command[0] == 'python':
        command[0] = str(python)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        fail(f'{command[0]}: no such program')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        fail('interrupted; run the same command again to carry on.')
