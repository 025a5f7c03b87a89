"""Make a checkpoint of a training fit to be published."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('publish-model')
