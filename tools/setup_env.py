#!/usr/bin/env python3
"""Prepare an environment with a pinned stack, then run a command in it.

    python3 tools/setup_env.py --stack onedl -- python -m pytest

Needs Python 3.10 to 3.12 with venv, a C++ compiler and a package registry;
nothing else. An active environment that has the stack is used as it is,
otherwise ``--env`` (``.venv``) is made. mmcv's compiled ops are built once and
kept as a wheel in the user's cache. Repeating is cheap, interrupting is safe.
"""

import argparse
import hashlib
import json
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
STACKS = {
    'onedl': ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection'),
    'openmmlab': ('mmengine', 'mmcv', 'mmdet'),
}
PROBE = """
import importlib.metadata as metadata, importlib.util as util, json
found = {}
for name in %r:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = None
spec = util.find_spec('mmcv')
ops = None
if spec and spec.origin:
    import glob, os
    ops = bool(glob.glob(os.path.dirname(spec.origin) + '/_ext*'))
print(json.dumps([found, ops]))
"""
TORCH = """
import json, torch
print(json.dumps([torch.__version__, torch.version.cuda,
                  torch.cuda.is_available()]))
"""
NO_NVCC = """\
a GPU is here, but no nvcc to build mmcv's CUDA ops with. Do one of these:
  - install the CUDA toolkit {cuda} (nvcc) and run this again;
  - install a prebuilt wheel, listed by CUDA and torch version at
    https://mmwheels.onedl.ai/ :
    {python} -m pip install --no-deps {pin} --find-links LINK_FROM_THERE
    and run this again;
  - stay on the CPU: CUDA_VISIBLE_DEVICES=-1 make ..."""


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
    return json.loads(out.stdout)


def lacks(python, stack):
    """What an interpreter lacks of a stack, as text; '' where nothing."""
    names = ('torch', 'pycocotools', 'faster-coco-eval', *STACKS[stack])
    found, ops = ask(python, PROBE % (names,))
    missing = [name for name in names if not found[name]]
    if not missing and not ops:
        missing = ["mmcv's compiled ops (mmcv._ext)"]
    return ', '.join(missing)


