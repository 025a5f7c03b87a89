"""Results: runs paired by seed, intervals, the paper, and the reports."""

import csv
import json
import re

import numpy as np
import pytest
from conftest import DEMO, load_config, run_here

from mmdet_attn.errors import InputError
from mmdet_attn.study import paper, plots, report
from mmdet_attn.study.facts import plain
from mmdet_attn.study.matches import Matches, ap, write_matches
from mmdet_attn.study.paper import paper_gain
from mmdet_attn.study.results import compare, read_runs
from mmdet_attn.study.statistics import Difference, over_seeds
from mmdet_attn.study.table import Run, attention_of, base_of

TOOL = 'tools/analysis_tools/compare_results.py'
SHAPES = DEMO.removeprefix('configs/').removesuffix('.py')
ROWS = [*paper.TABLE_5, *paper.FROM_GCNET]


def facts_of(config, seed=0, box=0.4, mask=None, epoch=12, **changes):
    """The facts of a training of 12 epochs, without training.

    `changes` are options of the config, with __ for a dot, or facts.
    """
    cfg = load_config(config)
    own = {k: changes.pop(k) for k in ('weights', 'processes') if k in changes}
    cfg.merge_from_dict({k.replace('__', '.'): v for k, v in changes.items()})
    model = plain(cfg.model.to_dict())
    attention = attention_of(model)

    def evaluation(at):
        found = {'epoch': at}
        for kind, value in (('bbox', box), ('segm', mask)):
            if value is not None:
                values = {'AP': value * at / 12, 'AP50': value, 'APl': None}
                found[kind] = {'all': values, 'classes': {}}
        return found

    return {
        'schema': 1,
        'name': config,
        'finished': epoch == 12,
        'config': {**plain(cfg.to_dict()), 'model': model},
        'schedule': {'epochs': 12, 'iterations_per_epoch': 14659, 'lr': []},
        'weights': {'init': 'torchvision://resnet50', 'load_from': None},
        'annotations': None,
        'matches': None,
        'plugins': []
        if attention == 'none'
        else [{'name': 'x', 'type': attention, 'start': 'identity'}] * 3,
        'parameters': 1_500_000,
        'seed': seed,
        'processes': 4,
        'lr_scale': 1.0,
        'versions': {'torch': '2.6'},
        'device': 'a CPU',
        'starts': [],
        'seconds': 360.0,
        'memory_mb': 900.0,
        'loss': [[e, 1 / e + (seed or 0)] for e in range(1, epoch + 1)],
        'evaluations': [evaluation(at) for at in (6, 12) if at <= epoch],
        **own,
    }


def run(config, seed=0, box=0.4, name='', **changes):
    name = name or f'{config.split("/")[-1]}_{seed}'
    return Run(name, name, facts_of(config, seed, box, **changes))


def write(folder, one):
    """A work directory of a run."""
    work = folder / one.name
    work.mkdir(parents=True)
    (work / 'facts.json').write_text(json.dumps(one.facts))
    return work


def only(results, attention='ECA'):
    """The one configuration with this attention."""
    (found,) = (
        one
        for one in results['configurations']
        if one['attention'] == attention
    )
    return found


def trial(weights=None):
    """Four short trainings: plain and ECA, seeds 0 and 1."""
    ap = {
        'faster_rcnn_r50': (0.601, 0.579),
        'faster_rcnn_r50_eca': (0.6, 0.65),
    }
    return [
        run(config, seed, box, **(weights or {}))
        for config, boxes in ap.items()
        for seed, box in enumerate(boxes)
    ]


# --- Differences and intervals


def test_runs_are_paired_by_seed():
    """Seed 1 with seed 1, whatever the order; an interval from the formula."""
    for runs in (trial(), trial()[::-1]):
        found = only(compare(runs))
        assert found['pairs'] == [0, 1]
        one = found['differences']['AP']
        assert one['each'] == pytest.approx([-0.1, 7.1])
        # Two differences: sd 7.2 / sqrt(2); t of one degree of freedom at
        # 0.975 is 12.706.
        assert one['mean'] == pytest.approx(3.5)
        half = 12.706 * 7.2 / 2
        assert one['low'] == pytest.approx(3.5 - half, abs=1e-3)
        assert one['high'] == pytest.approx(3.5 + half, abs=1e-3)
        assert one['verdict'] == 'no difference seen: -42.2 to +49.2'
        assert one['method'] == 't interval over 2 seeds, paired by seed'
        base = only(compare(runs), 'none')
        assert base['ap']['AP'] == pytest.approx(
            {'mean': 59.0, 'sd': 2.2 / 2**0.5, 'seeds': 2}
        )


