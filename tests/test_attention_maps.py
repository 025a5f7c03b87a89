"""Attention maps: heat maps, figures, the page, and the tool as a whole."""

import base64
import io
import json
import re
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

from mmdet_attn import GC, SE, Gate
from mmdet_attn.errors import InputError
from mmdet_attn.inference import load_inferencer
from mmdet_attn.look.gates import record_gates, summarise
from mmdet_attn.look.heat_maps import Geometry, colour_range, enlarge, overlay
from mmdet_attn.look.image_groups import curve_groups, images_by_class
from mmdet_attn.look.page import attention_maps
from mmdet_attn.look.plots import plot_alphas, plot_channels
from mmdet_attn.look.views import (
    NO_GATE,
    REGIONS,
    GateView,
    Look,
    gate_views,
    look_at,
    stage_of,
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
    x, rows = torch.zeros(1, 2, 4, 4), torch.tensor(weights)[..., None, None]
    return GateView(name, kind, alpha, 4, [summarise(x, row) for row in rows])


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
    look, _ = look_at(inferencer, path)
    assert look.geometry == Geometry((60, 100), (115, 192), (128, 192))
    views, without = gate_views(inferencer.model, [look])
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
    assert not any(word in page for word in ('std over', 'alpha', 'factor'))


def test_overlay():
    """Red where g is greatest; the image shows through; noise does not."""
    image = np.full((2, 2, 3), 255, np.uint8)
    image[1] = 0
    light, dark = overlay(image, np.array([[0, 1], [0, 1]])).astype(int)
    (blue, red) = light
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert (light > 2 * dark).all()
    assert colour_range(np.array([0.2, 0.7])) == (0.2, 0.7)
    flat = np.array([[0.5, 0.5], [0.5, 0.500001]])
    drawn = overlay(np.zeros((2, 2, 3), np.uint8), flat).astype(int)
    assert np.ptp(drawn.reshape(-1, 3), axis=0).max() <= 2


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
    plot_channels(views, groups, 'title', tmp_path / 'a.png')
    for index, plot in enumerate(axes[0]):
        labels, lines = zip(*curves(plot).items(), strict=True)
        assert labels == ('mean over 3 images', 'cat (2)', 'dog (1)')
        groups = weights, weights[[0, 2]], weights[1:2]
        wanted = [group.mean(0) + index for group in groups]
        np.testing.assert_allclose(lines, wanted, rtol=1e-6)
        (band,) = plot.collections
        edge = band.get_paths()[0].vertices[:, 1].max()
        top = weights.mean(0) + weights.std(0) + index
        assert edge == pytest.approx(top.max())
        assert plot.get_title(loc='left') == f'layer1.{index}.se'
    # One image has no spread, and equal weights are a line, not noise.
    flat = np.full((1, 8), 0.5) + np.eye(1, 8) * 1e-7
    plot_channels([view('se', flat)], {'x.png': [0]}, 't', tmp_path / 'b.png')
    (plot,) = axes[1]
    assert not plot.collections
    assert list(curves(plot)) == ['x.png']
    assert np.ptp(plot.get_ylim()) > 0.01


def test_alpha_figure(axes, tmp_path):
    views = [
        view('backbone.layer1.0.se', alpha=0.1),
        view('backbone.layer1.1.se', alpha=0.2),
        view('backbone.layer1.1.x', alpha=None),
        view('backbone.layer2.0.eca', alpha=-0.3, kind='ECA'),
    ]
    plot_alphas(views, tmp_path / 'alpha.png')
    ((plot,),) = axes
    points = {
        line.get_label(): line.get_xydata().tolist()
        for line in plot.lines
        if line.get_marker() == 'o'
    }
    assert points == {'SE': [[0, 0.1], [1, 0.2]], 'ECA': [[2, -0.3]]}
    ticks = [label.get_text() for label in plot.get_xticklabels()]
    assert ticks == ['layer1', 'layer2']
    assert plot_alphas(views[2:3], tmp_path / 'none.png') is None


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
        'backbone': nn.ModuleDict({'gc': GC(8), 'one': SE(8)}),
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
    views, without = gate_views(network, looks)
    assert [(v.name, stage_of(v.name), v.stride) for v in views] == [
        ('neck.se-run1', 'neck', 4),
        ('neck.se-run2', 'neck', 8),
        ('backbone.one', 'backbone', 4),
    ]
    assert without == {
        'neck.rois': REGIONS,
        'roi_head.se': REGIONS,
        'roi_head.gc': REGIONS,
        'backbone.gc': NO_GATE,
    }


def test_numbers_of_a_view():
    weights = np.array([[0.2, 0.6], [0.4, 1.0]])
    found = view('se', weights, alpha=-0.5)
    np.testing.assert_allclose(found.weights, weights)
    assert (found.low, found.mean, found.high) == pytest.approx((0.2, 0.55, 1))
    assert found.factor == pytest.approx((1.0, 1.4))
    assert found.spread == pytest.approx((0.1 + 0.2) / 2)
    assert view('se').factor is view('se').spread is None


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
        )
    }
    assert files.keys() == pictures.keys() | {
        'alpha.png',
        'channel_weights/backbone.layer1.png',
        'channel_weights/backbone.layer2.png',
    }
    for name, size in pictures.items():
        assert Image.open(files[name]).size == size
    page = (out / 'index.html').read_text()
    embeds = embedded(page)
    assert len(embeds) == 2 + 1 + 2 + 2 * 4
    assert embeds.count((100, 300)) == 4  # heat maps, shrunk for the page
    assert 'a<b>' not in page
    assert page.count('a&lt;b&gt;.png') > 5
    for text in (
        '<dd>MaskRCNN</dd>',
        '<dd>2 x CBAM, 2 x SCSE, 4 x GC</dd>',
        '<td>backbone.layer1.1.cbam.channel</td><td>ChannelGate</td>'
        ' <td>16 x 1 x 1</td><td>4</td> <td>-0.250</td>',
        '<td>backbone.layer2.1.scse</td><td>SCSE</td>',
        f'<dt>GC backbone.layer3.*.gc (2)</dt><dd>{NO_GATE}</dd>',
        'one coloured curve for each class',
        # A fresh CBAM: 0.5 everywhere, switched on to -0.25.
        '<td>0.500</td><td>0.500</td> <td>0.500</td> <td>1.125 to 1.125</td>',
    ):
        assert text in ' '.join(page.split()), text


