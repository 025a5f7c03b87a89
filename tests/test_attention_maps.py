"""Attention maps: heat maps, figures, the page, and the tool as a whole."""

import base64
import io
import json
import re
from collections import defaultdict
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT, run_here
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from torch import nn

from mmdet_attn import GC, SE, Gate, PSAConv2d
from mmdet_attn.errors import InputError
from mmdet_attn.inference import load_inferencer
from mmdet_attn.look.activations import Detection, activations
from mmdet_attn.look.gates import record_gates, summarise
from mmdet_attn.look.gauge import Gauge
from mmdet_attn.look.heat_maps import Geometry, enlarge, overlay
from mmdet_attn.look.image_groups import curve_groups, images_by_class
from mmdet_attn.look.page import attention_maps
from mmdet_attn.look.plots import plot_channels, plot_factors
from mmdet_attn.look.views import (
    NOT_RUN,
    REGIONS,
    REPLACES,
    GateView,
    Look,
    gate_views,
    look_at,
    shares_of,
    stage_of,
    summary_of,
)

TOOL = 'tools/analysis_tools/visualize_attention.py'
MEAN = (124, 116, 104)  # of the data preprocessor: features are zero there
SHAPE = (60, 100)
GATES = [
    f'backbone.layer{stage}.1.{gate}'
    for stage in (1, 2)
    for gate in ('cbam.spatial', 'scse')
]


@MODELS.register_module()
class Strength(Gate):
    """A new module: how strong the features of each position are."""

    _abbr_ = 'strength'

    def gate(self, x):
        return x.abs().mean(1, keepdim=True)


def make_detector(folder, plugins):
    """Config and random checkpoint of a very small Mask R-CNN."""
    config = folder / 'detector.py'
    backbone = dict(type='mmdet_attn.AttentionResNet', depth=18)
    backbone['plugins'] = plugins
    config.write_text(
        f"_base_ = '{ROOT}/configs/demo/mask_rcnn_r50_eca_shapes.py'\n"
        f'model = dict(backbone=dict({backbone}), '
        'neck=dict(in_channels=[16, 32, 64, 128]))\n'
    )
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model | {'_scope_': 'mmdet'})
    for name, parameter in model.named_parameters():
        if name.endswith('.alpha'):
            nn.init.constant_(parameter, -0.25)
    meta = dict(dataset_meta=dict(classes=cfg.metainfo.classes))
    checkpoint = folder / 'detector.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return str(config), str(checkpoint)


def plugin(kind, position='after_block', **options):
    cfg = dict(type=kind, **options.pop('cfg', {}))
    return dict(cfg=cfg, position=position, **options)


def paint(file, shape=SHAPE, colour=(230, 20, 220), corner=None):
    image = np.full((*shape, 3), colour, np.uint8)
    if corner:
        image[-16:, -16:] = corner
    Image.fromarray(image).save(file)
    return str(file)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """A detector with every kind of attention, and two images."""
    folder = tmp_path_factory.mktemp('detector')
    options = dict(blocks=(-1,), stages=(True, True, False, False))
    plugins = [
        plugin('mmdet_attn.CBAM', cfg=dict(identity_init=True), **options),
        plugin('mmdet_attn.SCSE', **options),
        plugin('mmdet_attn.GC', stages=(False, False, True, True)),
    ]
    files = make_detector(folder, plugins)
    images = folder / 'images'
    images.mkdir()
    paint(images / 'a<b>.png')
    paint(images / 'tall.jpg', (330, 110))
    return *files, images


@pytest.fixture(scope='module')
def inferencer(detector):
    return load_inferencer(*detector[:2], 'cpu')


def view(name, weights=((0.0, 1.0),), alpha=None, kind='SE'):
    """A gate with a factor for each image and each channel."""
    rows = torch.tensor(weights)[..., None, None]
    return view_of(name, *rows, alpha=alpha, kind=kind)