def test_interval_of_three_seeds():
    values, base = [38.1, 39.0, 38.4], [37.0, 37.4, 37.6]
    found = over_seeds(values, base)
    # Differences 1.1, 1.6, 0.8: mean 7/6, variance 0.49/3; t(0.975, 2) is
    # 4.30265.
    half = 4.30265 * (0.49 / 3 / 3) ** 0.5
    assert found.mean == pytest.approx(3.5 / 3)
    assert found.low == pytest.approx(3.5 / 3 - half, abs=1e-4)
    assert found.high == pytest.approx(3.5 / 3 + half, abs=1e-4)
    assert found.verdict == 'better by 1.2 (0.2 to 2.2)'
    assert over_seeds([1, 2], [1, 2])[:3] == (0, 0, 0)


@pytest.mark.parametrize(
    ('found', 'verdict'),
    [
        ((0.35, -0.4, 1.1, 3), 'no difference seen: -0.4 to +1.1'),
        ((1.4, 0.3, 2.5, 3), 'better by 1.4 (0.3 to 2.5)'),
        ((-1.4, -2.5, -0.3, 3), 'worse by 1.4 (0.3 to 2.5)'),
        ((0.0, 0.0, 0.0, 3), 'no difference seen: +0.0 to +0.0'),
        ((1.4, None, None, 1), '+1.4: one seed, no interval'),
        (
            (1.4, 0.3, 2.5, 1, 50),
            'one seed, bootstrap over 50 images: better by 1.4 (0.3 to 2.5)',
        ),
    ],
)
def test_verdicts(found, verdict):
    assert Difference(*found).verdict == verdict


def matches(seed, right):
    """Detections of one class in 30 images, this part of them right."""
    random = np.random.default_rng(seed)
    found = random.random((10, 60)) < right
    return Matches(
        images=np.arange(30),
        objects=np.full((30, 1), 2, np.int32),
        category=np.zeros(60, np.int16),
        image=random.permutation(np.repeat(np.arange(30), 2)).astype(np.int32),
        right=found,
        wrong=~found,
    )


def test_one_seed_has_an_interval_over_images(tmp_path):
    both = matches(1, 0.5), matches(2, 0.8)
    runs = [
        run(c, 0, ap(m)) for c, m in zip(trial_configs(), both, strict=True)
    ]
    folders = [write(tmp_path, one) for one in runs]
    found = only(compare(read_runs(folders)))['differences']['AP']
    assert found['low'] is None
    assert found['verdict'].endswith(': one seed, no interval')
    for folder, one, its in zip(folders, runs, both, strict=True):
        digest = write_matches(folder, {'bbox': its})
        facts = {**one.facts, 'matches': digest}
        (folder / 'facts.json').write_text(json.dumps(facts))
    found = only(compare(read_runs(folders)))['differences']
    assert found['AP50']['low'] is None
    found = found['AP']
    # Directly: the same images for both, in the batches of 50 of matches.py.
    random = np.random.default_rng(0)
    drawn = [random.integers(0, 30, (50, 30)) for _ in range(20)]
    weights = [np.bincount(d, minlength=30) for d in np.concatenate(drawn)]
    direct = [100 * (ap(both[1], w) - ap(both[0], w)) for w in weights]
    ends = np.percentile(direct, [2.5, 97.5])
    assert (found['low'], found['high']) == pytest.approx(tuple(ends))
    assert found['mean'] == pytest.approx(100 * (ap(both[1]) - ap(both[0])))
    assert found['method'] == 'one seed, bootstrap over 30 images'
    assert found['low'] < found['mean'] < found['high']


