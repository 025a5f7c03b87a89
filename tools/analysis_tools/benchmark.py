"""Measure time and memory of attention as ratios in one run."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('benchmark')