def view_of(name, *factors, alpha=None, kind='SE', identity=1):
    """A gate with a factor for each image."""
    maps = [summarise(torch.zeros(1, 2, 4, 4), f) for f in factors]
    gauge = Gauge()
    for f in factors:
        gauge.add(
            f.reshape(1, *(1,) * (3 - f.dim()), *f.shape[-3:]) + 1 - identity
        )
    return GateView(name, kind, alpha, 4, maps, gauge, identity)


# --- heat maps ------------------------------------------------------------


def test_geometry_of_pipelines():
    """keep_ratio; one that pads itself; one that leaves nothing behind."""
    meta = dict(ori_shape=(60, 100), img_shape=(115, 192))
    meta |= dict(scale_factor=(1.92, 1.917), batch_input_shape=(128, 192))
    plain = Geometry((60, 100), (115, 192), (128, 192))
    assert Geometry.of(meta) == plain
    padded = meta | dict(img_shape=(192, 192), batch_input_shape=(192, 192))
    assert Geometry.of(padded) == plain._replace(padded=(192, 192))
    # Twice as high and half as wide, then padded to a square.
    uneven = dict(ori_shape=(60, 100), img_shape=(128, 128))
    uneven |= dict(scale_factor=(0.5, 2.0), batch_input_shape=(128, 128))
    assert Geometry.of(uneven).resized == (120, 50)
    bare = dict(ori_shape=(60, 100, 3), img_shape=(60, 100, 3))
    assert Geometry.of(bare) == Geometry(*[(60, 100)] * 3)