def trial_configs():
    return 'faster_rcnn_r50', 'faster_rcnn_r50_eca'


# --- Which run is compared with which


def test_missing_seeds_are_errors():
    plain, eca = trial()[:2], trial()[2:]
    with pytest.raises(InputError, match=r'r50_eca_1: .*seed 1, only with 0'):
        compare([plain[0], *eca])
    # One run of each, with different seeds: never a pair.
    with pytest.raises(InputError, match=r'r50_eca_1: .*seed 1, only with 0'):
        compare([plain[0], eca[1]])
    found = only(compare([*plain, eca[1]]))
    assert found['pairs'] == [1]
    assert any('only the baseline has the seed 0' in n for n in found['notes'])


def test_the_same_training_twice_is_an_error():
    again = run('faster_rcnn_r50_eca', 1, name='again')
    with pytest.raises(InputError, match=r'_eca_1 and again .* the seed 1'):
        compare([*trial(), again])
    # Another learning rate is another configuration.
    other = run(
        *('faster_rcnn_r50_eca', 1, 0.5, 'other'),
        optim_wrapper__optimizer__lr=0.5,
    )
    results = compare([*trial(), other])
    found = only(results, 'ECA (other)')
    assert found['pairs'] == [1]
    key = 'optim_wrapper.optimizer.lr'
    assert [tuple(d) for d in found['settings']] == [(key, 0.5, 0.01)]
    assert only(results, f'ECA ({trial()[2].name})')['settings'] == []
    assert f'{key}: 0.5; the baseline: 0.01' in report.markdown(results)


def test_starting_weights_are_named():
    """Both from a checkpoint with attention, or one of them only."""
    eca = {'weights': {'init': None, 'load_from': 'eca/epoch_12.pth'}}
    text = report.markdown(compare(trial(eca)))
    assert text.count('starting weights: eca/epoch_12.pth') == 2
    assert 'known to 0.1' not in text
    runs = [*trial()[:2], *trial(eca)[2:]]
    found = only(compare(runs))['settings']
    assert ('weights.load_from', 'eca/epoch_12.pth', None) in map(tuple, found)


def test_a_run_of_unknown_seed_is_not_compared():
    runs = [run(name, None) for name in trial_configs()]
    found = only(compare(runs))
    assert found['differences'] == {}
    assert any('seed is unknown' in note for note in found['notes'])


def test_closest_baseline():
    slow = [
        run('faster_rcnn_r50', s, 0.3, f'slow_{s}', processes=1)
        for s in (0, 1)
    ]
    found = only(compare([*slow, *trial()]))
    assert found['baseline'].endswith(f'({trial()[0].name})')
    assert found['settings'] == []
    found = only(compare([*slow, *trial()[2:]]))
    assert [tuple(d) for d in found['settings']] == [('processes', 4, 1)]


@pytest.mark.parametrize(
    'other',
    [
        ('retinanet_r50', {}),
        ('faster_rcnn_r101', {}),
        (
            'faster_rcnn_r50',
            {'val_dataloader__dataset__ann_file': 'annotations/x.json'},
        ),
    ],
)
def test_no_baseline(other):
    name, changes = other
    runs = [run(name, s, **changes) for s in (0, 1)]
    found = only(compare([*runs, *trial()[2:]]))
    assert found['baseline'] is None
    assert 'no baseline' in found['lacking']


def test_unfinished_runs_are_shown_and_not_compared():
    runs = trial()
    runs[2] = run('faster_rcnn_r50_eca', 0, 0.6, epoch=7)
    results = compare(runs)
    found = only(results)
    assert (found['pairs'], found['seeds']) == ([1], [1])
    note = f'{runs[2].name} is not finished (epoch 6 of 12) and not compared'
    assert note in found['notes']
    text = report.markdown(results)
    assert '| 6 of 12 | 30.0 |' in text
    runs[1] = run('faster_rcnn_r50', 1, 0.6, epoch=3)
    found = only(compare(runs))
    assert found['differences'] == {}
    assert f'{runs[1].name}, its baseline, is not finished' in found['notes']
    assert compare(runs)['runs'][1]['epoch'] == 3