def test_recording_changes_no_detection(detector, inferencer):
    path = str(detector[2] / 'tall.jpg')
    _, plain = look_at(inferencer, path)
    ((_, data),) = inferencer.preprocess([path])
    (without,) = inferencer.forward(data)
    plain, without = plain.pred_instances, without.pred_instances
    for key in ('bboxes', 'scores', 'labels', 'masks'):
        assert torch.equal(plain[key], without[key])
    assert len(plain) > 0


def test_page_of_modules_that_add(tmp_path):
    """GC has no map: the page shows detections, and says why no more."""
    files = make_detector(tmp_path, [plugin('mmdet_attn.GC')])
    image = paint(tmp_path / 'image.png')
    page = attention_maps(
        load_inferencer(*files, 'cpu'), [image], tmp_path / 'out'
    ).read_text()
    assert 'GC backbone.layer' in page
    assert NO_GATE in page
    assert len(embedded(page)) == 1
    assert not any(word in page for word in ('alpha', 'Heat maps', 'stage'))
    assert not list((tmp_path / 'out').glob('**/heat_maps'))


def test_more_images_than_are_shown(inferencer, tmp_path):
    paths = [paint(tmp_path / f'{i}.png') for i in range(3)]
    out = tmp_path / 'out'
    file = attention_maps(inferencer, paths, out, shown=1, score_thr=0.0)
    page = file.read_text()
    _, sample = look_at(inferencer, paths[0])
    count = len(sample.pred_instances)
    assert count > 1
    assert f'0.png <span>{count} objects</span>' in page
    drawn = np.asarray(Image.open(out / 'detections/0.png'))
    assert (drawn != np.asarray(Image.open(paths[0]))).any()
    assert '3 in the channel weights; detections and heat maps of' in page
    assert len(embedded(page)) == 1 + 1 + 2 + 4
    assert [p.name for p in (out / 'heat_maps').iterdir()] == ['0']


def test_bad_input(detector, tmp_path):
    *both, images = detector
    (config, checkpoint), image = both, images / 'tall.jpg'
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'folder').mkdir()
    plain = tmp_path / 'plain'
    plain.mkdir()
    plain_config, plain_checkpoint = make_detector(plain, None)
    for arguments, expected in (
        ((*both, 'no.png'), 'no.png: no such image'),
        ((*both, tmp_path / 'folder'), 'holds no images'),
        ((*both, tmp_path / 'empty.png'), 'empty.png'),
        ((*both, tmp_path / 'text.png'), 'text.png'),
        ((*both, image, image), 'another --out'),
        ((*both, image, '--out', image), 'is a file'),
        ((*both, image, '--shown', 0), '--shown must be 1'),
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