def test_padding_shows_nowhere():
    """The last cells before the padding, in an image twice the size."""
    plane = np.zeros((16, 32))
    plane[12:15, 22:25] = 1
    plane[15:] = plane[:, 25:] = -5
    values = enlarge(plane, Geometry((120, 200), (60, 100), (64, 128)))
    assert values.shape == (120, 200)
    assert values[-16:, -16:].min() > 0.9
    assert values.min() == 0
    values[-30:, -30:] = 0
    assert values.max() == 0
    # 57 rows in cells of 4: the last cell is cut, not squeezed.
    plane = np.repeat(np.arange(16.0)[:, None], 32, 1)
    values = enlarge(plane, Geometry((57, 100), (57, 100), (64, 128)))
    centres = (np.arange(57) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(values[:, 50], centres.clip(0), atol=1e-5)


def test_corner_through_the_detector(tmp_path):
    """Resize, padding and strides of a real pipeline, and a new module."""
    places = dict(blocks=(0,), stages=(True, True, False, False))
    plugins = [plugin('Strength', 'after_conv1', **places)]
    config, checkpoint = make_detector(tmp_path, plugins)
    path = paint(tmp_path / 'corner.png', colour=MEAN, corner=(255, 255, 255))
    inferencer = load_inferencer(config, checkpoint, 'cpu')
    gauges = defaultdict(Gauge)
    look, _ = look_at(inferencer, path, gauges)
    assert look.geometry == Geometry((60, 100), (115, 192), (128, 192))
    views, without = gate_views(inferencer.model, [look], gauges)
    assert without == {}
    assert [(v.name, v.stride) for v in views] == [
        ('backbone.layer1.0.strength', 4),
        ('backbone.layer2.0.strength', 8),
    ]
    values = enlarge(views[0].maps[0].plane, look.geometry)
    assert values.shape == SHAPE
    values /= values.max()
    assert values[-16:, -16:].mean() > 0.3
    values[-22:, -22:] = 0
    assert values.max() < 0.5
    assert max(values[:30].max(), values[:, :60].max()) < 0.05
    # One image has no spread, this gate no alpha.
    page = attention_maps(inferencer, [path], tmp_path / 'out').read_text()
    assert '<td>Strength</td>' in page
    for word in ('between images', 'alpha', 'Factors of channels'):
        assert word not in page


def test_overlay():
    """Blue below 1, red above; at 1 the grey image, which shines through."""
    image = np.full((2, 3, 3), 255, np.uint8)
    image[1] = 0
    values = np.array([[0.5, 1, 1.5]] * 2)
    light, dark = overlay(image, values, 0.5).astype(int)
    (blue, grey, red) = light
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert np.ptp(grey) <= 2
    assert (light >= 2 * dark).all()
    # On a wide scale the same factors are pale.
    (blue, grey, red) = overlay(image, values, 10)[0].astype(int)
    assert max(np.ptp(blue), np.ptp(red)) < 20


# --- figures --------------------------------------------------------------


@pytest.fixture
def axes():
    """The axes of the figures that are saved."""
    kept, save = [], Figure.savefig

    def keep(figure, *args, **kwargs):
        kept.append(figure.axes)
        return save(figure, *args, **kwargs)

    with mock.patch.object(Figure, 'savefig', keep):
        yield kept


def curves(plot):
    return {line.get_label(): line.get_ydata() for line in plot.lines}


def test_channel_figure(axes, tmp_path):
    weights = np.random.default_rng(0).random((3, 6))
    views = [view(f'backbone.layer1.{i}.se', weights + i) for i in range(3)]
    groups = {'cat (2)': [0, 2], 'dog (1)': [1]}
    plot_channels(views, groups, (-1, 4), tmp_path / 'a.png')
    for index, plot in enumerate(axes[0]):
        assert plot.get_ylim() == (-1, 4)
        (_, *labels), (identity, *lines) = zip(
            *curves(plot).items(), strict=True
        )
        assert identity == [1, 1]
        assert labels == ['mean over 3 images', 'cat (2)', 'dog (1)']
        groups = weights, weights[[0, 2]], weights[1:2]
        wanted = [group.mean(0) + index for group in groups]
        np.testing.assert_allclose(lines, wanted, rtol=1e-6)
        (band,) = plot.collections
        edge = band.get_paths()[0].vertices[:, 1].max()
        top = weights.mean(0) + weights.std(0) + index
        assert edge == pytest.approx(top.max())
        assert plot.get_title(loc='left') == f'layer1.{index}.se'
    # One image has no spread.
    plot_channels([view('se')], {'x.png': [0]}, (0, 1), tmp_path / 'b.png')
    (plot,) = axes[1]
    assert not plot.collections
    assert list(curves(plot))[1:] == ['x.png']


def test_depth_figure(axes, tmp_path):
    views = [
        view('backbone.layer1.0.se', [[0.5, 1.0], [0.7, 1.4]]),
        view('backbone.layer1.1.se', [[1.0, 1.0], [1.0, 1.0]]),
        view('backbone.layer2.0.eca', [[2.0, 2.0], [3.0, 3.0]]),
    ]
    plot_factors(views, summary_of(views), tmp_path / 'factors.png')
    ((plot,),) = axes
    (means,) = [line for line in plot.lines if line.get_label() == 'mean']
    np.testing.assert_allclose(means.get_ydata(), (0.9, 1, 2.5), rtol=1e-6)
    ranges, channels, images = (
        [segment[:, 1] for segment in lines.get_segments()]
        for lines in plot.collections
    )
    np.testing.assert_allclose(ranges, [(0.5, 1.4), (1, 1), (2, 3)], rtol=1e-6)
    np.testing.assert_allclose(channels[0], (0.6, 1.2), rtol=1e-6)
    np.testing.assert_allclose(images[2], (2, 3), rtol=1e-6)
    assert np.ptp([channels[1], images[1], channels[2]], axis=1).max() == 0
    ticks = [label.get_text() for label in plot.get_xticklabels()]
    assert ticks == ['layer1', 'layer2']
    low, high = plot.get_ylim()
    assert 0.3 < low < 0.5
    assert 3 < high < 3.2


# --- views and groups -----------------------------------------------------


def test_stages():
    for name, stage in (
        ('backbone.layer3.11.cbam.channel', 'backbone.layer3'),
        ('backbone.stage4.1.blocks.0.se', 'backbone.stage4'),
        ('neck.1.levels.0', 'neck'),
        ('eca', 'eca'),
    ):
        assert stage_of(name) == stage


def test_order_and_what_has_no_map():
    parts = {
        'roi_head': nn.ModuleDict({'se': SE(8), 'gc': GC(8)}),
        'backbone': nn.ModuleDict(
            {'gc': GC(8), 'one': SE(8), 'psa': PSAConv2d(32, 64)}
        ),
        'neck': nn.ModuleDict({'se': SE(8), 'rois': SE(8)}),
    }
    network, looks = nn.ModuleDict(parts).eval(), []
    runs = [('neck.se', 1, 8), ('neck.se', 1, 4), ('backbone.gc', 1, 8)]
    runs += [
        ('backbone.one', 1, 8),
        ('neck.rois', 5, 7),
        ('roi_head.se', 1, 7),
    ]
    for _ in range(2):
        with record_gates(network, summarise) as found, torch.no_grad():
            for name, batch, size in runs:
                x = torch.randn(batch, 8, size, size)
                network.get_submodule(name)(x)
        looks.append(Look('x.png', Geometry(*[(32, 32)] * 3), found))
    views, without = gate_views(network, looks, defaultdict(Gauge))
    assert [(v.name, stage_of(v.name), v.stride) for v in views] == [
        ('neck.se-run1', 'neck', 4),
        ('neck.se-run2', 'neck', 8),
        ('backbone.one', 'backbone', 4),
    ]
    assert without == {
        'neck.rois': REGIONS,
        'roi_head.se': REGIONS,
        'roi_head.gc': REGIONS,
        'backbone.gc': NOT_RUN,
        'backbone.psa': REPLACES,
    }


def test_numbers_of_a_view():
    weights = np.array([[0.2, 0.6], [0.4, 1.0]])
    found = view('se', weights, alpha=-0.5)
    np.testing.assert_allclose(found.weights, weights)
    assert (found.low, found.mean, found.high) == pytest.approx((0.2, 0.55, 1))
    assert found.gate == pytest.approx((1.0, 2.6))
    assert view('se').gate is view('se', alpha=0.0).gate is None


@pytest.mark.parametrize('shape', [(2, 1, 1), (1, 4, 5), (6, 4, 5)])
@pytest.mark.parametrize('identity', [0, 1])
def test_parts_add_up(shape, identity):
    """To the mean square of the change, for every kind of map."""
    factors = torch.randn(3, 1, *shape) + 5
    found = view_of('se', *factors, identity=identity)
    change = (factors - identity).numpy()
    assert found.change**2 == pytest.approx((change**2).mean(), rel=1e-4)
    assert found.deviation**2 == pytest.approx(factors.var(correction=0))
    image = factors.var(0, correction=0).mean().item()
    assert found.parts['image'] == pytest.approx(image)
    assert sum(shares_of([found, found]).values()) == pytest.approx(1)


def test_parts_are_told_apart():
    def parts(*rows):
        return shares_of([view('se', rows)])

    assert parts((1.0, 1.0), (1.0, 1.0)) == {}
    constant = parts((1.2, 1.2), (1.2, 1.2))
    assert constant['gain'] == pytest.approx(1)
    channels = parts((0.5, 1.5), (0.5, 1.5))
    assert channels['channel'] == pytest.approx(1)
    images = parts((0.5, 0.5), (1.5, 1.5))
    assert images['image'] == pytest.approx(1)


def test_one_scale_for_all_gates():
    """The greatest deviation from 1 is in the middle of neither range."""
    found = summary_of([view('a', [[0.9, 1.2]]), view('b', [[0.4, 1.1]])])
    assert (found.low, found.high) == pytest.approx((0.4, 1.2))
    assert found.limit == pytest.approx(0.6)
    assert found.varies.name == 'b'
    # What changes little is not stretched over the colours.
    found = summary_of([view('a', [[0.999, 1.001]])])
    assert found.limit == pytest.approx(0.05)
    assert found.axis[0] < 0.95 < 1.05 < found.axis[1]
    assert summary_of([]) is None


def coco(file, names, objects=((1, 7), (2, 7))):
    content = dict(
        images=[dict(id=i, file_name=n) for i, n in enumerate(names, 1)],
        categories=[dict(id=3, name='dog'), dict(id=7, name='eel')],
        annotations=[dict(image_id=i, category_id=c) for i, c in objects],
    )
    file.write_text(json.dumps(content))
    return file


def test_images_by_class(tmp_path):
    objects = [(1, 3), (1, 7), (1, 7), (3, 7)]
    file = coco(tmp_path / 'a.json', ('val/a.png', 'b.png', 'c.png'), objects)
    found = images_by_class(file, ['x/c.png', 'y/a.png', 'b.png'])
    assert list(found.items()) == [('eel', [0, 1]), ('dog', [1])]
    assert curve_groups(['a', 'b', 'c'], found) == {
        'eel (2 images)': [0, 1],
        'dog (1 image)': [1],
    }
    many = {f'class {i}': [i] for i in range(9)}
    assert list(curve_groups(many, many).values()) == [[i] for i in range(8)]
    assert list(curve_groups(['x/a', 'x/b'], None)) == ['a', 'b']
    assert curve_groups(many, None) == {}


@pytest.mark.parametrize(
    ('content', 'images', 'message'),
    [
        ({}, ['z.png', 'a.png'], r'not list 1 of the images, z\.png'),
        ({}, ['b.png'], r'lists b\.png in several folders'),
        (dict(objects=()), ['a.png'], 'no object in these images'),
        ('{', ['a.png'], 'is not a COCO detection file'),
        ('[]', ['a.png'], 'is not a COCO detection file'),
        ('{"images": 3}', ['a.png'], 'is not a COCO detection file'),
        (None, ['a.png'], 'FileNotFoundError'),
    ],
)
def test_bad_annotations(tmp_path, content, images, message):
    file = tmp_path / 'a.json'
    if isinstance(content, str):
        file.write_text(content)
    elif content is not None:
        coco(file, ('a.png', 'x/b.png', 'y/b.png'), **content)
    with pytest.raises(InputError, match=message):
        images_by_class(file, images)


# --- page -----------------------------------------------------------------


def embedded(page):
    """Sizes of the images of a page; all must be in the page itself."""
    sources = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    assert len(sources) == page.count('<img')
    text = re.sub(r'base64,[^"]+', '', page)
    for word in ('http', '<script', '<link', '<iframe', '@import', 'url('):
        assert word not in text
    files = [io.BytesIO(base64.b64decode(source)) for source in sources]
    return [Image.open(file).size for file in files]


def test_tool(detector, tmp_path):
    """Every PNG, and a page that says everything, for two images by class."""
    config, checkpoint, images = detector
    out = tmp_path / 'out'
    names = ('a<b>.png', 'tall.jpg')
    ann = coco(tmp_path / 'ann.json', names, [(1, 3), (2, 3)])
    code, output = run_here(
        TOOL, config, checkpoint, images, '--out', out, '--ann', ann
    )
    assert code == 0, output
    assert '2 images: open' in output
    files = {str(file.relative_to(out)): file for file in out.rglob('*.png')}
    sizes = {'a<b>': (100, 60), 'tall': (110, 330)}
    pictures = {
        f'{folder}.png': size
        for name, size in sizes.items()
        for folder in (
            f'detections/{name}',
            *(f'heat_maps/{name}/{gate}' for gate in GATES),
            *(f'activations/{name}/EigenCAM_{i}' for i in (1, 2, 3, 4)),
        )
    }
    grad_cams = {file for file in files if 'Grad-CAM' in file}
    assert sorted(Path(file).parent.name for file in grad_cams) == [*sizes]
    assert files.keys() - grad_cams == pictures.keys() | {
        'factors.png',
        'channel_factors/backbone.layer1.png',
        'channel_factors/backbone.layer2.png',
    }
    for name, size in pictures.items():
        assert Image.open(files[name]).size == size
    page = (out / 'index.html').read_text()
    embeds = embedded(page)
    assert len(embeds) == 2 + 1 + 2 + 2 * 4 + 2 * (4 + 1)
    # Heat maps and activations, shrunk for the page.
    assert embeds.count((100, 300)) == 4 + 4 + 1
    assert 'a<b>' not in page
    assert page.count('a&lt;b&gt;.png') > 5
    text = ' '.join(page.split())
    for wanted in (
        'MaskRCNN with 2 x CBAM, 2 x SCSE, 4 x GC on 2 images',
        'All factors of the 6 gates lie between',
        'The 4 modules without a factor (GC) add zero.',
        '<td>backbone.layer1.1.cbam.channel</td><td>ChannelGate</td>'
        ' <td>16 x 1 x 1</td><td>4</td> <td>-0.250</td>',
        '<td>backbone.layer2.1.scse</td><td>SCSE</td>',
        '<td>backbone.layer3.0.gc</td><td>GC</td> <td>64 x 8 x 12</td>',
        'one coloured curve for each class',
        # A fresh CBAM: 0.5 everywhere, switched on to -0.25.
        '<td>0.500 to 0.500</td> <td>1.125</td><td>1.125</td>',
    ):
        assert wanted in text, wanted
    order = ['All factors', '<h2>Detections', 'by depth', 'by stage']
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_recording_changes_no_detection(detector, inferencer):
    path = str(detector[2] / 'tall.jpg')
    _, plain = look_at(inferencer, path, defaultdict(Gauge))
    ((_, data),) = inferencer.preprocess([path])
    (without,) = inferencer.forward(data)
    plain, without = plain.pred_instances, without.pred_instances
    for key in ('bboxes', 'scores', 'labels', 'masks'):
        assert torch.equal(plain[key], without[key])
    assert len(plain) > 0


def test_page_of_modules_that_add(tmp_path):
    """GC has no factor: the page shows what it adds, and no heat maps."""
    files = make_detector(tmp_path, [plugin('mmdet_attn.GC')])
    image, out = paint(tmp_path / 'image.png'), tmp_path / 'out'
    inferencer = load_inferencer(*files, 'cpu')

    def page():
        text = attention_maps(inferencer, [image], out).read_text()
        return ' '.join(text.split())

    assert 'The 8 modules without a factor (GC) add zero.' in page()
    for module in inferencer.model.modules():
        if isinstance(module, GC):
            nn.init.constant_(module.channel_add_conv[3].bias, 0.5)
    text = page()
    assert 'times the root mean square of the input. One constant' in text
    assert re.search('(100.0|over 99.9) % of the mean square change', text)
    assert len(embedded(text)) == 1 + 5
    words = (
        'alpha',
        'heat map',
        'Heat map',
        'gate',
        'Factors',
        'between images',
    )
    assert not [word for word in words if word in text.split('</style>')[1]]
    assert {file.name for file in out.iterdir()} == {
        'index.html',
        'detections',
        'activations',
    }


def test_page_of_gates_that_do_nothing(tmp_path):
    """At alpha = 0 the page says so; without a spatial gate no heat maps."""
    places = dict(blocks=(0,), stages=(True, False, False, False))
    eca = plugin('mmdet_attn.ECA', cfg=dict(identity_init=True), **places)
    files = make_detector(tmp_path, [eca])
    image, out = paint(tmp_path / 'image.png'), tmp_path / 'out'
    inferencer = load_inferencer(*files, 'cpu')
    for alpha, words in (
        (0.0, 'All factors of the 1 gate are 1: nothing changes.'),
        (0.01, 'between 0.995 and 0.995: little changes here.'),
        (1.0, 'lie between 0.500 and 0.500.'),
    ):
        for module in inferencer.model.modules():
            if isinstance(module, Gate):
                nn.init.constant_(module.alpha, alpha)
                nn.init.zeros_(module.conv.weight)
        text = attention_maps(inferencer, [image], out).read_text()
        assert words in ' '.join(text.split())
        assert 'eat map' not in text


def test_more_images_than_are_shown(inferencer, tmp_path):
    paths = [paint(tmp_path / f'{i}.png') for i in range(3)]
    out = tmp_path / 'out'
    file = attention_maps(inferencer, paths, out, shown=1, score_thr=0.0)
    page = file.read_text()
    _, sample = look_at(inferencer, paths[0], defaultdict(Gauge))
    count = len(sample.pred_instances)
    assert count > 1
    assert f'0.png <span>{count} objects</span>' in page
    drawn = np.asarray(Image.open(out / 'detections/0.png'))
    assert (drawn != np.asarray(Image.open(paths[0]))).any()
    assert 'the first 1 of the 3 images' in ' '.join(page.split())
    assert len(embedded(page)) == 1 + 1 + 2 + 4 + 5
    assert [p.name for p in (out / 'heat_maps').iterdir()] == ['0']


def test_compare(detector, inferencer, tmp_path):
    """With itself both see the same; without attention the page says so."""
    config, checkpoint, images = detector
    out, plain = tmp_path / 'out', tmp_path / 'plain'
    image = images / 'tall.jpg'
    looks = 'mmdet_attn.look.page.activations'
    with mock.patch(looks, wraps=activations) as asked:
        attention_maps(
            inferencer, [image], out, compare=inferencer, detection=2
        )
    rank, same = [call.args[2] for call in asked.call_args_list]
    assert rank == 2
    assert isinstance(same, Detection)
    folder = out / 'activations/tall'
    first = {file.name: file for file in folder.glob('*.png')}
    second = {f.name: f for f in (folder / 'compare').glob('*.png')}
    assert first.keys() == second.keys()
    assert len(first) == 4 + 1
    for name, file in first.items():
        picture = np.asarray(Image.open(file))
        np.testing.assert_array_equal(picture, Image.open(second[name]))
        framed = (picture == (255, 255, 0)).all(-1).any()
        assert framed == ('Grad-CAM' in name)
    text = ' '.join((out / 'index.html').read_text().split())
    assert 'number 2 of the image' in text
    same = 'MaskRCNN with 2 x CBAM, 2 x SCSE, 4 x GC'
    for which in ('First', 'Second'):
        assert f'<h3>{which} detector: {same}</h3>' in text
    assert len(re.findall(r'Grad-CAM of \w+ 0[.]', text)) == 2

    plain.mkdir()
    command = [TOOL, config, checkpoint, image, '--out', out, '--compare']
    code, output = run_here(*command, *make_detector(plain, None))
    assert code == 0, output
    text = ' '.join((out / 'index.html').read_text().split())
    assert '<h3>Second detector: MaskRCNN without attention' in text
    assert 'It is the highest in the image' in text
    words = ('<figcaption>Grad-CAM of', 'No Grad-CAM: no detection')
    assert sum(text.count(part) for part in words) == 2


def test_bad_input(detector, tmp_path):
    *both, images = detector
    (config, checkpoint), image = both, images / 'tall.jpg'
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'folder').mkdir()
    plain = tmp_path / 'plain'
    plain.mkdir()
    plain_config, plain_checkpoint = make_detector(plain, None)
    other = tmp_path / 'other.pth'
    content = torch.load(checkpoint)
    content['meta']['dataset_meta']['classes'] = ('cat',) * 5
    torch.save(content, other)
    for arguments, expected in (
        ((*both, 'no.png'), 'no.png: no such image'),
        ((*both, tmp_path / 'folder'), 'holds no images'),
        ((*both, tmp_path / 'empty.png'), 'empty.png'),
        ((*both, tmp_path / 'text.png'), 'text.png'),
        ((*both, image, image), 'another --out'),
        ((*both, image, '--out', image), 'is a file'),
        ((*both, image, '--shown', 0), '--shown must be 1'),
        ((*both, image, '--detection', 0), '--detection must be 1'),
        ((*both, image, '--compare', 'no.py', checkpoint), 'no.py: no such'),
        ((*both, image, '--compare', config, 'no.pth'), 'no.pth: no such'),
        ((*both, image, '--compare', config, other), 'other classes than'),
        ((*both, image, '--score-thr', 2), 'between 0 and 1'),
        ((*both, image, '--ann', 'no.json'), '--ann no.json'),
        ((*both, image, '--device', 'tpu9'), '--device tpu9'),
        (('no.py', checkpoint, image), 'no.py: no such'),
        ((config, 'no.pth', image), 'no.pth: no such'),
        ((plain_config, plain_checkpoint, image), 'no attention to look at'),
        ((config, plain_checkpoint, image), 'cbam'),
    ):
        out = [] if '--out' in arguments else ['--out', tmp_path / 'out']
        code, output = run_here(TOOL, *arguments, *out)
        assert code == 2, output
        assert expected in output, output
    assert not (tmp_path / 'out').exists()