def test_a_resume_with_other_settings_is_told():
    runs = trial()
    runs[2].facts['starts'] = [{}, {'changed': [['processes', 2, 4]]}]
    notes = only(compare(runs))['notes']
    assert f'{runs[2].name} was resumed with processes: 4, before: 2' in notes


# --- What a config holds


@pytest.mark.parametrize(
    ('name', 'base', 'attention'),
    [
        ('mask_rcnn_r18_eca', 'MaskRCNN ResNet-18', 'ECA'),
        ('faster_rcnn_r50_psaconv2d', 'FasterRCNN ResNet-50', 'PSAConv2d'),
        ('retinanet_mobilenetv2_eca', 'RetinaNet MobileNetV2', 'ECA'),
        ('yolox_s', 'YOLOX CSPDarknet', 'none'),
        ('yolox_s_eca', 'YOLOX CSPDarknet', 'ECA'),
        ('yolox_s_cbam_backbone', 'YOLOX CSPDarknet', 'CBAM'),
        (SHAPES, 'FasterRCNN ResNet-50', 'ECA'),
    ],
)
def test_labels(name, base, attention):
    model = plain(load_config(name).model.to_dict())
    assert (base_of(model), attention_of(model)) == (base, attention)


# --- The paper


def test_gains_of_the_paper():
    """As its text has them, except where that contradicts its table."""
    gains = {
        'faster_rcnn_r50_se': [1.3, None],
        'faster_rcnn_r50_eca': [1.6, None],
        'faster_rcnn_r101_se': [0.9, None],
        'faster_rcnn_r101_eca': [1.6, None],
        'mask_rcnn_r50_se': [1.5, 1.3],
        'mask_rcnn_r50_nonlocal': [0.8, 0.6],
        'mask_rcnn_r50_gc': [2.2, 1.6],
        'mask_rcnn_r50_eca': [1.8, 1.5],
        'mask_rcnn_r101_se': [1.3, 0.9],
        'mask_rcnn_r101_eca': [1.9, 1.5],
        'retinanet_r50_se': [1.5, None],
        'retinanet_r50_eca': [1.7, None],
        'retinanet_r101_se': [1.0, None],
        'retinanet_r101_eca': [1.4, None],
    }
    for row in ROWS:
        found = paper_gain(row)
        wanted = gains.get(row, [None, None])
        assert [found.get('AP'), found.get('mask_AP')] == wanted, row
    names = 'mask_AP', 'mask_AP50', 'mask_AP75', 'mask_APs'
    found = paper_gain('mask_rcnn_r50_gc')
    assert [found.get(name) for name in names] == [1.6, 2.9, 1.4, None]


def test_tables_are_consistent():
    for name, mask in paper.TABLE_6.items():
        box = (paper.TABLE_5 | paper.FROM_GCNET)[name][2:]
        assert mask[0] < min(mask[1:3])
        assert all(a < b for a, b in zip(mask[:3], box[:3], strict=True))
        # Large masks are found best, better than large boxes.
        assert mask[5] is None or mask[5] > max(mask[4], box[5])
        assert mask[3] is None or mask[3] < min(mask[4], box[3])
    assert paper.TABLE_6.keys() == {n for n in ROWS if n.startswith('mask')}


@pytest.mark.parametrize('name', [n for n in ROWS if 'r50' in n or 'eca' in n])
def test_our_configs_are_rows_of_the_paper(name):
    depth = 'resnet101' if 'r101' in name else 'resnet50'
    weights = {'init': f'torchvision://{depth}'}
    (found,) = compare([run(name, weights=weights)])['configurations']
    assert found['paper'] == paper_gain(name)
    assert found['paper_settings'] == []


