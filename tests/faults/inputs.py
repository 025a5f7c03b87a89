"""Give the commands broken annotations, images and configs."""

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from files import within
from jobs import run_all
from lab import Lab, Try, refused

SPLITS = ('train', 'val')
# Mistakes that change no training and no result.
HARMLESS = {'annotation id 0', 'one zero-size box', 'ignore in train'}


def good_or_refused(found: Try, ended, *names) -> Try:
    """Judge a command that may find nothing wrong with its input."""
    return found if ended.code == 0 else refused(found, ended, *names)


def annotations(lab: Lab) -> Iterator[Try]:
    """Broken annotation files: the check in this process, and train.py."""
    from broken import ANNOTATIONS, FIELDS

    from mmdet_attn.datasets.coco_check import check_annotations
    from mmdet_attn.errors import InputError

    rng = lab.random('annotations')
    good = lab.data / 'annotations/instances_train.json'
    content = json.loads(good.read_text())
    fields = FIELDS
    if lab.short:
        fields = {name: FIELDS[name] for name in rng.sample([*FIELDS], 40)}
    file = lab.new('fields') / good.name
    file.parent.mkdir()
    for name, change in fields.items():
        file.write_text(json.dumps(change(deepcopy(content))))
        found = Try(name)
        try:
            with within(30):
                check_annotations(file)
        except InputError as error:
            if str(file) not in str(error):
                found.fail('unnamed', str(error))
        except TimeoutError as error:
            found.fail('hung', str(error))
        except Exception as error:
            found.fail('unnamed', f'{type(error).__name__}: {error}')
        yield found

    def commands():
        kinds = [*ANNOTATIONS]
        for name in rng.sample(kinds, 5) if lab.short else kinds:
            data = Path(shutil.copytree(lab.data, lab.new('broken')))
            split = rng.choice(SPLITS)
            file = data / f'annotations/instances_{split}.json'
            changed = ANNOTATIONS[name](json.loads(file.read_text()))
            file.write_text(json.dumps(changed))
            masks = 'polygon' in name or 'run lengths' in name
            command = (
                *('tools/train.py', lab.masks if masks else lab.config),
                *('--data-root', data),
                *('--work-dir', lab.new('work'), '--cfg-options'),
                *('train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
            )
            yield (Try(f'{name} in {split}'), data, file), command

    for (found, data, file), ended in run_all(lab.new('logs'), commands()):
        kind = found.name.rpartition(' in ')[0]
        harmless = HARMLESS & {kind, found.name}
        judge = good_or_refused if harmless else refused
        yield judge(found, ended, file)
        shutil.rmtree(data)


def images(lab: Lab) -> Iterator[Try]:
    """Broken images: train.py, with and without them, and predict.py."""
    from broken import images as kinds

    bad = kinds('.png', (96, 96))
    readable = {'another size', 'turned by EXIF', 'very long', 'one pixel'}

    def commands():
        for number, (name, content) in enumerate(bad.items()):
            if lab.short and number % 4:
                continue
            data = Path(shutil.copytree(lab.data, lab.new('broken')))
            file = data / 'train/000003.png'
            if name == 'missing':
                file.unlink()
            else:
                file.write_bytes(content)
            train = (
                *('tools/train.py', lab.config, '--data-root', data),
                *('--work-dir', lab.new('work')),
            )
            once = ('train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
            once = ('--cfg-options', *once)
            predict = (
                *('tools/predict.py', lab.config, lab.checkpoint),
                *(data / 'train', '--out-dir', data / 'predicted'),
                *('--device', 'cpu'),
            )
            for tool, command in {
                'train.py': (*train, *once),
                '--skip-bad-images': (*train, '--skip-bad-images', *once),
                'predict.py': predict,
            }.items():
                if name != 'missing' or tool != 'predict.py':
                    found = Try(f'{name}, {tool}')
                    yield (found, name, tool, data), command

    bad = {'missing': b'', **bad}
    for (found, name, tool, data), ended in run_all(
        lab.new('logs'), commands()
    ):
        if tool == 'train.py':
            judge = good_or_refused if name in readable else refused
            yield judge(found, ended, '000003.png')
        elif tool == '--skip-bad-images':
            if ended.code is None:
                found.fail('hung', ended.output)
            elif ended.code:
                found.fail('lost', f'the good ones, too: {ended.output}')
            yield found
        else:
            done = len([*data.glob('predicted/preds/*.json')])
            # Of a very long image nothing is left at the size of a network.
            broken = name not in readable - {'very long'}
            if ended.code is None:
                found.fail('hung', ended.output)
            elif 'Traceback' in ended.output or (
                broken and '000003' not in ended.output
            ):
                found.fail('unnamed', ended.output)
            elif done != 12 - broken or ended.code != broken:
                found.fail(
                    'lost', f'{done} done, {ended.code}: {ended.output}'
                )
            yield found


def configs(lab: Lab) -> Iterator[Try]:
    """Broken configs: one line that names what is wrong."""
    from test_broken_configs import FILES, OPTIONS

    def commands():
        cases = [(*case, lab.config) for case in OPTIONS.items()]
        folder = lab.new('configs')
        folder.mkdir()
        for name, (text, word) in FILES.items():
            # The name that a config of them has in its own text.
            file = folder / name.replace(' ', '_') / 'broken.py'
            file.parent.mkdir()
            file.write_text(text)
            cases.append((name, (None, word), file))
        if lab.short:
            cases = lab.random('configs').sample(cases, 8)
        for name, (option, word), config in cases:
            more = () if option is None else ('--cfg-options', option)
            _, *options = lab.arguments(lab.new('work'))
            command = ('tools/train.py', config, *options, *more)
            yield (Try(name), word), command

    for (found, word), ended in run_all(lab.new('logs'), commands()):
        import re

        refused(found, ended, '')
        if not re.search(word, ended.output.strip().rpartition('\n')[2]):
            found.fail('unnamed', f'{word}: {ended.output}')
        yield found
