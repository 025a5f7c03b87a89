"""The command `mmdet-attn`, and the thin fronts in tools/."""

import re
import subprocess
import sys
import time

import pytest
from conftest import ROOT, run_here, run_tool

from mmdet_attn.__main__ import COMMANDS, module_of
from mmdet_attn.errors import InputError, user_errors

MAIN = 'mmdet_attn/__main__.py'


def test_help_lists_every_command_without_torch():
    code = (
        'import sys, mmdet_attn_cli\n'
        'sys.argv = ["mmdet-attn", "--help"]\n'
        'try: mmdet_attn_cli.main()\n'
        'except SystemExit as stop: assert not stop.code\n'
        'assert "torch" not in sys.modules\n'
    )
    path = f'{ROOT / "tools"}:{ROOT}'
    output = run_tool(sys.executable, '-c', code, PYTHONPATH=path)
    for name, text in COMMANDS.items():
        assert re.search(f'^  {name} +{re.escape(text)}$', output, re.M)


def test_every_command_has_a_module():
    files = (ROOT / 'mmdet_attn/commands').glob('[!_]*.py')
    assert {file.stem.replace('_', '-') for file in files} == set(COMMANDS)


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_a_command(command):
    """Every option has a text; a front in tools/ shows the same."""
    code, text = run_here(MAIN, command, '--help')
    assert code == 0
    assert text.startswith(f'usage: mmdet-attn {command} ')
    for action in module_of(command).make_parser()._actions:
        assert action.help, action.dest
    file = command.replace('-', '_') + '.py'
    for front in ROOT.glob(f'tools/**/{file}'):
        code, same = run_here(front, '--help')
        assert code == 0
        assert same.startswith(f'usage: {file} ')
        assert text.split('\n\n')[1:] == same.split('\n\n')[1:]


def test_every_front_has_a_command():
    fronts = {
        file.stem.replace('_', '-') for file in ROOT.glob('tools/**/*.py')
    }
    assert fronts - set(COMMANDS) == {'setup-env', 'mmdet-attn-cli'}


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['trian'], 'no command trian: did you mean train?'),
        (['xyz'], 'no command xyz: see --help'),
        ([], 'required: command'),
        (['train', '--no'], 'mmdet-attn train: error:'),
        (['train', 'none.py'], 'mmdet-attn train: error: none.py: no such'),
    ],
)
def test_bad_command_lines(arguments, expected):
    code, output = run_here(MAIN, *arguments)
    assert code == 2
    assert expected in output


def test_missing_extra_is_one_line(monkeypatch):
    """In this process, where the command is imported once more."""
    module = 'mmdet_attn.commands.compare_results'
    monkeypatch.setitem(sys.modules, 'rich.console', None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    code, output = run_here(MAIN, 'compare-results', 'x')
    assert code == 2
    assert output == (
        'mmdet-attn compare-results: error: rich is not installed: '
        "pip install 'mmdet_attn[tools]'\n"
    )


@pytest.mark.parametrize('name', ['cv2', 'mmdet.apis'])
def test_missing_modules(name, capsys):
    with pytest.raises(SystemExit, match='2'), user_errors():
        raise ModuleNotFoundError(name=name)
    assert "'mmdet_attn[onedl]'" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError), user_errors():
        raise ModuleNotFoundError(name='no_extra_has_it')


@pytest.mark.parametrize('rank', ['0', '1'])
def test_first_process_shows_an_error_first(rank, capsys, monkeypatch):
    waits = []
    monkeypatch.setattr(time, 'sleep', waits.append)
    monkeypatch.setenv('LOCAL_RANK', rank)
    with pytest.raises(SystemExit, match='2'), user_errors():
        raise InputError('kernel_size must be odd, got 4.')
    assert 'kernel_size must be odd, got 4.' in capsys.readouterr().err
    assert bool(waits) == (rank == '1')


GROUP = """
import ctypes, os, torch, mmdet_attn.launch
from mmdet_attn.errors import InputError, user_errors
os.environ.update(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1')
os.environ['MASTER_PORT'] = '0'
torch.distributed.init_process_group('gloo')
c = ctypes.CDLL(None)
c.__cxa_atexit(c._exit, 99, None)
with user_errors():
    raise {error}
"""


@pytest.mark.parametrize(
    ('error', 'status'),
    [("InputError('bad')", 2), ("RuntimeError('/gloo/] lost. It')", 1)],
)
def test_error_within_a_group_skips_the_teardown(error, status):
    """At which gloo's threads abort a process now and then; 99 is its own."""
    done = subprocess.run(
        [sys.executable, '-c', GROUP.format(error=error)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_completion(shell, tmp_path):
    code, script = run_here(MAIN, 'completion', shell)
    assert code == 0
    for word in ('visualize-attention', 'auto-scale-lr', 'ecanet-coco'):
        assert word in script
    if shell != 'bash':
        return
    file = tmp_path / 'completion'
    file.write_text(script)

    def offered(*words):
        """What a real bash would offer for the last word."""
        line = ' '.join(f"'{word}'" for word in words)
        ask = (
            f'source {file}; read -ra spec <<< "$(complete -p mmdet-attn)"; '
            f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; '
            '"${spec[-2]}" mmdet-attn; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ['bash', '-c', ask], capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    assert offered('mmdet-attn', 'tr') == ['train']
    assert offered('mmdet-attn', 'train', '--am') == ['--amp']
    assert 'slurm' in offered('mmdet-attn', 'train', 'x', '--launcher', '')


@pytest.mark.parametrize(
    'message',
    [
        '[/p/gloo/tcp/pair.cc:5] Connection closed by peer [::1]:1. This is',
        '[/p/gloo/tcp/buffer.cc:7] Timed out waiting 1ms for recv operation',
    ],
)
def test_lost_process_is_one_line(message, capsys):
    with pytest.raises(SystemExit, match='1'), user_errors():
        raise RuntimeError(message)
    output = capsys.readouterr().err
    assert 'process 0: another process' in output
    assert '[/p' not in output
    with pytest.raises(RuntimeError, match='of ours'), user_errors():
        raise RuntimeError('of ours')