def test_other_set_ups_than_the_paper():
    own = {'optim_wrapper__optimizer__lr': 0.02, 'processes': 8}
    results = compare([run(name, 0, **own) for name in trial_configs()])
    found = only(results)
    assert found['paper']['AP'] == 1.6
    assert [tuple(d) for d in found['paper_settings']] == [
        ('processes', 8, 4),
        ('optim_wrapper.optimizer.lr', 0.02, 0.01),
    ]
    text = report.markdown(results)
    assert '- processes: 8; the paper: 4' in text
    # Anywhere, with its classes written out, and a part of it.
    (part,) = [
        run(
            trial_configs()[1],
            train_dataloader__dataset__data_root='/data/coco',
            train_dataloader__dataset__metainfo={'classes': ['person', 'car']},
        )
    ]
    part.facts['schedule']['iterations_per_epoch'] = 100
    (found,) = compare([part])['configurations']
    assert [d.key for d in found['paper_settings']] == ['iterations_per_epoch']
    data = {'val_dataloader__dataset__ann_file': 'instances_val.json'}
    results = compare([run(name, 0, **data) for name in trial_configs()])
    assert only(results)['paper'] == {}
    assert 'paper' not in ''.join(report.intro(results))


# --- Reports


def study(folder, done):
    """Write the results of a study of which these runs have begun."""
    plan = [
        {
            'name': f'r50_{attention}_seed{seed}',
            'base': 'r50',
            'attention': attention,
            'seed': seed,
            'parameters': 41_530_000 + 1000 * len(attention),
            'gflops': 207.1 if attention != 'gc' else None,
        }
        for attention in ('none', 'eca', 'gc')
        for seed in (0, 1)
    ]
    table = report.write_results(folder, plan, done)
    cells = [list(column.cells) for column in table.columns]
    return list(zip(*cells, strict=True))


def test_study(tmp_path):
    done = {
        f'r50_{attention}_seed{seed}': facts_of(config, seed, box)
        for attention, config, boxes in (
            ('none', 'faster_rcnn_r50', (0.36, 0.37)),
            ('eca', 'faster_rcnn_r50_eca', (0.38, 0.392)),
        )
        for seed, box in enumerate(boxes)
    }
    assert [row[2:] for row in study(tmp_path, {})] == [
        ('0 of 2', '-', ''),
        *[
            (*('0 of 2', '-'), f'not complete: 0 of 2 runs, and {base}')
            for base in ['0 of 2 of the baseline'] * 2
        ],
    ]
    name = 'r50_gc_seed0'
    done[name] = facts_of('faster_rcnn_r50_gc', 0, 0.4)
    rows = study(tmp_path, done)
    assert rows[1] == (
        *('r50', 'eca', '2 of 2', '38.6 ± 0.8'),
        'better by 2.1 (0.8 to 3.4)',
    )
    assert rows[2][2:] == (
        *('1 of 2', '40.0'),
        'not complete: 1 of 2 runs, and 2 of 2 of the baseline',
    )
    with (tmp_path / 'results.csv').open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6
    eca = {row['run']: row for row in table}['r50_eca_seed1']
    assert (eca['AP'], eca['APl'], eca['seed']) == ('39.2', '', '1')
    assert (eca['parameters'], eca['gflops']) == ('41533000', '207.1')
    assert eca['device'] == 'a CPU'
    found = json.loads((tmp_path / 'results.json').read_text())
    assert found['runs'][0]['AP'] == 36.0
    assert only(found, 'eca')['differences']['AP']['seeds'] == 2
    text = (tmp_path / 'results.md').read_text()
    assert 'r50, eca, box AP: better by 2.1 (0.8 to 3.4)' in text
    assert '5 trainings, 0.50 hours on a CPU' in text
    for picture in re.findall(r'\(<(.*?)>\)', text):
        assert (tmp_path / picture).read_text().startswith('<?xml')
    for rows in re.findall(r'(?:^\|.*\n)+', text, re.M):
        assert len({row.count('|') for row in rows.splitlines()}) == 1
    page = (tmp_path / 'page.html').read_text()
    assert page.count('data:image/svg+xml;base64,') == 3
    assert 'http' not in page.replace('http-equiv', '')


def test_runs_on_another_machine_are_told():
    """They stay one configuration, and the report says so."""
    runs = trial()
    runs[3].facts['device'] = 'another CPU'
    found = only(compare(runs))
    assert found['pairs'] == [0, 1]
    names = f'{runs[3].name} and {runs[2].name}'
    assert f'{names} differ: device: another CPU, a CPU' in found['notes']


