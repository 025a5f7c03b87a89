"""Evaluate a checkpoint: COCO summary; AP, AP by size and recall per class."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('test')
