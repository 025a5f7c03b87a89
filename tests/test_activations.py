"""EigenCAM and Grad-CAM: formulas, gradients of detectors, the choice."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import load_config
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from mmdet_attn.config_files import load_config_file
from mmdet_attn.look import activations as module
from mmdet_attn.look.activations import (
    Detection,
    activations,
    eigen_cam,
    grad_cam,
)

# --- formulas -------------------------------------------------------------


def test_eigen_cam_by_hand():
    """Both channels follow one pattern, (3, 4) times it, so v is (3, 4) / 5.

    Its mean is zero. The constants of the channels do not count.
    """
    pattern = torch.tensor([[-1.0, -2, -1], [-2, -1, 7]])
    level = torch.stack([3 * pattern + 100, 4 * pattern - 50])
    expected = torch.tensor([[-5.0, -10, -5], [-10, -5, 35]]).double()
    torch.testing.assert_close(eigen_cam(level), expected)
    # The sign of the features does not count: few strong places are positive.
    torch.testing.assert_close(eigen_cam(-level), expected)


def test_eigen_cam_of_many_channels():
    level = np.random.default_rng(0).normal(size=(12, 5, 7)).astype('float32')
    rows = level.reshape(12, -1).T.astype(float)
    rows -= rows.mean(0)
    expected = rows @ np.linalg.svd(rows)[2][0]
    expected *= np.sign((expected**3).sum())
    found = eigen_cam(torch.from_numpy(level)).numpy()
    np.testing.assert_allclose(found, expected.reshape(5, 7), atol=1e-6)


def test_grad_cam_by_hand():
    """Weights 0.5 and -1: the mean gradients of the two channels."""
    level = torch.tensor([[[2.0, 4], [6, 8]], [[1, 3], [0, -2]]])
    gradient = torch.tensor([[[2.0, 0], [0, 0]], [[-1, -1], [0, -2]]])
    expected = torch.tensor([[0.0, 0], [3, 6]])
    torch.testing.assert_close(grad_cam(level, gradient), expected)


# --- a detector of one convolution ----------------------------------------


class Tiny(nn.Module):
    """Level 1 is the image, level 2 is not read; two detections of level 1.

    Like those of mmdet, it cuts the scores from the graph.
    """

    def __init__(self, cut=torch.Tensor.detach, source='neck'):
        super().__init__()
        setattr(self, source, nn.Identity())
        getattr(self, source).forward = lambda x: (x, 2 * x[..., ::2, ::2])
        self.source, self.cut = source, cut

    def test_step(self, x):
        level = getattr(self, self.source)(x)[0]
        level.mul_(1)  # as a ReLU in place would
        # The second has the higher score: its gradient is (0.25, -0.5) / 4.
        scores = level.mean((2, 3)) @ torch.tensor([[0.1, 0.25], [0.1, -0.5]])
        found = InstanceData(
            scores=self.cut(scores[0]),
            labels=torch.tensor([3, 1]),
            bboxes=torch.tensor([[0.0, 0, 2, 2], [1, 1, 2, 3]]),
        )
        sample = DetDataSample(
            metainfo=dict(ori_shape=(2, 2), img_shape=(2, 2))
        )
        sample.pred_instances = found
        return [sample]


IMAGE = torch.tensor([[[[2.0, 4], [6, 8]], [[1, 3], [0, -2]]]])


def inferencer_of(model, data=lambda: IMAGE):
    return SimpleNamespace(
        model=model.eval(),
        preprocess=lambda paths: [(None, data())],
        forward=torch.no_grad()(model.test_step),
    )


@pytest.mark.parametrize('source', ['neck', 'backbone'])
def test_tiny_detector(source):
    """Weights (1, -2) / 16, so the values are 0, -2, 6 and 12 of 16."""
    found = activations(inferencer_of(Tiny(source=source)), '', 1)
    assert found.place == source
    assert found.why == ''
    assert found.detection == Detection(1, 1.0, (1, 1, 2, 3))
    assert [one.shape for one in found.eigen] == [(2, 2), (1, 1)]
    assert list(found.grad) == [0]
    np.testing.assert_allclose(found.grad[0], [[0, 0], [0.5, 1]], rtol=1e-6)
    assert found.eigen[1] == 0  # one place has no variance
    values = eigen_cam(IMAGE[0])
    np.testing.assert_allclose(found.eigen[0], values / values.abs().max())


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


@pytest.mark.parametrize(
    ('cut', 'why'),
    [
        (lambda x: torch.tensor(x.tolist()), 'no gradient in the neck'),
        (lambda x: 0 * x, 'the score has no gradient in the neck'),
        (NoDerivative.apply, 'the detector allows none: You must implement'),
    ],
)
def test_scores_without_gradient(cut, why):
    """The reason is given, and EigenCAM is there all the same."""
    found = activations(inferencer_of(Tiny(cut)), '', 1)
    assert why in found.why
    assert found.grad == {}
    assert len(found.eigen) == 2
    assert found.detection is not None


def test_scores_through_numpy():
    """A head may convert what it has detached."""

    def cut(x):
        assert x.detach().numpy().shape == (2,)
        return x

    assert activations(inferencer_of(Tiny(cut)), '', 1).grad


def test_maps_that_are_no_levels():
    model = Tiny()
    model.neck.forward = lambda x: (x, {'more': x})
    found = activations(inferencer_of(model), '', 1)
    assert (found.eigen, found.grad) == ([], {})
    model = Tiny(source='stem')
    found = activations(inferencer_of(model), '', 1)
    assert 'has neither neck nor backbone' in found.why
    assert found.eigen == []


def test_choice_of_the_detection():
    inferencer = inferencer_of(Tiny())

    def chosen(wanted):
        found = activations(inferencer, '', wanted)
        return found.detection and found.detection.label, found.why

    assert chosen(1) == (1, '')
    assert chosen(2) == (3, '')
    assert chosen(3) == (None, 'there are fewer than 3 detections')
    # The IoU with (0, 0, 2, 2) is 0.6 and 0.4.
    for box, label in (((0, 0, 1.2, 2), 3), ((0, 0, 0.8, 2), None)):
        assert chosen(Detection(3, 0.9, box))[0] == label
    label, why = chosen(Detection(1, 0.9, (0, 0, 2, 2)))
    assert label is None
    assert 'no detection of the same class' in why


# --- detectors of mmdet ---------------------------------------------------

NARROW = dict(
    yolox=dict(
        backbone=dict(deepen_factor=0.1, widen_factor=0.125),
        neck=dict(in_channels=[32, 64, 128], out_channels=16),
        bbox_head=dict(in_channels=16, feat_channels=16),
    ),
    deformable_detr=dict(
        backbone=dict(base_channels=16, stem_channels=16, init_cfg=None),
        neck=dict(in_channels=[128, 256, 512]),
        encoder=dict(num_layers=1),
        decoder=dict(num_layers=2),
        num_queries=20,
    ),
)
DETECTORS = {
    'faster': 'demo/faster_rcnn_r50_eca_shapes',
    'mask': 'demo/mask_rcnn_r50_eca_shapes',
    'retinanet': 'demo/retinanet_r50_eca_shapes',
    'yolox': 'yolox_s',
    'deformable_detr': (
        'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
    ),
}


def keep_all(cfg):
    """Fresh heads have low scores."""
    for key, value in cfg.items():
        if key == 'score_thr':
            cfg[key] = 0.0
        elif isinstance(value, dict):
            keep_all(value)


@pytest.mark.parametrize('name', DETECTORS)
def test_gradient_is_the_slope(name, monkeypatch):
    """A step along the gradient changes the score as the gradient says.

    One-stage heads detach the scores, two-stage heads have another stage.
    """
    file = DETECTORS[name]
    cfg = load_config_file(file) if '::' in file else load_config(file)
    cfg = Config(dict(model=cfg.model))
    cfg.merge_from_dict(dict(model=NARROW.get(name, {})))
    if cfg.model.get('test_cfg'):
        keep_all(cfg.model.test_cfg)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    inferencer = inferencer_of(
        model, lambda: demo_mm_inputs(1, [[3, 96, 128]], with_mask=False)
    )
    pairs = []
    monkeypatch.setattr(
        module,
        'grad_cam',
        lambda level, gradient: pairs.append((level, gradient)) or level[0],
    )
    found = activations(inferencer, '', 1)
    assert found.why == ''
    assert all(
        torch.equal(before[k], v) for k, v in model.state_dict().items()
    )
    assert all(p.grad is None for p in model.parameters())

    length = sum(g.square().sum() for _, g in pairs).sqrt()
    step = 1e-3 * found.detection.score / length

    def move(_, __, levels):
        levels = list(levels)
        for number, (level, gradient) in zip(found.grad, pairs, strict=True):
            torch.testing.assert_close(levels[number][0], level)
            levels[number] = levels[number] + step * gradient / length
        return tuple(levels)

    def score():
        ((_, data),) = inferencer.preprocess([''])
        (sample,) = inferencer.forward(data)
        return sample.pred_instances.scores.max().item()

    assert score() == pytest.approx(found.detection.score, rel=1e-6)
    model.neck.register_forward_hook(move)
    slope = (score() - found.detection.score) / step
    assert slope == pytest.approx(length.item(), rel=0.03)
