"""Convert an official checkpoint to the names of this package."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('convert-checkpoint')
