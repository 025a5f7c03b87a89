"""Mutated annotation files are refused, or everything works with them."""

import contextlib
import copy
import io
import json
import tempfile
from functools import cache
from pathlib import Path

import faster_coco_eval  # noqa: F401 -- not again in every example
import numpy as np
import torch
from broken import ANNOTATIONS, MISSING, WRONG
from budget import apart, fuzz
from conftest import load_config
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset

from mmdet_attn import FastCocoMetric
from mmdet_attn.datasets.coco_folder import use_data_root
from mmdet_attn.datasets.contents import check_contents
from mmdet_attn.datasets.shapes import make_shapes
from mmdet_attn.errors import InputError

VALUES = st.one_of(
    st.sampled_from([*WRONG.values()]),
    st.integers(-5, 200),
    st.floats(-10, 200),
    st.text(max_size=5),
    st.lists(st.floats(-10, 200), max_size=9),
)


@cache
def folder() -> Path:
    root = Path(tempfile.mkdtemp(prefix='fuzz_')) / 'shapes'
    with contextlib.redirect_stdout(io.StringIO()):
        make_shapes(root, train=1, val=3, size=64)
    return root


@cache
def good() -> str:
    return (folder() / 'annotations/instances_val.json').read_text()


def mutate(content, draw):
    """Change one place of the tree, or make one of the known mistakes."""
    if draw(st.booleans()):
        change = ANNOTATIONS[draw(st.sampled_from([*ANNOTATIONS]))]
        # Of two mistakes the second may need what the first took away.
        with contextlib.suppress(Exception):
            return change(content)
        return content
    node, key = {'': content}, ''
    depth = draw(st.integers(1, 6))
    for _ in range(depth):
        child = node[key]
        if isinstance(child, dict) and child:
            node, key = child, draw(st.sampled_from(sorted(child)))
        elif isinstance(child, list) and child:
            node, key = child, draw(st.integers(0, len(child) - 1))
    act = draw(st.sampled_from(['replace', 'remove', 'repeat', 'nudge']))
    value = node[key]
    if act == 'remove' and node is not content:
        del node[key]
    elif act == 'repeat' and isinstance(node, list):
        node.insert(key, copy.deepcopy(value))
    elif act == 'nudge' and isinstance(value, (int, float)):
        node[key] = value * draw(st.floats(-3, 3)) + draw(st.integers(-2, 2))
    else:
        value = draw(VALUES)
        if value is MISSING:
            del node[key]
        else:
            node[key] = copy.deepcopy(value)
    return content


@st.composite
def files(draw):
    content = json.loads(good())
    for _ in range(draw(st.integers(1, 3))):
        if isinstance(content, dict):
            content = mutate(content, draw)
    return json.dumps(content)


def use(file: Path, cfg, masks: bool) -> None:
    """Load the file as mmdet does, and evaluate with both engines."""
    names = cfg.test_dataloader.dataset.metainfo.classes
    data = dict(
        ann_file=str(file),
        data_prefix=dict(img=str(folder() / 'val')),
        metainfo=dict(classes=names),
        pipeline=[],
        serialize_data=False,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        CocoDataset(**data, filter_cfg=dict(filter_empty_gt=True))
        dataset = CocoDataset(**data, test_mode=True)
    kinds = ['bbox', 'segm'] if masks else ['bbox']
    for backend in ('faster', 'pycocotools'):
        metric = FastCocoMetric(str(file), kinds, backend=backend)
        metric.dataset_meta = dataset.metainfo
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            height, width = info['height'], info['width']
            box = torch.tensor([[1.0, 1.0, width / 2, height / 2]])
            mask = torch.zeros((1, height, width), dtype=torch.bool)
            mask[:, : height // 2] = True
            found = dict(
                bboxes=box,
                scores=torch.ones(1),
                labels=torch.zeros(1, dtype=torch.long),
                masks=mask,
            )
            shape = (height, width)
            metric.process(
                {},
                [
                    dict(
                        pred_instances=found,
                        img_id=info['img_id'],
                        ori_shape=shape,
                    )
                ],
            )
        with contextlib.redirect_stdout(io.StringIO()):
            values = metric.evaluate(len(dataset))
        assert all(np.isfinite(value) for value in values.values())


@cache
def config(masks: bool):
    kind = 'mask' if masks else 'faster'
    return load_config(f'demo/{kind}_rcnn_r50_eca_shapes')


@fuzz(files(), st.booleans())
def test_annotations(text, masks):
    file = folder() / 'annotations/instances_val.json'
    cfg = copy.deepcopy(config(masks))
    cfg.work_dir = str(folder().parent)

    def check():
        file.write_text(text)
        try:
            use_data_root(cfg, str(folder()), ('val',))
            check_contents(cfg, ('test',))
        except InputError as error:
            message = str(error)
        else:
            message = str(file)
            use(file, cfg, masks)
        assert str(file) in message

    good()
    apart(check, 60)
