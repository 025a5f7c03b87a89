"""Detect objects in images: pictures and JSON."""

from mmdet_attn.__main__ import run

if __name__ == '__main__':
    run('predict')
