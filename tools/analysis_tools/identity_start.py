"""Compare two starts of attention in a trained detector."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('identity-start')