def test_plots_show_every_seed():
    results = compare(trial())
    (axes,) = plots.differences(results).axes
    dots = [x for x in axes.lines if x.get_label() == 'each seed']
    assert dots[0].get_xdata() == pytest.approx([-0.1, 7.1])
    (marker,) = axes.containers
    assert marker[0].get_xdata() == pytest.approx([3.5])
    assert axes.get_xlim()[0] < -42 < 49 < axes.get_xlim()[1]
    figure = plots.curves(results, trial())
    (legend,) = figure.legends
    assert legend.get_title().get_text() == 'mean; band: least to greatest'
    loss, boxes = figure.axes
    assert [line.get_label() for line in loss.lines] == ['none', 'ECA']
    assert loss.lines[0].get_ydata()[:2] == pytest.approx([1.5, 1.0])
    assert boxes.lines[1].get_ydata() == pytest.approx([31.25, 62.5])
    low, high = (
        pick(path.vertices[:, 1])
        for path in [boxes.collections[1].get_paths()[0]]
        for pick in (min, max)
    )
    assert (low, high) == pytest.approx((30, 65))
    alone = trial()[:1]
    (legend,) = plots.curves(compare(alone), alone).legends
    assert not legend.get_title().get_text()


def test_columns_without_a_value_are_left_out():
    found = report.tables(compare([run(name) for name in trial_configs()]))
    assert [*found] == ['box AP', 'box AP, difference to the baseline', 'runs']
    assert found['box AP'][0][3:5] == ['AP', 'AP50']  # no APl, no AP75
    assert found['runs'][0][-2:] == ['AP50', 'hours']
    for table in found.values():
        assert {len(row) for row in table} == {len(table[0])}


def test_names_are_text_in_the_page():
    evil = '"><script>alert(1)</script>$\\frac{$'
    runs = [run(name, 0, name=evil + name) for name in trial_configs()]
    # Its name stands behind the attention's where that has two settings.
    runs.append(run(trial_configs()[1], 0, name=evil, processes=1))
    runs[0].facts['device'] = evil
    results = compare(runs)
    drawn = plots.draw(results, runs)
    page = report.page(results, drawn, evil)
    assert '<script' not in page
    assert page.count('&lt;script&gt;') >= 9


def test_tool(tmp_path):
    folders = [write(tmp_path, one) for one in trial()]
    files = [tmp_path / f'x.{end}' for end in ('md', 'json', 'csv', 'html')]
    flags = ['--markdown', '--json', '--csv', '--page']
    options = np.ravel([*zip(flags, files, strict=True)]).tolist()
    options += ['--plot', tmp_path / 'x.png']
    code, output = run_here(TOOL, *folders, *options)
    assert code == 0, output
    assert 'no difference seen: -42.2 to +49.2' in output
    assert all(file.stat().st_size for file in files)
    assert '(<x.png>)' in files[0].read_text()
    assert (tmp_path / 'x.png').read_bytes().startswith(b'\x89PNG')


def test_same_names(tmp_path):
    """Folders of one name are told apart by where they are."""
    folders = [
        write(tmp_path / str(seed), run('faster_rcnn_r50', seed, name='run'))
        for seed in (0, 1)
    ]
    assert [r.name for r in read_runs(folders)] == list(map(str, folders))
    with pytest.raises(InputError, match='2 times'):
        read_runs([folders[0], folders[0] / '..' / 'run'])


def test_refused_output(tmp_path):
    """Before any folder is looked at."""
    for option in (
        '--json no/x.json',
        '--markdown x.html',
        '--plot x.gif',
        '--csv x.txt',
        '--page x.md',
    ):
        code, output = run_here(TOOL, tmp_path / 'missing', *option.split())
        assert code == 2
        assert all(word in output for word in option.split())


@pytest.mark.slow
def test_true_training(trained):
    """What a training wrote about itself, in the table."""
    results = compare(read_runs([trained.work]))
    (row,) = results['runs']
    assert row['base'] == 'FasterRCNN ResNet-50'
    assert (row['attention'], row['seed'], row['finished']) == ('ECA', 0, True)
    assert (row['epoch'], row['epochs'], row['processes']) == (2, 2, 2)
    assert row['AP'] > 0
    assert row['seconds'] > 0
