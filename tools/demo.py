"""Train, evaluate and look at a small detector with ECA, with no download."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('demo')
