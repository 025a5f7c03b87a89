"""Render a small COCO-format detection set of coloured shapes."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('make-shapes')
