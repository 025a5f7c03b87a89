"""Find the places for attention in the networks of any config."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('where')
