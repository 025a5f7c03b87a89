"""Train a detector."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('train')
