"""What the READMEs and the manual name exists, and their code works."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from markdown_it import MarkdownIt
from mmengine.registry import MODELS, init_default_scope

import mmdet_attn
from mmdet_attn.__main__ import module_of
from mmdet_attn.config_files import load_config_file

READMES = ('README.md', 'README_zh-CN.md')
DOCS = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.glob('docs/**/*.md')
)
PAGES = (*READMES, 'CONTRIBUTING.md', *DOCS)
COMMENT = re.compile(r'[ \t]*(?<!\S)# .*')
NUMBER = re.compile(r'(?<!\w)-?\d[\d,.]*')
every_page = pytest.mark.parametrize('page', PAGES)


def blocks(page):
    text = (ROOT / page).read_text(encoding='utf-8')
    return MarkdownIt().enable('table').parse(text)


def code(page, language):
    return [
        block.content
        for block in blocks(page)
        if block.type == 'fence' and block.info == language
    ]


def links(page):
    return [
        part.attrs.get('href') or part.attrs.get('src')
        for block in blocks(page)
        for part in block.children or ()
        if part.type in ('link_open', 'image')
    ]


def cells(page):
    in_cell = 4  # the level below table, its body, a row, a cell
    return [
        block
        for block in blocks(page)
        if block.type == 'inline' and block.level == in_cell
    ]


def commands(page):
    """The command lines of a page, split into words."""
    for block in code(page, 'bash'):
        for line in block.replace('\\\n', ' ').splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def flags_of(tool):
    """The options of a tool, but for those of its shell script."""
    command = re.sub('^(dist|slurm|sbatch)_', '', Path(tool).stem)
    actions = module_of(command).make_parser()._actions
    flags = {flag for action in actions for flag in action.option_strings}
    return flags - {'-h', '--help', '--local_rank'}


@every_page
def test_links_lead_somewhere(page):
    files = [
        (link, (ROOT / page).parent / link.partition('#')[0])
        for link in links(page)
        if not link.startswith(('http', '#'))
    ]
    made = re.compile(r'modules/\w+\.md$')  # by docs/hooks.py
    assert not [
        link
        for link, path in files
        if not path.exists() and not made.search(link)
    ]


@every_page
def test_files_and_modules_that_are_named_exist(page):
    text = (ROOT / page).read_text(encoding='utf-8')
    paths = re.findall(r'\b(?:configs|tools|requirements)/[\w./-]+\w', text)
    # name.py stands for a file that a reader will write.
    paths = {path for path in paths if not re.search(r'\bname|_name', path)}
    assert not [path for path in paths if not (ROOT / path).exists()]
    named = set(re.findall(r"'mmdet_attn\.(\w+)'", text))
    assert not [name for name in named if not hasattr(mmdet_attn, name)]


@every_page
def test_commands_have_their_options(page):
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for words in commands(page):
        if words[0] == 'make':
            targets = [w for w in words[1:] if '=' not in w]
            assert all(f'\n{name}:' in makefile for name in targets), words
        tool = next((w for w in words if w.startswith('tools/')), None)
        if tool in (None, 'tools/setup_env.py'):
            continue
        known = flags_of(tool)
        flags = {w for w in words if w.startswith('--')}
        assert flags <= known, (tool, flags - known)


def test_every_option_is_in_the_manual():
    text = (ROOT / 'docs' / 'tools.md').read_text(encoding='utf-8')
    named = set(re.findall(r'--[a-z][a-z0-9-]*', text))
    known = set()
    for tool in (ROOT / 'tools').rglob('*.py'):
        name = tool.relative_to(ROOT).as_posix()
        if (ROOT / 'mmdet_attn' / 'commands' / tool.name).exists():
            assert name in text or tool.stem == 'demo', name
            known |= flags_of(name) if tool.stem != 'demo' else set()
    assert known - named <= {'--local-rank'}
    others = {'--dry-run', '--help', '--nproc', '--gres', '--signal'}
    assert not named - known - others


@every_page
def test_python_code_parses(page):
    for block in code(page, 'python'):
        ast.parse(block)


def run(block):
    names = {}
    exec(block, names)
    return names


def test_config_of_the_readme_builds():
    stock, wrapped = code('README.md', 'python')
    (plugin,) = run(stock)['model']['backbone']['plugins']
    x = torch.randn(1, 16, 5, 5)
    module = MODELS.build(dict(plugin['cfg'], in_channels=16))
    assert torch.equal(module(x), x)
    base = load_config_file(ROOT / 'configs/yolox_s.py')
    names: dict = {'_base_': base}
    exec(wrapped, names)
    cfg = names['model']['backbone']
    assert cfg.pop('_delete_')
    init_default_scope('mmdet')
    assert len(MODELS.build(cfg).insertions.plugins) == 3


def test_code_of_the_manual_runs():
    found = {
        word: block
        for block in code('docs/insert.md', 'python')
        for word in ('from torch import nn', 'AttentionResNet')
        if word in block
    }
    model = run(found['from torch import nn'])['model']
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 10)
    from mmdet.registry import MODELS as DETECTION

    backbone = DETECTION.build(run(found['AttentionResNet'])['backbone'])
    names = [name for name, _ in backbone.named_modules()]
    assert 'layer4.1.cbam' in names
    assert 'layer4.0.cbam' not in names


def test_readmes_have_the_same_parts():
    one, other = (
        [(b.type, b.tag, b.info) for b in blocks(r)] for r in READMES
    )
    assert one == other
    one, other = ([x for x in links(r) if 'README' not in x] for r in READMES)
    assert one == other


def test_readmes_have_the_same_code():
    one, other = (
        [
            COMMENT.sub('', block.content)
            for block in blocks(readme)
            if block.type == 'fence'
        ]
        for readme in READMES
    )
    assert one == other


def test_readmes_have_the_same_figures_in_tables():
    pairs = list(zip(*map(cells, READMES), strict=True))
    assert len(pairs) > 200
    for english, chinese in pairs:
        text = chinese.content.replace('、', ', ')
        assert NUMBER.findall(english.content) == NUMBER.findall(text)
    # Else the fast of one could be the medium of the other.
    words = {'fast': '快', 'medium': '中', 'slow': '慢'}
    for english, chinese in pairs:
        if english.content in words:
            assert chinese.content == words[english.content]
