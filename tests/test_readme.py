"""The Chinese README says what the English one says.

Compared is what a translation keeps: structure, commands, links, figures in
their order, names. Words are free; only a table keeps to one word for one.
"""

import re
from collections import Counter

from conftest import ROOT
from markdown_it import MarkdownIt

SWITCH = {
    'README.md': 'English | [简体中文](README_zh-CN.md)',
    'README_zh-CN.md': '[English](README.md) | 简体中文',
}
COMMENT = re.compile(r'[ \t]*(?<!\S)# (.*)')
NUMBER = re.compile(r'(?:(?<!\w)[-+])?\d+(?:[.,]\d+)*')
# Signs of formulas, addresses, and names: AP, GFLOPs, NODE_RANK, mmdet_attn.
NAME = re.compile(
    r'(?a)[\u0370-\u03ff²ᵀ·]|https?://[\w./-]+|[A-Za-z]+[A-Z_]\w*?(?=s?\b)'
)


def blocks(file):
    text = (ROOT / file).read_text(encoding='utf-8')
    assert SWITCH[file] in text.splitlines()
    text = text.replace(SWITCH[file], '', 1)
    return MarkdownIt().enable('table').parse(text)


def pairs(kind):
    both = ([b for b in blocks(f) if b.type == kind] for f in SWITCH)
    return zip(*both, strict=True)


def facts(text):
    return NUMBER.findall(text), Counter(NAME.findall(text))


def marks(block):
    """Code spans, emphasis, links and pictures, in order."""
    return [
        # The content of a picture is its alternative text.
        (part.type, part.attrs, part.type != 'image' and part.content)
        for part in block.children
        if part.type not in ('text', 'softbreak')
    ]


def test_same_headings_lists_and_tables():
    one, other = ([(b.type, b.tag, b.info) for b in blocks(f)] for f in SWITCH)
    assert one == other


def test_same_facts():
    for english, chinese in pairs('inline'):
        assert marks(english) == marks(chinese)
        text = chinese.content.replace('、', ', ')
        assert facts(english.content) == facts(text)
        assert re.search(r'[\u3400-\u9fff]', text) or english.content == text


def test_same_code():
    """But for its comments, which have the same figures and names."""
    for english, chinese in pairs('fence'):
        texts = english.content, chinese.content
        assert COMMENT.sub('', texts[0]) == COMMENT.sub('', texts[1])
        for comments in zip(*map(COMMENT.findall, texts), strict=True):
            assert facts(comments[0]) == facts(comments[1])


def test_tables_keep_to_one_word_for_one():
    """Else the fast of one could be the medium of the other."""
    in_cell = 4  # the level below table, its body, a row, a cell
    texts = [p for p in pairs('inline') if p[0].level == in_cell]
    cells = {(english.content, chinese.content) for english, chinese in texts}
    for column in zip(*cells, strict=True):
        assert max(Counter(column).values()) == 1, Counter(column)
