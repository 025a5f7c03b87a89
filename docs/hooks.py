"""What mkdocs does beyond Markdown: formulas, module pages, tables, errors.

Everything is read from the source, nothing is imported from the package, and
nothing in a page needs the network.
"""

import re
import sys
from html import unescape
from pathlib import Path
from posixpath import normpath

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))

import errors
import tables

ROOT = tables.ROOT
# Links from the manual to files of the repository, which a reader of the
# manual need not have.
LINK = re.compile(
    r'\]\(((?:\.\./)+(?:[\w./-]+\.(?:py|txt|sh|cff|toml)|Dockerfile))\)'
)
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\([([])(.*?)\\[)\]]</\1>', re.S
)
# Sections of a docstring that Google's style does not name.
SECTION = re.compile(
    r'<details class="[\w ]+"[^>]*>\s*<summary>(.*?)</summary>(.*?)</details>',
    re.S,
)
AP_COLUMNS = ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl']
# Of suffixes that Pygments does not know.
LANGUAGES = {'cff': 'yaml', 'txt': 'text', 'Dockerfile': 'docker'}
PICTURE = re.compile(r'<img alt="([^"]*)" src="([^"]*\.svg)"\s*/?>')


def on_config(config):
    """Put the pages of the modules into the menu."""
    errors.sites.cache_clear()
    pages = [{module.name: module.page} for module in tables.modules()]
    for entry in config.nav:
        if 'Modules' in entry:
            entry['Modules'] = ['modules/index.md', *pages]
    return config


def on_files(files, config):
    """Add the pages that are generated."""
    for module in tables.modules():
        page = File.generated(config, module.page, content=_page(module))
        files.append(page)
    for path in _linked(config):
        text = (ROOT / path).read_text(encoding='utf-8')
        suffix = path.rpartition('.')[2]
        language = LANGUAGES.get(suffix, suffix)
        content = (
            '---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n'
            f'# `{path}`\n\n````{language}\n{text}\n````\n'
        )
        files.append(
            File.generated(config, f'files/{path}.md', content=content)
        )
    return files


def _linked(config) -> list[str]:
    """The files of the repository that the manual links to."""
    found = {
        path for m in tables.modules() for path in (m.source, m.config, m.base)
    }
    found |= {f'configs/{name}.py' for name in tables.paper_rows()}
    found |= {host.config for host in tables.hosts()}
    docs = Path(config.docs_dir)
    for file in docs.rglob('*.md'):
        for link in LINK.findall(file.read_text(encoding='utf-8')):
            path = (file.parent / link).resolve()
            if not path.is_file():
                raise PluginError(f'{file}: there is no {link}')
            found.add(path.relative_to(ROOT).as_posix())
    return sorted(found)


def _page(module: tables.Module) -> str:
    added = tables.added(module) or 'not counted'
    up = '../../'
    base = (ROOT / module.base).read_text(encoding='utf-8')
    return f"""\
# {module.name}

| | |
|---|---|
| paper | <{module.paper}> |
| parameters added to ResNet-50 | {added} |
| speed | {module.speed} ([what that means](../cost.md#speed-classes)) |
| config | [`{module.config}`]({up}{module.config}) |
| source | [`{module.source}`]({up}{module.source}) |

::: {module.source[:-3].replace('/', '.')}.{module.name}

## Config

[`{module.base}`]({up}{module.base}), which the config above takes in:

```python
{base.strip()}
```
"""


def on_page_markdown(markdown, page, **_):
    """Fill in tables and errors; lead links into the repository to a copy."""
    up = '../' * page.file.src_uri.count('/') + '../'
    counts, masks = ['#Param M', 'GFLOPs'], tables.paper_tables()['TABLE_6']
    for name, text in {
        'modules': _overview(),
        'hosts': tables.hosts_table(up),
        'counts': tables.counts_table('eager'),
        'compiled': tables.counts_table('compiled'),
        'paper': tables.paper(
            ['config', *counts, *AP_COLUMNS], tables.paper_rows(), up
        ),
        'masks': tables.paper(['config', *AP_COLUMNS], masks, up, counts=0),
    }.items():
        markdown = markdown.replace(f'<!-- {name} -->', text)
    if page.file.src_uri == 'troubleshooting.md':
        markdown = errors.BLOCK.sub(_messages, markdown)
    folder = page.file.src_uri.rpartition('/')[0]

    def lead(found):
        # From where the page would be in docs/, as on a code host.
        path = normpath(f'docs/{folder}/{found[1]}')
        return f']({"../" * page.file.src_uri.count("/")}files/{path}.md)'

    return LINK.sub(lead, markdown)


def _overview() -> str:
    head = ['module', 'name and formula', 'added to R50', 'speed']
    rows = [
        [
            f'[`{m.name}`]({m.page.removeprefix("modules/")})',
            f'{m.title}: {tables.escape(m.formula)}',
            tables.added(m),
            m.speed,
        ]
        for m in tables.modules()
    ]
    return tables.table(head, rows)


def _messages(block) -> str:
    text = errors.shown(block[1], errors.sites())
    return f'``` {{ .text .error }}\n{text}\n```'


def on_page_content(html, config, **_):
    """Turn formulas into MathML, and put drawings into the page itself."""
    html = FORMULA.sub(_formula, html)
    html = SECTION.sub(
        r'<p><span class="doc-section-title">\1:</span></p>\2', html
    )

    def drawing(found):
        # Its own colours follow the system, those of a page its switch.
        file = next(Path(config.docs_dir).rglob(Path(found[2]).name))
        svg = re.sub(r'<style>.*?</style>', '', file.read_text(), flags=re.S)
        return f'<figure class="drawing">{svg}</figure>'

    return PICTURE.sub(drawing, html)


def _formula(found) -> str:
    # latex2mathml knows aligned by another name.
    latex = unescape(found[3]).strip().replace('{aligned}', '{align*}')
    display = 'block' if found[2] == '[' else 'inline'
    mathml = convert(latex, display=display)
    if re.search(r'<mi>(&<|\\)|linebreak=', mathml):
        raise PluginError(f'latex2mathml cannot convert {latex}')
    return (
        f'<div class="formula">{mathml}</div>' if found[1] == 'div' else mathml
    )