def run(step, command, log, env=None):
    """Run a command quietly, with a line of progress; explain a failure."""
    say(f'{step} ...')
    start, shown = time.time(), 0.0
    lines = []
    process = subprocess.Popen(
        [str(part) for part in command],
        env=env,
        text=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process, open(log, 'a') as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            lines.append(line.strip())
            done = re.search(r'^\s*\[(\d+)/(\d+)\]', line)
            if done and time.time() - shown > 20:
                shown = time.time()
                say(f'  {done[1]} of {done[2]} files compiled')
    if process.returncode:
        text = '\n'.join(lines)
        if re.search(
            r'Failed to establish|Connection ?(refused|Error)|Network '
            r'is unreachable|name resolution|ProxyError',
            text,
            re.I,
        ):
            reason = (
                'the package registry cannot be reached; check the '
                'network, or point PIP_INDEX_URL at a mirror'
            )
        else:
            errors = [s for s in lines if re.search(r'error: ?\S', s, re.I)]
            reason = (errors or lines or ['no output'])[-1]
        fail(f'{step}: {reason} (log: {log})')
    say(f'  done in {time.time() - start:.0f} s')


def pin_of(name, stack):
    """The requirement line of a package, such as ``mmcv==2.1.0``."""
    for line in (ROOT / f'requirements/{stack}.txt').read_text().splitlines():
        if line.split('==')[0] == name:
            return line
    raise KeyError(name)


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


def mmcv_wheel(python, stack, log):
    """The folder with mmcv's wheel for this Python and torch; built once."""
    import fcntl

    pin = pin_of(STACKS[stack][1], stack)
    version, cuda, gpu = ask(python, TORCH)
    home = os.environ.get('CUDA_HOME')
    nvcc = shutil.which('nvcc') or (
        home and shutil.which('nvcc', path=f'{home}/bin')
    )
    if gpu and not nvcc:
        fail(NO_NVCC.format(cuda=cuda, python=python, pin=pin))
    key = '-'.join(
        [
            pin.replace('==', '-'),
            sys.implementation.cache_tag,
            'torch' + version,
            'cuda' if gpu else 'cpu',
            sysconfig.get_platform(),
        ]
    )
    folder = CACHE / key
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if list(folder.glob('*.whl')):
            say(f'{pin} with compiled ops: from {folder}')
            return folder
        check_compiler()
        pip = [python, '-m', 'pip']
        source = folder / 'source'
        if not list(source.glob('*/setup.py')):
            shutil.rmtree(source, ignore_errors=True)
            run(
                f'download the source of {pin}',
                [
                    *pip,
                    'download',
                    '--no-deps',
                    '--no-build-isolation',
                    '--no-binary',
                    ':all:',
                    '-d',
                    source / 'sdist',
                    pin,
                ],
                log,
            )
            archive = next((source / 'sdist').iterdir())
            shutil.unpack_archive(archive, source / 'unpacked')
            next((source / 'unpacked').iterdir()).rename(source / 'mmcv')
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        jobs = max(1, min(os.cpu_count() or 1, memory // 2**31))
        # ninja on the path: without it setuptools compiles on one core.
        env = dict(
            os.environ,
            MMCV_WITH_OPS='1',
            MAX_JOBS=str(jobs),
            FORCE_CUDA='1' if gpu else '0',
            CFLAGS=os.environ.get('CFLAGS', '') + ' -g0',
            PATH=f'{Path(python).parent}:{os.environ["PATH"]}',
        )
        run(
            f'build {pin} with {"CUDA" if gpu else "CPU"} ops, once for this '
            'Python and torch (5 to 8 minutes on 2 cores)',
            [
                *pip,
                'wheel',
                '-v',
                '--no-deps',
                '--no-build-isolation',
                '-w',
                source / 'wheel',
                source / 'mmcv',
            ],
            log,
            env,
        )
        for wheel in (source / 'wheel').glob('*.whl'):
            wheel.rename(folder / wheel.name)
        shutil.rmtree(source)
    return folder


def make_env(env, stack):
    """Create or complete the environment; its interpreter is returned."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        fail(
            'Python 3.10 to 3.12 is needed, this is '
            f'{sys.version.split()[0]}; call make with '
            'BOOTSTRAP=python3.11 or another one you have.'
        )
    python = env / 'bin' / 'python'
    locks = [ROOT / f'requirements/{name}.txt' for name in ('base', stack)]
    digest = hashlib.sha256(b''.join(p.read_bytes() for p in locks))
    stamp = env / f'{stack}-{digest.hexdigest()[:12]}.stamp'
    if stamp.exists():
        return python
    start = time.time()
    log = env / 'setup.log'
    if other := [s.name for s in env.glob('*.stamp') if stack not in s.name]:
        fail(f'{env} holds another stack ({other[0]}): name another --env.')
    stale = list(env.glob('*.stamp'))
    if stale:
        say(f'the requirements have changed: {env} is made anew')
    if stale or not (env / 'bin' / 'pip').exists():
        pin = pin_of(STACKS[stack][1], stack).replace('==', '-')
        tag = sys.implementation.cache_tag
        if not list(CACHE.glob(f'{pin}-{tag}-*/*.whl')):
            check_compiler()
        say(f'create {env}')
        made = subprocess.run(
            # mmcv's ops fit one torch only: nothing old may stay. A folder
            # that was not made here, by its stamp, is never cleared.
            [sys.executable, '-m', 'venv', *(['--clear'] * bool(stale)), env],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            fail(
                'python -m venv failed; on Debian and Ubuntu: apt-get '
                f'install python3-venv. {made.stdout.strip()[-300:]}'
            )
    lock = locks[1]
    install = [
        python,
        '-m',
        'pip',
        'install',
        '--retries',
        '2',
        '--disable-pip-version-check',
    ]
    # With dependencies: torch's CUDA builds bring packages of their own.
    run(
        'install torch and the build tools',
        [
            *install,
            '-c',
            lock,
            'torch',
            'numpy',
            'setuptools',
            'wheel',
            'ninja',
            'packaging',
        ],
        log,
    )
    extra = []
    if ask(python, PROBE % (STACKS[stack],))[1] is not True:
        extra = ['--find-links', mmcv_wheel(python, stack, log)]
    run(
        f'install the {stack} stack',
        [
            *install,
            '--no-deps',
            '--no-build-isolation',
            *extra,
            '--only-binary',
            STACKS[stack][1],
            '-r',
            lock,
        ],
        log,
    )
    run(
        'install mmdet_attn (editable)',
        [*install, '--no-deps', '--no-build-isolation', '-e', ROOT],
        log,
    )
    if gap := lacks(python, stack):
        fail(f'{env} still lacks {gap} (log: {log})')
    stamp.touch()
    say(f'{env} is ready, {time.time() - start:.0f} s')
    return python


def choose(args):
    """The interpreter to use: given, active, or of our own environment."""
    if args.python:
        python = shutil.which(args.python)
        if not python:
            fail(f'--python {args.python}: no such program')
        if gap := lacks(python, args.stack):
            fail(
                f'{args.python} lacks {gap}; install the {args.stack} stack '
                'there, or leave PYTHON out and one is made.'
            )
        return Path(python)
    active = os.environ.get('VIRTUAL_ENV') or os.environ.get('CONDA_PREFIX')
    if active:
        python = Path(active, 'bin', 'python')
        if python.exists() and not lacks(python, args.stack):
            say(f'using the active environment {active}')
            return python
    return make_env(Path(args.env).absolute(), args.stack)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n\n')[0],
        epilog='Example: python3 tools/setup_env.py -- python -m pytest',
    )
    parser.add_argument(
        '--stack',
        choices=STACKS,
        default='onedl',
        help='which packages (default: onedl)',
    )
    parser.add_argument(
        '--env',
        default='.venv',
        help='where to make the environment (default: .venv)',
    )
    parser.add_argument(
        '--python',
        help='use this interpreter, which must '
        'have the stack; nothing is installed',
    )
    parser.add_argument(
        'command', nargs=argparse.REMAINDER, help='what to run there, after --'
    )
    args = parser.parse_args()
    command = args.command[args.command[:1] == ['--'] :]
    python = choose(args)
    if command:
        env = dict(os.environ)
        env['PATH'] = f'{python.parent}:{env["PATH"]}'
        env['PYTHONPATH'] = os.pathsep.join(
            filter(None, [str(ROOT), env.get('PYTHONPATH')])
        )
        if python.name != 'python' and command[0] == 'python':
            command[0] = str(python)
        try:
            os.execvpe(command[0], command, env)
        except FileNotFoundError:
            fail(f'{command[0]}: no such program')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        fail('interrupted; run the same command again to carry on.')
